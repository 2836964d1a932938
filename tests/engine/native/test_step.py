"""What a compiled step promises: answers, chance, updates."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_kernel import MACHINES, some_tiles
from native_nets import (
    assert_agrees,
    batch,
    compiled,
    lenet,
    normed,
    off,
    reference,
    seeded,
    small_images,
)
from torch import nn

from hubel.engine.native.graph import NotCovered
from hubel.engine.native.kernels.update import FIGURES, Update
from hubel.engine.native.machine import this_machine
from hubel.engine.native.plan import Aim, Plan
from hubel.engine.native.step import compile_step
from hubel.engine.native.workers import Workers
from hubel.errors import ModelError

WIDE = MACHINES[0]


# ---- answers


def test_it_fits_the_reference():
    assert_agrees(seeded(lenet), *small_images(33), machine=WIDE, threads=2)


def test_left_to_itself_one_thread_works_where_there_is_little_to_do(monkeypatch):
    model, used = seeded(lenet), []
    run = Workers.run
    monkeypatch.setattr(Workers, "run", lambda *given: (used.append(given[-1]), run(*given))[1])
    (few, some), (many, more) = small_images(4), small_images(512)
    monkeypatch.setattr("hubel.engine.native.step.torch.get_num_threads", lambda: 2)
    for threads in (None, 2, 3):
        step = compile_step(model, few, aim=Aim(loss=True), threads=threads)
        step.run(few, some)
        step.run(many, more)
    assert used == [1, 2, 2, 2, 2, 3]


def test_what_the_plan_works_out_is_not_asked_for_at_every_step(monkeypatch):
    """It takes as long as a small step."""
    model, (images, labels) = seeded(lenet), small_images(4)
    step = compile_step(model, images, aim=Aim(loss=True))
    for name in ("macs", "reused"):
        monkeypatch.setattr(Plan, name, property(lambda plan: pytest.fail("worked out again")))
    step.run(images, labels)


def test_a_step_made_for_few_says_when_it_is_small_for_many():
    model, images = seeded(lenet), small_images(4)[0]
    few = compile_step(model, images, aim=Aim(loss=True), threads=2)
    assert few.suits(4)
    assert not few.suits(64)
    many = compile_step(model, images, number=64, aim=Aim(loss=True), threads=2)
    assert many.suits(4)
    assert many.suits(64)
    assert many.machine == this_machine()


@some_tiles
def test_without_an_update_the_weights_stay(machine):
    model, (images, labels) = seeded(lenet), small_images(20)
    before = copy.deepcopy(model.state_dict())
    compiled(model, images, machine=machine).run(images, labels)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, t: (x[..., 1:], t), r"compiled for float32 images \(N, 1, 12, 12\)"),
        (lambda x, t: (x.double(), t), "given torch.float64"),
        (
            lambda x, t: (x, t[1:]),
            r"labels must be torch.int64 \(20,\) on the CPU, given \(\(19,\)",
        ),
        (lambda x, t: (x, t.int()), "given .*torch.int32"),
        (lambda x, t: (x, None), "given None"),
        (lambda x, t: (x, t + 9), "labels must lie from 0 to "),
        (lambda x, t: (x, t - 1), "given -1 to "),
    ],
)
def test_what_it_was_not_compiled_for_is_refused(spoil, message):
    model, (images, labels) = seeded(lenet), small_images(20)
    step, labels = compiled(model, images), labels.clamp(min=0)
    labels[0] = 0
    with pytest.raises(ModelError, match=message):
        step.run(*spoil(images, labels))


def test_more_memory_than_there_is_is_not_asked_for(monkeypatch):
    model, (images, labels) = seeded(normed), small_images(20)
    step = compiled(model, images)
    few = type("Memory", (), {"available": 100_000})
    monkeypatch.setattr("hubel.engine.native.step.psutil.virtual_memory", lambda: few)
    with pytest.raises(NotCovered, match=r"batches of such images in the memory there is \(0.* GB"):
        step.run(images, labels)


@some_tiles
@pytest.mark.parametrize("make", [lenet, normed])
def test_outputs_alone(make, machine):
    model, (images, _) = seeded(make).eval(), small_images(29)
    step = compile_step(
        model, images, aim=Aim(loss=False, backward=False), threads=2, machine=machine
    )
    answer = step.run(images)
    with torch.no_grad():
        torch.testing.assert_close(answer.logits, model(images), rtol=1e-5, atol=1e-5)
    assert step.parameters == []
    assert step.gradients == {}
    assert (answer.loss, answer.hits, answer.norm) == (0, 0, 0)


def test_loss_without_gradients():
    model, (images, labels) = seeded(normed), small_images(29)
    step = compile_step(model, images, aim=Aim(loss=True, backward=False), threads=2)
    expected = reference(model, images, labels)
    answer = step.run(images, labels)
    assert answer.loss == pytest.approx(expected.loss, rel=1e-5)
    assert step.gradients == {}


def test_one_step_takes_batches_of_any_number_in_any_order():
    model = seeded(normed).eval()
    step = compiled(model, small_images(3)[0])
    for n in (3, 100, 1, 40, 2):
        images, labels = small_images(n, seed=n)
        expected = reference(model, images, labels)
        answer = step.run(images, labels)
        assert answer.logits.shape == (n, 5)
        assert answer.loss == pytest.approx(expected.loss, rel=1e-5)
        assert max(off(step.gradients, expected.gradients).values()) < 1e-5


def test_strided_images_are_read_right():
    model, (images, labels) = seeded(lenet), small_images(20)
    step = compiled(model, images)
    expected = step.run(images, labels).loss
    assert step.run(images.transpose(2, 3).contiguous().transpose(2, 3), labels).loss == expected
    twice = images.repeat_interleave(2, 0)[::2]
    assert step.run(twice, labels.repeat_interleave(2)[::2]).loss == expected


def test_weights_may_change_in_place_and_move():
    model, (images, labels) = seeded(lenet), small_images(20)
    step = compiled(model, images)
    step.run(images, labels)
    model.load_state_dict(seeded(lenet, 1).state_dict())
    assert step.run(images, labels).loss == pytest.approx(
        reference(model, images, labels).loss, rel=1e-5
    )
    for p in model.parameters():
        p.data = p.data.clone() * 0.5
    assert step.run(images, labels).loss == pytest.approx(
        reference(model, images, labels).loss, rel=1e-5
    )


# ---- the same again


@some_tiles
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_step_twice_is_equal_to_the_bit(threads, machine):
    model, (images, labels) = seeded(normed), small_images(50)
    model.insert(4, nn.Dropout(0.3))
    model[1].momentum = 0.0
    found = []
    for _ in range(2):
        step = compiled(model, images, threads=threads, machine=machine)
        for _ in range(3):
            answer = step.run(images, labels, seed=4)
            found.append(
                [
                    answer.loss,
                    answer.norm,
                    answer.logits,
                    *map(torch.clone, step.gradients.values()),
                ]
            )
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))


# ---- dropout


class Dropped(nn.Module):
    """Two square layers with dropout between them, and behind: what is kept can be read off."""

    def __init__(self, p):
        super().__init__()
        self.one, self.two = nn.Linear(36, 36, bias=False), nn.Linear(36, 36, bias=False)
        self.between, self.before = nn.Dropout(p), nn.Dropout(p)

    def forward(self, x):
        return self.two(self.between(self.one(self.before(x.flatten(1)))))


@some_tiles
def test_dropout_is_the_same_forward_and_back_and_follows_the_seed(machine):
    p, n = 0.4, 50
    images, labels = batch(n, 1, 6, 6, classes=36)
    images = images.abs() + 0.1
    model = seeded(lambda: Dropped(p))
    step = compiled(model, images, machine=machine)
    alone = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Dropout(p), nn.Linear(36, 36, bias=False))
    )
    with torch.no_grad():
        for net in (model.one, model.two, alone[2]):
            net.weight.copy_(torch.eye(36))
    first = step.run(images, labels, seed=1)
    kept = (first.logits != 0).double() / (1 - p) ** 2  # by both
    torch.testing.assert_close(first.logits.double(), images.flatten(1) * kept, rtol=1e-5, atol=0)
    share = float((first.logits != 0).double().mean())
    assert abs(share - (1 - p) ** 2) < 4 * math.sqrt(0.25 / kept.numel())
    slope = (torch.softmax(first.logits.double(), 1) - F.one_hot(labels, 36)) / n
    # both masks are needed for the second layer's gradient; the first one's needs their product
    exact = (slope * (first.logits != 0) / (1 - p)).T
    single = step.gradients["one.weight"].double()
    inner = images.flatten(1).double() / (1 - p)
    both = first.logits != 0
    diagonal = (exact.T * inner * both).sum(0)
    torch.testing.assert_close(single.diagonal(), diagonal, rtol=1e-4, atol=1e-6)
    again = step.run(images, labels, seed=1)
    assert torch.equal(again.logits, first.logits)
    other = step.run(images, labels, seed=2)
    assert not torch.equal(other.logits != 0, first.logits != 0)
    assert not torch.equal(first.logits[0] != 0, first.logits[1] != 0)


def test_dropout_does_not_depend_on_threads_or_lanes():
    images, labels = batch(50, 1, 6, 6, classes=36)
    found = []
    for machine in MACHINES:
        for threads in (1, 3):
            step = compiled(seeded(lambda: Dropped(0.5)), images, machine=machine, threads=threads)
            found.append(step.run(images, labels, seed=9).logits)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-6)


def test_out_of_training_nothing_is_dropped():
    model, (images, labels) = seeded(lambda: Dropped(0.5)).eval(), batch(20, 1, 6, 6, classes=36)
    assert_agrees(model, images, labels, machine=WIDE, threads=2)


# ---- updates


@some_tiles
@pytest.mark.parametrize("make", [lenet, normed])
def test_two_hundred_steps_end_where_pytorchs_do(make, machine):
    """A smooth net: nothing makes rounding grow faster than the steps themselves."""
    model = seeded(make)
    theirs = copy.deepcopy(model)
    optimiser = torch.optim.SGD(theirs.parameters(), 0.02, 0.9, weight_decay=1e-3, nesterov=True)
    images, labels = small_images(200)
    step = compiled(
        model, images, update=Update("nesterov", "l2"), rate=0.02, decay=1e-3, machine=machine
    )
    steps = 200 if make is lenet and machine is WIDE else 40
    losses = []
    for turn in range(steps):
        some = slice(turn % 5 * 37, turn % 5 * 37 + 37)
        losses.append(step.run(images[some], labels[some]).loss)
        optimiser.zero_grad()
        F.cross_entropy(theirs(images[some]), labels[some]).backward()
        optimiser.step()
    for (name, ours), p in zip(model.named_parameters(), theirs.parameters(), strict=True):
        size = max(1.0, float(p.detach().abs().max()))
        assert float((ours - p).detach().abs().max()) <= 1e-5 * size, name
    for ours, b in zip(model.buffers(), theirs.buffers(), strict=True):
        if b.is_floating_point():
            torch.testing.assert_close(ours, b, rtol=1e-4, atol=1e-5)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_adam():
    model = seeded(lenet)
    theirs = copy.deepcopy(model)
    optimiser = torch.optim.Adam(theirs.parameters(), 1e-3, (0.9, 0.99))
    images, labels = small_images(60)
    step = compiled(model, images, update=Update("adam", "none"))
    for turn in range(1, 31):
        known = {
            "rate": 1e-3, "momentum": 0.9, "beta2": 0.99, "eps": 1e-8,
            "warm1": 1 - 0.9**turn, "warm2": math.sqrt(1 - 0.99**turn),
        }  # fmt: skip
        step.figures[:] = np.array([known.get(word, 0) for word in FIGURES], dtype=np.float32)
        step.run(images, labels)
        optimiser.zero_grad()
        F.cross_entropy(theirs(images), labels).backward()
        optimiser.step()
    for ours, p in zip(model.parameters(), theirs.parameters(), strict=True):
        assert (
            float((ours - p).detach().abs().max()) <= 1e-5
        )  # Adam divides tiny gradients by their size


def test_frozen_weights_stay_where_they_are():
    model, (images, labels) = seeded(lenet), small_images(20)
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    step = compiled(model, images, update=Update("velocity", "decoupled"))
    step.run(images, labels)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]) == name.startswith("0."), name


def test_clipping_shortens_the_gradient_as_torch_does():
    images, labels = small_images(20)
    for most in (1e-3, 0.05, 1e6):
        model = seeded(lenet)
        theirs = copy.deepcopy(model)
        step = compiled(model, images, update=Update("pytorch", "none"), momentum=0.0, rate=1.0)
        answer = step.run(images, labels, clip=most)
        F.cross_entropy(theirs(images), labels).backward()
        norm = float(nn.utils.clip_grad_norm_(theirs.parameters(), most))
        assert answer.norm == pytest.approx(norm, rel=1e-5)
        torch.optim.SGD(theirs.parameters(), 1.0).step()
        for ours, p in zip(model.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(ours, p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("make", "machine"), [(lenet, WIDE), (normed, MACHINES[-1])])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["images", "weights"])
def test_what_is_not_finite_takes_no_step(where, bad, make, machine):
    model, (images, labels) = seeded(make), small_images(37)
    step = compiled(model, images, update=Update("nesterov", "l2"), machine=machine)
    step.run(images, labels)  # so that the velocities are not zeros
    if where == "images":
        images = images.clone()
        images[35, 0, 3, 3] = bad
    else:
        with torch.no_grad():
            model[-1].weight[2, 1] = bad
    before = [p.detach().clone() for p in model.parameters()]
    answer = step.run(images, labels)
    assert not answer.sound
    assert not (math.isfinite(answer.loss) and math.isfinite(answer.norm))
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.detach().nan_to_num(9), old.nan_to_num(9))


def test_a_later_sound_batch_goes_on_where_the_unsound_one_was_left_out():
    images, labels = small_images(20)
    broken = images.clone()
    broken[0] = math.nan
    ends = []
    for batches in ([images, images], [images, broken, images]):
        model = seeded(lenet)
        step = compiled(model, images, update=Update("nesterov", "l2"))
        assert [step.run(x, labels).sound for x in batches] == [x is images for x in batches]
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.skipif(not WIDE.half, reason="the processor has no bfloat16 products")
def test_gradients_in_bfloat16_are_nearer_to_the_truth_than_pytorchs():
    """Maps stay float32 between layers here; PyTorch's autocast rounds every one."""
    ours, theirs = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        blocks = [
            nn.Sequential(nn.Conv2d(c, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh())
            for c in (4, 16, 16, 16)
        ]
        model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
        images, labels = batch(32, 4, 10, 10, seed=seed)
        exact = reference(model, images, labels)
        step = compile_step(model.train(), images, aim=Aim(loss=True, half=True), machine=WIDE)
        step.run(images, labels)
        rough = copy.deepcopy(model)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(rough(images).float(), labels)
        loss.backward()
        given = {name: p.grad for name, p in rough.named_parameters()}
        true = {name: p.grad for name, p in exact.model.named_parameters()}
        for found, errors in ((step.gradients, ours), (given, theirs)):
            off = sum(float((found[n].double() - g).square().sum()) for n, g in true.items())
            errors.append(math.sqrt(off / sum(float(g.square().sum()) for g in true.values())))
    assert max(ours) < min(0.1, max(theirs))
    assert sum(ours) < 0.9 * sum(theirs)
