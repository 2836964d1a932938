"""Programs that are hard to follow: writes in place, shared memory, control flow, strange calls."""

import pytest
import torch
import torch.nn.functional as F
from against import (
    WAYS,
    assert_same,
    autograds_of,
    check_against_autograd,
    every_way,
    gradients_of,
    noise,
)  # fmt: skip
from torch import nn

# ---- programs of one input, (4, 6) numbers, and one weight, (6, 6)

PROGRAMS = {}
OVERWRITES = set()  # those that torch refuses: what it saved is written over


def program(f):
    """Register a function of (x, w) that gives any tensor: its gradients will be compared."""
    PROGRAMS[f.__name__.replace("_", " ")] = f
    return f


def overwriting(f):
    OVERWRITES.add(f.__name__.replace("_", " "))
    return f


@program
def relu_in_place(x, w):
    y = x @ w
    F.relu(y, inplace=True)
    return y * y


@program
def addition_in_place(x, w):
    y = x @ w
    y += x
    return y * y


@program
def addition_in_place_of_itself(x, w):
    y = x @ w
    y += y
    return y * y


@program
def a_slice_scaled_in_place(x, w):
    y = x @ w
    y[:, :2] *= 2
    return y.sin()


@program
def a_slice_that_grows_by_another_slice(x, w):
    y = x @ w
    y[:, 1:] += y[:, :-1].clone()
    return y.sin()


@program
def zeros_that_are_filled_in_part(x, w):
    o = torch.zeros(4, 9, dtype=x.dtype)
    o[:, :6] = x @ w
    return o.cos()


@program
def zeros_that_are_filled_twice(x, w):
    o = x.new_zeros(4, 6)
    o[:, :4] = (x @ w)[:, :4]
    o[:, 2:] = x[:, 2:]
    return o.cos()


@program
def clamp_in_place(x, w):
    y = x @ w
    y.clamp_(-0.5, 0.7)
    return y * x


@program
@overwriting
def a_chain_in_place(x, w):
    y = x @ w
    y.sigmoid_().mul_(3).add_(x).tanh_()
    return y * y


@program
@overwriting
def what_sigmoid_saved_is_overwritten(x, w):
    y = x @ w
    s = torch.sigmoid(y)
    y.mul_(5)
    t = s * 1
    s.zero_()
    return t * y


@program
@overwriting
def what_a_product_saved_is_overwritten(x, w):
    y = x.clone()
    z = y @ w
    y.fill_(3.0)
    return z + y


@program
@overwriting
def what_a_convolution_saved_is_overwritten(x, w):
    image = x.reshape(1, 1, 4, 6) * 1.0
    y = F.conv2d(image, w[:3, :3].reshape(1, 1, 3, 3))
    image.zero_()
    return y.exp().sum() + image.sum()


@program
def the_original_is_written_through_a_view(x, w):
    y = x @ w
    v = y.view(-1)
    v[:6] = 1.0
    v[6:12].mul_(2)
    return y * y


@program
def a_view_sees_what_is_written_to_the_original(x, w):
    y = x @ w
    v = y.t()
    y[0] = x[0] * 3
    return v * v


@program
def two_views_that_overlap(x, w):
    y = x @ w
    left, right = y[:, :4], y[:, 2:]
    left *= 2
    right += 1
    left.tanh_()
    return left.sum(1) * right.sum(1) + y.sum(1)


@program
def a_view_of_a_view_is_written(x, w):
    y = x @ w
    v = y[1:].view(3, 2, 3)[:, 0]
    before = v * 1
    v.mul_(before)
    return y.sum(0) * before.sum()


@program
def a_detached_alias_is_written(x, w):
    y = x @ w
    z = y * 2
    y.detach().zero_()
    return z * z


@program
@overwriting
def rows_written_in_a_loop(x, w):
    out = torch.empty(4, 6, dtype=x.dtype)
    for i in range(4):
        out[i] = torch.tanh(x[i] @ w) * (out[i - 1] if i else 1)
    return out


