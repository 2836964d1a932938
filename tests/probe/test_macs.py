"""Multiply-adds of single operators, by hand."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from hubel.probe.costs import costs
from hubel.probe.macs import macs

N, T, C, H = 2, 3, 4, 5  # images or sequences, steps, inputs, hidden units


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def counted(module, *shape):
    return costs(module, torch.ones(shape), repeats=0).macs


CALLS = {
    "matrix and vector": (lambda x: x @ x[0], (4, 4), 16),
    "vector and matrix": (lambda x: x[0] @ x, (4, 4), 16),
    "stack of matrices and vector": (lambda x: x @ x[0, 0], (2, 3, 6), 36),
    "matrix, vector, added": (lambda x: torch.addmv(x[0], x, x[1]), (3, 3), 9),
    "two vectors": (lambda x: torch.dot(x[0], x[1]), (2, 6), 6),
    "matrices": (lambda x: x @ x.mT, (2, 3, 4, 6), 6 * 4 * 4 * 6),
    "one matrix for all": (lambda x: x @ x.new_ones(6, 5), (2, 3, 4, 6), 24 * 6 * 5),
    "matrices, added": (lambda x: torch.baddbmm(x, x, x), (2, 3, 3), 2 * 27),
    "matrices, added up": (lambda x: torch.addbmm(x.new_ones(3, 5), x, x.new_ones(2, 4, 5)),
                           (2, 3, 4), 2 * 3 * 4 * 5),
    "matrix, added": (lambda x: torch.addmm(x, x, x), (3, 3), 27),
    "einsum over channels": (lambda x: torch.einsum("nchw,dc->ndhw", x, x.new_ones(5, 3)),
                             (2, 3, 4, 6), 2 * 24 * 3 * 5),
    "einsum of three": (lambda x: torch.einsum("ab,bc,cd->ad", x, x, x), (4, 4), 2 * 64),
    "einsum to a number": (lambda x: torch.einsum("nc,nc->", x, x), (3, 4), 12),
    "einsum, element by element": (lambda x: torch.einsum("nc,nc->nc", x, x), (3, 4), 0),
    "two axes at once": (lambda x: torch.tensordot(x, x, 2), (3, 3), 9),
    "element by element": (lambda x: x * x + x.exp(), (3, 4), 0),
    "steps convolved": (lambda x: torch.conv_tbc(x, x.new_ones(3, C, H), x.new_ones(H), 1),
                        (6, N, C), 6 * N * H * C * 3),
    "resized": (lambda x: nn.functional.interpolate(x, scale_factor=2), (1, 2, 3, 4), 0),
    "attention": (lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
                  (2, 2, 5, 4), 2 * 2 * 2 * 25 * 4),
}  # fmt: skip


@pytest.mark.parametrize(("function", "shape", "exact"), CALLS.values(), ids=CALLS)
def test_one_call(function, shape, exact):
    assert counted(Call(function), *shape) == exact


GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_step_of_a_sequence_counts(kind, device):
    """Two layers, both directions; torch's own counter does not see the fused LSTM."""
    net = kind(C, H, num_layers=2, bidirectional=True, batch_first=True, device=device)
    found = costs(net, torch.ones(N, T, C, device=device), repeats=0)
    assert found.macs == N * T * 2 * GATES[kind] * H * ((C + H) + (2 * H + H))


def test_sequences_of_several_lengths_count_their_own_steps():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(C, H, batch_first=True)

        def forward(self, x):
            return self.lstm(pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True))[0]

    assert counted(Packed(), 2, 3, C) == (3 + 2) * 4 * H * (C + H)


def test_the_kernel_of_a_graphics_card_counts_as_much():
    """cuDNN takes all layers and directions in one call; its shapes alone are enough here."""
    net = nn.LSTM(C, H, num_layers=2, bidirectional=True)
    x, weights = torch.ones(T, N, C), list(net.parameters())
    found = macs(torch.ops.aten._cudnn_rnn.default, (x, weights, 4, None, None), {}, None)
    assert found == costs(net, x, repeats=0).macs


def test_half_the_precision_is_as_many_products():
    image = torch.ones(1, 2, 5, 7, dtype=torch.bfloat16)
    assert costs(nn.Conv2d(2, 4, 3).bfloat16(), image, repeats=0).macs == 3 * 5 * 4 * 2 * 9
