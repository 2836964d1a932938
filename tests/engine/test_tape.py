"""Whole nets on a tape: shared and frozen weights, chance, contexts, what remains."""

import contextlib
import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from against import (
    assert_same,
    autograds_of,
    check_against_autograd,
    double,
    every_way,
    gradients_of,
    largest_error,
    noise,
)  # fmt: skip
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils.checkpoint import checkpoint

from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape
from hubel.errors import ModelError

# ---- models


class Shared(nn.Module):
    """One layer used three times, its weight tied to a fourth."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.last = nn.Linear(6, 6, bias=False)
        self.last.weight = self.layer.weight

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.last(x)


def total(model, *inputs):
    y = model(*inputs)
    return (y * noise(*y.shape, seed=9).to(y.dtype)).sum()


@every_way
def test_a_shared_and_a_tied_parameter_get_the_sum_of_all_uses(kernels, guard):
    tape = check_against_autograd(
        total, [noise(4, 6)], double(Shared()), kernels=kernels, guard=guard
    )
    assert set(tape.watched.values()) == {"layer.weight", "layer.bias", "input0"}


@every_way
def test_a_module_that_stands_twice_in_a_sequence(kernels, guard):
    layer = nn.Linear(6, 6)
    model = double(nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.Sigmoid()))
    check_against_autograd(total, [noise(4, 6)], model, kernels=kernels, guard=guard)


def test_a_frozen_parameter_gets_no_gradient():
    model = double(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    model[0].weight.requires_grad_(False)
    _, _, ours = gradients_of(total, model, [noise(4, 6)])
    assert ours.keys() == {"0.bias", "2.weight", "2.bias", "input0"}
    check_against_autograd(total, [noise(4, 6)], model)


def test_nothing_is_recorded_before_the_first_parameter_that_learns():
    model = double(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    model[0].requires_grad_(False)
    with Tape(model) as tape:
        value = total(model, noise(4, 6))
    assert backpropagate(tape, value).keys() == {"2.weight", "2.bias"}
    assert tape.records[0].path == "2"


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(lambda t: torch.tanh(self.one(t)), x, use_reentrant=self.reentrant)
        return self.two(x)


@every_way
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant, kernels, guard):
    model = double(Checkpointed(reentrant))
    check_against_autograd(total, [noise(4, 6)], model, kernels=kernels, guard=guard)


class Cosine(nn.Module):
    def forward(self, x):
        return F.cosine_similarity(x[:2], x[2:]) + F.pairwise_distance(x[:2], x[2:]) + x.norm()


# Layers that torch builds in unusual ways: parametrised weights, packed sequences, own functions.
UNUSUAL = {
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), (4, 6)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)), (4, 6)),
    "spectral norm of a convolution": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)), (2, 2, 5, 4),
    ),
    "orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)), (4, 6)),
    "tracked instance norm": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 5),
    ),
    "single image": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)), (2, 6, 6)),
    "fold and unfold": (lambda: nn.Sequential(nn.Unfold(2), nn.Fold((4, 3), 2)), (2, 3, 4, 3)),
    "same padding that is uneven": (lambda: nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 2, 5, 6)),
    "reflected padding": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 6),
    ),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True)).to(
            memory_format=torch.channels_last
        ),
        (2, 2, 5, 6),
    ),
    "fractional pooling": (
        lambda: nn.FractionalMaxPool2d(2, output_ratio=0.6), (2, 3, 7, 6),
    ),
    "soft min and glu": (lambda: nn.Sequential(nn.GLU(), nn.Softmin(1)), (4, 6)),
    "prelu per channel": (lambda: nn.PReLU(3), (2, 3, 4)),
    "channel shuffle": (lambda: nn.Sequential(nn.ChannelShuffle(2), nn.Tanh()), (2, 4, 3, 3)),
    "adaptive pooling": (lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 3, 5, 7)),
    "cosine similarity": (Cosine, (4, 6)),
}  # fmt: skip


@every_way
@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_layer_has_autograds_gradients(name, kernels, guard):
    build, shape = UNUSUAL[name]
    torch.manual_seed(0)
    model = build().double()
    options = {"kernels": kernels, "guard": guard}
    check_against_autograd(total, [noise(*shape)], model, tolerance=1e-9, **options)


@every_way
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_net_over_packed_sequences(kind, kernels, guard):
    model = double(kind(6, 3, batch_first=True, bidirectional=True))

    def call(model, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2], batch_first=True)
        y, _ = nn.utils.rnn.pad_packed_sequence(model(packed)[0], batch_first=True)
        return (y * noise(*y.shape, seed=2)).sum()

    check_against_autograd(call, [noise(2, 4, 6)], model, kernels=kernels, guard=guard)


@every_way
@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.4), nn.Dropout2d(0.4), nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)]
)
def test_chance_falls_as_it_does_without_the_tape(layer, kernels, guard):
    model = double(nn.Sequential(nn.Conv2d(2, 5, 3), layer, nn.Tanh(), nn.Conv2d(5, 2, 1)))
    check_against_autograd(total, [noise(3, 2, 6, 5)], model, kernels=kernels, guard=guard)


@every_way
def test_a_borrowed_random_operator_draws_the_same_numbers_both_ways(kernels, guard):
    def call(model, x):
        return (F.rrelu(x * 2, 0.1, 0.4, training=True) * noise(4, 6, seed=2)).sum()

    tape = check_against_autograd(call, [noise(4, 6)], kernels=kernels, guard=guard)
    assert any(r.borrowed for r in tape.records)


@every_way
def test_gumbel_softmax_draws_as_it_does_without_the_tape(kernels, guard):
    def call(model, x):
        return (F.gumbel_softmax(x.sin(), tau=0.7) * noise(4, 6, seed=2)).sum()

    check_against_autograd(call, [noise(4, 6)], kernels=kernels, guard=guard)


@every_way
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_once_and_as_torchs(momentum, kernels, guard):
    model = double(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=momentum)))
    twin = copy.deepcopy(model)
    x = noise(4, 2, 6, 5)
    for step in range(2):
        total(twin, x + step)
        gradients_of(total, model, [x + step], kernels=kernels, guard=guard)
    assert int(model[1].num_batches_tracked) == 2
    torch.testing.assert_close(model[1].running_mean, twin[1].running_mean)
    torch.testing.assert_close(model[1].running_var, twin[1].running_var)


@every_way
def test_multi_head_attention_in_eval_mode(kernels, guard):
    attention = double(nn.MultiheadAttention(6, 2, batch_first=True)).eval()

    def call(model, x):
        y, weights = model(x, x, x)
        return (y * noise(2, 4, 6, seed=1)).sum() + (weights * noise(2, 4, 4, seed=2)).sum()

    tape = check_against_autograd(call, [noise(2, 4, 6)], attention, kernels=kernels, guard=guard)
    assert not [r for r in tape.records if r.borrowed]


@every_way
def test_a_transformer_layer_in_eval_mode(kernels, guard):
    layer = double(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)).eval()
    check_against_autograd(total, [noise(2, 4, 6)], layer, kernels=kernels, guard=guard)


@every_way
def test_bfloat16_by_autocast_comes_close(kernels, guard):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                          nn.Linear(72, 4))  # fmt: skip

    def call(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(x), torch.tensor([0, 3, 1]))

    x = noise(3, 2, 6, 5).float()
    _, value, ours = gradients_of(call, copy.deepcopy(model), [x], kernels=kernels, guard=guard)
    expected, theirs, _ = autograds_of(call, model, [x])
    torch.testing.assert_close(value, expected, rtol=0.02, atol=0.02)
    top = max(float(g.abs().max()) for g in theirs.values())
    assert ours["4.weight"].dtype == torch.float32
    assert_same(ours, theirs, tolerance=0.05, floor=0.1 * top)


# ---- where the tape is called from


@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.enable_grad, lambda: torch.inference_mode(False)],
    ids=["no_grad", "enable_grad", "inference_mode off"],
)
def test_the_callers_context_does_not_matter(context, kernels):
    model, x = double(Shared()), noise(4, 6)
    _, theirs, _ = autograds_of(total, model, [x])
    with context():
        _, _, ours = gradients_of(total, model, [x], kernels=kernels)
    assert_same(ours, theirs)


@every_way
def test_a_second_tape_on_the_same_tensors_starts_afresh(kernels, guard):
    model, x = double(Shared()), noise(4, 6)
    options = {"kernels": kernels, "guard": guard}
    first, value, ours = gradients_of(total, model, [x], **options)
    _, _, again = gradients_of(total, model, [x], **options)
    later = backpropagate(first, value)
    for name, gradient in ours.items():
        assert torch.equal(gradient, again[name])
        assert torch.equal(gradient, later[name])


def test_a_value_of_an_older_tape_is_a_constant_to_the_next():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape(watch={"x": x}) as older:
        hidden = (x @ w).tanh()
    with Tape(watch={"w": w}) as newer:
        value = (hidden @ w).sum()
    found = backpropagate(newer, value)
    assert found.keys() == {"w"}
    torch.testing.assert_close(found["w"], hidden.sum(0)[:, None].expand(6, 6))
    assert len(older.records) == 2


def test_a_tensor_that_is_watched_later_is_followed_from_then_on():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape() as tape:
        hidden = x @ w
        tape.watch({"hidden": hidden})
        value = hidden.square().sum()
    found = backpropagate(tape, value)
    torch.testing.assert_close(found["hidden"], 2 * hidden)
    assert len(tape.records) == 2


def test_the_gradient_of_an_output_can_come_from_outside():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape(watch={"w": w}) as tape:
        y = (x @ w).sin()
    dy = noise(4, 6, seed=2)
    torch.testing.assert_close(backpropagate(tape, y, dy)["w"], x.t() @ (dy * (x @ w).cos()))


def test_saved_values_are_let_go_of_when_asked():
    x, w = noise(4, 6), noise(6, 6, seed=1)
    with Tape(watch={"w": w}) as tape:
        y = (x @ w).sin().sum()
    backpropagate(tape, y, free=True)
    assert all(record.saved == () for record in tape.records)
    assert tape.saved_bytes() == 0


# ---- what the tape leaves behind


def state_of_torch():
    return (
        dict(hooks._global_forward_hooks),
        dict(hooks._global_forward_pre_hooks),
        [vars(kind).get("apply") for kind in torch.autograd.Function.__mro__],
        torch.backends.mha.get_fastpath_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


@every_way
def test_the_tape_leaves_torch_as_it_was(kernels, guard):
    before = state_of_torch()
    gradients_of(total, double(Shared()), [noise(4, 6)], kernels=kernels, guard=guard)
    assert state_of_torch() == before
    x = noise(3).requires_grad_()
    (gradient,) = torch.autograd.grad((x * x).sum(), x)
    assert torch.equal(gradient, 2 * x)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        self.inner(x)
        raise KeyError("lost")


@every_way
def test_the_tape_leaves_torch_as_it_was_after_an_exception(kernels, guard):
    before = state_of_torch()
    with pytest.raises(KeyError):
        gradients_of(total, double(Failing()), [noise(4, 6)], kernels=kernels, guard=guard)
    assert state_of_torch() == before


@every_way
def test_an_exception_that_the_net_catches_leaves_the_paths_right(kernels, guard):
    failing, layer = double(Failing()), double(nn.Linear(6, 6))
    model = nn.ModuleDict({"failing": failing, "layer": layer})
    with Tape(model, kernels=kernels, guard=guard) as tape:
        with contextlib.suppress(KeyError):
            failing(noise(4, 6))
        layer(noise(4, 6))
    assert [r.path for r in tape.records] == ["failing.inner", "layer"]


def test_the_tape_changes_neither_inputs_nor_parameters_nor_gradients():
    model, x = double(Shared()), noise(4, 6)
    before = copy.deepcopy(model.state_dict())
    gradients_of(total, model, [x])
    assert torch.equal(x, noise(4, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_training_goes_on_after_a_tape():
    model, x = double(Shared()), noise(4, 6)
    gradients_of(total, model, [x])
    total(model, x).backward()
    twin = double(Shared())
    total(twin, x).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_results_of_a_tape_can_be_used_under_autograd():
    model, x = double(Shared()), noise(4, 6)
    with Tape(model):
        y = model(x)
    w = noise(6, 6, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad((y @ w).sum(), w)
    torch.testing.assert_close(gradient, y.sum(0)[:, None].expand(6, 6))


def test_a_tape_that_is_gone_frees_its_memory():
    x = noise(4, 6)
    with Tape(watch={"x": x}, keep="all") as tape:
        x.sin()
    alive = weakref.ref(tape)
    del tape
    gc.collect()
    assert alive() is None


# ---- what is refused


@every_way
def test_complex_numbers_are_refused(kernels, guard):
    with pytest.raises(ModelError, match="complex"):
        gradients_of(
            lambda model, x: torch.fft.fft(x).abs().sum(), None, [noise(4, 6)],
            kernels=kernels, guard=guard,
        )  # fmt: skip


def test_an_out_argument_is_refused():
    def call(model, x):
        y = x * 1
        torch.sin(x, out=y)
        return y.sum()

    with pytest.raises(ModelError, match="out="):
        gradients_of(call, None, [noise(4, 6)])


def test_gradients_agree_with_those_of_a_longer_way_round():
    """Nothing of torch's is asked here: two programs of one function have one gradient."""
    x, w = noise(4, 6), noise(6, 6, seed=1)

    def in_place(model, x, w):
        out = torch.zeros(4, 6, dtype=x.dtype)
        for i in range(4):
            out[i].add_(x[i] @ w)
        out[:, ::2].mul_(3)
        return out.square().sum()

    def plainly(model, x, w):
        scale = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0, 1.0], dtype=x.dtype)
        return ((x @ w) * scale).square().sum()

    ours = gradients_of(in_place, None, [x, w])[2]
    other = gradients_of(plainly, None, [x, w])[2]
    for name, gradient in ours.items():
        assert largest_error(gradient, other[name]) < 1e-14