@program
def cells_written_in_a_loop(x, w):
    out = torch.zeros(3, 2, dtype=x.dtype)
    for i in range(3):
        for j in range(2):
            out[i, j] = (x[i] * w[j]).sum()
    return out.sigmoid()


@program
def axes_inserted_and_exchanged_in_place(x, w):
    y = x @ w
    y.unsqueeze_(0).transpose_(1, 2)
    return (y[0] @ x).sin()


@program
def squeezed_and_transposed_in_place(x, w):
    y = (x @ w).unsqueeze(0)
    y.squeeze_(0).t_()
    y.mul_(x.t())
    return y * y


@program
def written_at_indices(x, w):
    y = x @ w
    y[torch.tensor([0, 2])] = x[:2] * 3
    y[torch.tensor([1, 3]), torch.tensor([5, 0])] = x[0, :2]
    return y.sin()


@program
def written_where_a_mask_is_true(x, w):
    y = x @ w
    y[x > 0] = 0.5
    y[x < -1] *= 2
    return y.sin()


@program
def added_at_indices(x, w):
    y = x @ w
    y.index_put_((torch.tensor([1, 1, 2]),), x[:3], accumulate=True)
    y.index_add_(0, torch.tensor([0, 0]), x[1:3])
    return y.sin()


@program
def masked_fill_in_place(x, w):
    scores = x @ w
    scores.masked_fill_(torch.ones(4, 6).triu(1).bool(), -1e9)
    return scores.softmax(1) @ w


@program
def scattered_in_place(x, w):
    index = torch.tensor([[0, 2, 2], [1, 0, 3]])
    y = torch.zeros_like(x).scatter_add_(1, index, (x @ w)[:2, :3])
    return y.sin() + x


@program
def copied_into_a_buffer_in_reverse(x, w):
    y = x @ w
    buffer = torch.zeros_like(y)
    buffer.copy_(y.flip(1))
    y.copy_(buffer * x)
    return y.sin()


@program
@overwriting
def division_and_subtraction_in_place(x, w):
    y = x @ w
    y -= y.mean(1, keepdim=True)
    y /= (y * y).sum(1, keepdim=True).sqrt()
    return y * x


@program
@overwriting
def powers_in_place(x, w):
    y = (x @ w).abs()
    y.pow_(2).add_(1).sqrt_().reciprocal_()
    y.addcmul_(x, x, value=0.3)
    return y.exp_()


@program
def a_constant_written_over_everything(x, w):
    y = x @ w
    z = y.sum()
    y.zero_()
    return y + z


@program
def a_step_in_no_grad(x, w):
    with torch.no_grad():
        scale = (x @ w).abs().max()
    return x @ w / scale


@program
def a_function_without_gradient(x, w):
    @torch.no_grad()
    def norm(t):
        return t.square().sum().sqrt()

    return x @ w / norm(w)


@program
def straight_through_by_detach(x, w):
    y = torch.sigmoid(x @ w)
    hard = (y > 0.5).to(y.dtype)
    return (hard - y.detach() + y) * x


@program
def grad_switched_on_inside_off(x, w):
    with torch.no_grad():
        a = x * 2
        with torch.enable_grad():
            b = x @ w
    return b * a


@program
def way_chosen_by_item(x, w):
    y = x @ w
    return y.sin() if y.sum().item() > 0 else y.cos()


@program
def loop_as_long_as_the_data_says(x, w):
    y = x
    while float(y.detach().abs().max()) > 0.5:
        y = (y @ w).tanh() * 0.6
    return y


@program
def unbound_rows(x, w):
    a, b, c, d = (x @ w).unbind()
    return a * b + c.sin() - d


@program
def a_single_image_unbound(x, w):
    (image,) = (x @ w).unsqueeze(0).unbind(0)
    return image * image


@program
def a_single_part_of_a_split(x, w):
    (y,) = (x @ w).split(4)
    return y * y


@program
def uneven_parts(x, w):
    a, b = (x @ w).split([2, 4], 1)
    c, d = b.chunk(2, 1)
    return a * c - d.exp()


@program
def an_unused_part(x, w):
    values, _ = (x @ w).sort(1, descending=True)
    return values[:, :2].sin()


