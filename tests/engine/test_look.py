"""One pass laid open: what the table says, what each operator answers, what is refused."""

import copy
import re

import pytest
import small_nets as nets
import torch
import torch.nn.functional as F
from torch import nn

from hubel.engine.look import look
from hubel.engine.record import Statistics
from hubel.errors import ModelError, OptionError


@pytest.fixture
def lenet():
    model, inputs, labels = nets.NETS["lenet"].make()
    return look(model, inputs[0], labels)


def test_gradients_are_autograds(lenet):
    model = lenet.model
    x = lenet.inputs["x"].clone().requires_grad_()
    loss = F.cross_entropy(model(x), lenet._call[1])
    named = dict(model.named_parameters())
    theirs = torch.autograd.grad(loss, [*named.values(), x])
    for name, g in zip([*named, "x"], theirs, strict=True):
        ours = lenet.input_grads[name] if name == "x" else lenet.grads[name]
        assert torch.allclose(ours, g, atol=1e-12)
    assert float(lenet.loss) == pytest.approx(float(loss.detach()))


def test_operators_are_found_by_path_index_and_kind(lenet):
    assert lenet["conv1"].kind == "conv"
    assert lenet[0].path == "conv1"
    assert [op.path for op in lenet["conv"]] == ["conv1", "conv2"]
    assert len(lenet["relu"]) == 4
    assert len(lenet) == len(list(lenet)) == 13


def test_a_wrong_path_names_the_nearest(lenet):
    with pytest.raises(OptionError, match=r"unknown module path or operator 'conv3': did you mean"):
        lenet["conv3"]


def test_an_operator_holds_what_went_in_and_out_both_ways(lenet):
    op = lenet["conv2"]
    assert op.inputs.keys() == {"x"}
    assert op.params.keys() == {"conv2.weight", "conv2.bias"}
    assert op.output.shape == op.grad_output.shape == (2, 16, 10, 10)
    assert op.grad_inputs["x"].shape == op.inputs["x"].shape
    assert torch.equal(op.grad_params["conv2.weight"], lenet.grads["conv2.weight"])
    assert torch.equal(lenet[4].grad_inputs["x"], op.grad_output)  # the ReLU behind it


def test_the_table_counts_as_by_hand(lenet):
    rows = {row.path: row for row in lenet.rows() if row.path}
    assert rows["conv1"].parameters == 156
    assert rows["conv1"].macs == 2 * 6 * 28 * 28 * 25
    assert rows["fc1"].macs == 2 * 400 * 120
    assert rows["conv2"].field == "14x14"
    assert rows["fc1"].field == "all"
    table = str(lenet).splitlines()
    assert "operator" in table[0]
    assert "416,520" not in table[-1]  # two images
    assert f"{2 * 416_520:,} multiply-adds" in table[-1]
    assert lenet._repr_html_().count("<tr>") == 14


def test_bytes_are_those_of_the_tensors(lenet):
    op = lenet["conv1"]
    tensors = [*op.inputs.values(), *op.params.values(), op.output]
    assert op.bytes == sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("place", [(0, 3, 0, 0), (1, 5, 4, 7), (1, 0, 9, 9)])
def test_an_explanation_adds_up_to_the_number(lenet, place):
    image, channel, row, col = place
    told = lenet["conv2"].explain(channel, row, col, image=image)
    assert told.total == pytest.approx(float(lenet["conv2"].output[place]))
    assert len(told.terms) == 6 * 25
    assert "times kernel" in str(told)


def test_a_padded_corner_is_explained_by_the_pixels_that_are_there(lenet):
    told = lenet["conv1"].explain(0, 0, 0)
    assert sum(t.value == 0 for t in told.terms) >= 16
    assert told.total == pytest.approx(told.result)