@program
def the_same_tensor_twice(x, w):
    y = x @ w
    return torch.cat([y, y], 1) * torch.stack([y, x], 1).flatten(1)


@program
def an_input_that_is_not_used(x, w):
    return w.sin()


@program
def integers_on_the_way(x, w):
    best = (x @ w).argmax(1)
    return x.gather(1, best[:, None]) * w[best].sum(1, keepdim=True)


@program
def a_functional_call_of_a_layer(x, w):
    layer = nn.Linear(6, 6, bias=False).double()
    return torch.func.functional_call(layer, {"weight": w}, (x,)).tanh()


@program
def einsum_and_broadcasting(x, w):
    y = torch.einsum("ni,ij,nj->n", x, w, x)
    return y[:, None, None] * w + x[:, None]


@program
def windows_as_a_view(x, w):
    return (x @ w).unfold(1, 3, 2).sum(-1).sin()


@program
def a_diagonal_written_in_place(x, w):
    y = w * 1
    y.diagonal().mul_(2)
    return x @ y


@program
def a_number_from_a_shape_and_a_tensor_from_a_number(x, w):
    return (x @ w) * x.size(0) + torch.tensor(3.0, dtype=x.dtype) * x.mean().reshape(1)


@program
def expanded_then_summed(x, w):
    y = (x @ w).mean(1, keepdim=True).expand(4, 6)
    return y * x


@program
def types_there_and_back(x, w):
    y = (x @ w).float().double()
    return y * 2.0


def loss_of(function):
    def call(model, x, w):
        y = function(x, w)
        return (y * noise(*y.shape, seed=9)).sum()

    return call


def check_program(name, **options):
    return check_against_autograd(
        loss_of(PROGRAMS[name]),
        [noise(4, 6), noise(6, 6, seed=1)],
        tolerance=1e-6 if "types" in name else 1e-10,
        overwrites=name in OVERWRITES,
        **options,
    )


def every_program_in_every_way():
    for name in PROGRAMS:
        for kernels, guard in WAYS:
            yield pytest.param(name, kernels, guard)


@pytest.mark.parametrize(("name", "kernels", "guard"), list(every_program_in_every_way()))
def test_a_program_has_autograds_gradients(name, kernels, guard):
    check_program(name, kernels=kernels, guard=guard)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_alike_when_every_value_is_kept(name):
    tape = check_program(name, keep="all")
    numbers = {n for r in tape.records for n in (*r.inputs, *r.outputs) if n is not None}
    assert numbers <= tape.kept.keys()


@pytest.mark.parametrize("name", sorted(OVERWRITES))
def test_torch_itself_refuses_a_program_that_overwrites_what_was_saved(name):
    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        autograds_of(loss_of(PROGRAMS[name]), None, inputs)


@every_way
def test_parts_of_a_split_can_be_written_to(kernels, guard):
    """torch refuses it; the same function without writes is the reference."""

    def in_place(model, x, w):
        y = x @ w
        one, other = y.split([2, 4], 1)
        one *= 2
        other += 1
        return (y * y).sum() + one.sum()

    def plainly(model, x, w):
        y = x @ w
        one, other = y.split([2, 4], 1)
        return (torch.cat([one * 2, other + 1], 1) ** 2).sum() + 2 * one.sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    _, theirs, _ = autograds_of(plainly, None, inputs)
    _, _, ours = gradients_of(in_place, None, inputs, kernels=kernels, guard=guard)
    assert_same(ours, theirs)


@every_way
def test_rows_from_unbind_can_be_written_to(kernels, guard):
    def in_place(model, x, w):
        y = x @ w
        for row in y.unbind(0):
            row.mul_(row.sum())
        return y.square().sum()

    def plainly(model, x, w):
        y = x @ w
        return (y * y.sum(1, keepdim=True)).square().sum()

    inputs = [noise(4, 6), noise(6, 6, seed=1)]
    _, theirs, _ = autograds_of(plainly, None, inputs)
    _, _, ours = gradients_of(in_place, None, inputs, kernels=kernels, guard=guard)
    assert_same(ours, theirs)