@pytest.mark.parametrize("kind", ["max_pool", "linear", "relu", "reshape", "cross_entropy"])
def test_every_kind_can_be_explained(lenet, kind):
    op = lenet[kind]
    op = op[0] if isinstance(op, tuple) else op
    told = op.explain()
    place = (0, *[n // 2 for n in op.output.shape[1:]]) if op.output.dim() else ()
    assert told.result == pytest.approx(float(op.output[place]))
    assert str(told).endswith(f"together: {told.result:.6g}")


def test_max_pooling_is_explained_by_its_winner(lenet):
    op = lenet["max_pool"][0]
    told = op.explain(2, 3, 4)
    assert sorted({t.weight for t in told.terms}) == [0.0, 1.0]
    assert told.total == pytest.approx(float(op.output[0, 2, 3, 4]))


def test_a_place_that_is_not_there_is_refused(lenet):
    with pytest.raises(OptionError, match=r"the output has shape \(2, 6, 28, 28\), given place"):
        lenet["conv1"].explain(6, 0, 0)


def test_the_matrix_times_the_image_is_the_output(lenet):
    op = lenet["conv2"]
    x, bias = op.inputs["x"][0], op.params["conv2.bias"]
    y = (op.matrix() @ x.reshape(-1)).view(16, 10, 10) + bias.view(-1, 1, 1)
    assert torch.allclose(y, op.output[0])
    w = op.params["conv2.weight"]
    assert torch.allclose(
        (op.matrix("w") @ w.reshape(-1)).view(16, 10, 10), y - bias.view(-1, 1, 1)
    )


def test_a_jacobian_is_that_of_autograd(lenet):
    op = lenet["max_pool"][1]
    x = op.inputs["x"]
    theirs = torch.autograd.functional.jacobian(lambda x: F.max_pool2d(x, 2), x)
    assert torch.equal(op.jacobian().to_dense(), theirs.reshape(op.output.numel(), x.numel()))


def test_a_matrix_of_what_is_not_linear_is_refused(lenet):
    with pytest.raises(OptionError, match=r"relu is not linear in 'x': its matrix exists nowhere"):
        lenet["relu"][0].matrix()
    with pytest.raises(OptionError, match=r"conv is not linear in 'b': allowed: x, w"):
        lenet["conv1"].matrix("b")


def test_a_matrix_that_would_not_fit_is_refused_with_its_size():
    model = nn.Conv2d(64, 64, 3, padding=1)
    seen = look(model, torch.zeros(1, 64, 224, 224), loss=lambda y: y.sum(), kernels="torch")
    with pytest.raises(
        OptionError, match=r"3,211,264 x 3,211,264 .* GB sparse \(82,\d+ GB dense\)"
    ):
        seen[0].matrix()


def test_an_operator_can_be_checked_where_it_stands(lenet):
    report = lenet["conv2"].check()
    assert report.fine
    assert [v.name for v in report.verdicts] == ["x", "w", "b"]


def test_the_walk_goes_from_the_loss_to_the_image(lenet):
    steps = list(lenet.walk())
    assert [op.record.index for op, _, _ in steps] == list(range(12, -1, -1))
    assert float(steps[0][1]) == 1.0
    first = steps[-1]
    assert torch.equal(first[2]["w"], lenet.grads["conv1.weight"])


def test_a_look_leaves_the_model_as_it_was():
    model, inputs, labels = nets.NETS["resnet"].make()
    before = copy.deepcopy(model.state_dict())
    chance = torch.get_rng_state()
    look(model, inputs[0], labels)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def test_statistics_stand_in_for_values():
    model, inputs, labels = nets.NETS["vgg"].make()
    whole = look(model.eval(), inputs[0], labels)
    lean = look(model, inputs[0], labels, keep="statistics")
    for i in range(len(whole)):
        assert lean.statistics(i)[0] == pytest.approx(Statistics.of(whole[i].output), nan_ok=True)
    assert lean.grads.keys() == whole.grads.keys()
    with pytest.raises(ModelError, match="was not kept: look again with keep='all'"):
        _ = lean[0].output


def test_without_labels_there_is_only_the_way_forward(lenet):
    seen = look(lenet.model, lenet.inputs["x"])
    assert seen.loss is None
    assert seen.grads == {}
    with pytest.raises(ModelError, match="look with labels or a loss"):
        _ = seen[0].grad_output
    with pytest.raises(ModelError, match="there is no loss to walk back from"):
        next(seen.walk())


def test_several_inputs_and_a_loss_of_its_own():
    model, inputs, _ = nets.NETS["detector"].make()
    seen = look(model, tuple(inputs))
    assert seen.loss is seen.output
    assert seen.input_grads["x"].shape == inputs[0].shape
    model, inputs, labels = nets.NETS["siamese"].make()
    seen = look(model, {"one": inputs[0], "other": inputs[1]}, labels)
    assert seen.input_grads.keys() == {"one", "other"}


def test_source_lines_are_those_of_the_forward(lenet):
    assert re.fullmatch(r"small_nets\.py:\d+", lenet[1].record.line)


def test_borrowed_operators_are_marked():
    seen = look(nn.Identity(), torch.rand(3, 3) + torch.eye(3), loss=torch.linalg.det)
    assert [op.kind for op in seen.borrowed] == [seen[0].kind]
    assert "borrowed" in str(seen)


class Writes(nn.Module):
    def forward(self, x):
        x += 1
        return x.mul_(2).sum()


def test_a_model_that_writes_into_its_input_harms_nobody():
    x = torch.ones(3)
    seen = look(Writes(), x)
    assert torch.equal(x, torch.ones(3))
    assert torch.equal(seen.input_grads["x"], torch.full((3,), 2.0))


class Twice(nn.Module):
    def forward(self, x):
        x = x.requires_grad_()
        return torch.autograd.grad((x**3).sum(), x, create_graph=True)[0].sum()


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (
            nn.Conv2d(3, 4, 3),
            torch.zeros(1, 1, 5, 5),
            "the kernel takes 3 channels, the input has 1",
        ),
        (nn.Linear(4, 2), (torch.zeros(1, 4), torch.zeros(1)), "cannot take 2 positional"),
        (nn.Linear(4, 2), torch.zeros(1, 4, dtype=torch.int64), "Linear cannot take inputs"),
        (nn.Linear(4, 2), torch.zeros(1, 4, dtype=torch.complex64), "complex inputs"),
        (Twice(), torch.ones(3), "double backward"),
        (nn.Linear(4, 2, device="meta"), torch.zeros(1, 4), "parameters without data"),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_line(model, images, message):
    with pytest.raises(ModelError, match=message) as caught:
        look(model, images)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_no_tensor_needs_a_loss():
    class Dict(nn.Module):
        def forward(self, x):
            return {"a": x * 2, "name": "b"}

    with pytest.raises(ModelError, match=r"the model gives dict, not one tensor of scores"):
        look(Dict(), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    seen = look(Dict(), torch.ones(2, 3), loss=lambda out: out["a"].sum())
    assert torch.equal(seen.input_grads["x"], torch.full((2, 3), 2.0))
