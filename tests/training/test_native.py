"""Training through the compiled step: PyTorch's steps, checked, safe to stop and go on."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hubel
from hubel.data.augment import Augment
from hubel.data.feed import Feed
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.engine.native import step
from hubel.engine.native.graph import NotCovered
from hubel.engine.native.machine import this_machine
from hubel.engine.native.views import views
from hubel.tasks.classify import Classify
from hubel.training import native
from hubel.training.distribute import Crew
from hubel.training.fit import Diverged, Epoch, Feeds, Step, fit
from hubel.training.native import Compiled, check_native, native_outputs, native_runner, update_of
from hubel.training.plan import make_plan
from hubel.training.speed import Choice
from hubel.training.state import State

CPU = torch.device("cpu")
ALONE = Crew(0, 1, CPU)
CLASSES = ("left", "right", "both")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all, so that equal nets are compiled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, cache):
    monkeypatch.setenv("HUBEL_CACHE", str(cache))


def smooth(seed=0, *more):
    """No ReLU: what rounds apart stays close."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), *more, nn.Linear(72, 3)),
    )


def normed(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, 3)),
    )


def plan_of(**words):
    start = {"source": "noise", "model": "own", "epochs": 2, "batch": 16, "augment": Augment()}
    optimiser = {"lr": 0.05, "weight_decay": 1e-2, **words.pop("optimiser", {})}
    return make_plan(**{**start, "optimiser": optimiser, **words})


def feeds_of(plan):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (100, 1, 8, 10), dtype=np.uint8)
    source = ArraySource(images, np.arange(100) % 3, CLASSES, name="noise", origin="here")
    store = MemoryStore(source, Preprocess(1, 8, 10, "stretch", (0.5,), (0.3,)), CPU)
    targets = torch.from_numpy(source.targets)
    train = Feed(
        store, torch.arange(80), targets, 3, plan.batch, CPU, plan.seed, True, plan.augment
    )
    return Feeds(train, Feed(store, torch.arange(80, 100), targets, 3, 64, CPU))


def trained(plan, net, *, by_native=True, stop=None, state=None):
    """The state after the training, or after `stop` records, and the records."""
    state = state or State.start(net, plan)
    task = Classify(CLASSES, plan.smoothing)
    steps = fit(state, task, feeds_of(plan), plan, Choice(native=by_native), ALONE)
    return state, list(itertools.islice(steps, stop))


def weights(state):
    return {n: t.clone() for n, t in state.model.state_dict().items()}


def apart(one, other):
    return max(float((one[n].double() - other[n].double()).abs().max()) for n in one)


OPTIMISERS = [
    *({"momentum_form": form} for form in ("velocity", "average", "nesterov", "pytorch")),
    {"decay": "decoupled"}, {"decay_all": True}, {"momentum": 0.0},
    {"name": "adam", "lr": 0.01}, {"name": "adamw", "lr": 0.01},
]  # fmt: skip


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_every_optimiser_takes_torchs_steps(optimiser):
    plan = plan_of(optimiser=optimiser, smoothing=0.1)
    ours, records = trained(plan, smooth())
    theirs, expected = trained(plan, smooth(), by_native=False)
    assert apart(weights(ours), weights(theirs)) < 2e-5
    for a, b in zip(records, expected, strict=True):
        if isinstance(a, Step):
            assert (a.loss, a.norm, a.note) == (pytest.approx(b.loss, rel=1e-4),
                                                pytest.approx(b.norm, rel=1e-3), None)  # fmt: skip
        else:
            assert a.train["accuracy"] == pytest.approx(b.train["accuracy"], abs=0.03)
            assert a.val["loss"] == pytest.approx(b.val["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        {"optimiser": {"name": "adagrad"}}, {"optimiser": {"name": "rmsprop", "lr": 1e-3}},
        {"accumulate": 2}, {"clip": 0.5}, {"ema": 0.9},
        {"augment": Augment(flip=True, mixup=0.3)}, {"batch": 50},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_fused_and_what_is_beside_the_step(words):
    plan = plan_of(**words)
    ours, _ = trained(plan, smooth())
    theirs, _ = trained(plan, smooth(), by_native=False)
    assert apart(weights(ours), weights(theirs)) < 2e-5
    if plan.ema:
        judged = [s.ema.module.state_dict() for s in (ours, theirs)]
        assert apart(*judged) < 2e-5


def test_norms_count_their_batches_and_keep_their_statistics():
    plan = plan_of(optimiser={"lr": 1e-3})
    ours, _ = trained(plan, normed())
    theirs, _ = trained(plan, normed(), by_native=False)
    mine, other = weights(ours), weights(theirs)
    assert mine["1.num_batches_tracked"] == other["1.num_batches_tracked"] == 10
    assert torch.allclose(mine["1.running_var"], other["1.running_var"], rtol=1e-2)


@pytest.mark.parametrize("net", [smooth, normed])
@pytest.mark.parametrize("optimiser", [{}, {"name": "adam", "lr": 0.01}], ids=str)
def test_cut_at_any_record_and_go_on_bit_for_bit(net, optimiser):
    plan = plan_of(optimiser=optimiser)
    whole, records = trained(plan, net())
    for stop in (1, 4, 6, len(records)):
        half, _ = trained(plan, net(), stop=stop)
        tensors, record = half.export()
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        again = State.start(net(seed=9), plan)
        again.restore(kept, record)
        done, _ = trained(plan, None, state=again)
        assert apart(weights(whole), weights(done)) == 0


def test_dropout_falls_as_the_step_has_it_and_not_as_the_clock():
    plan = plan_of()
    one, first = trained(plan, normed())
    two, second = trained(plan, normed())
    assert [getattr(r, "loss", 0) for r in first] == [getattr(r, "loss", 0) for r in second]
    assert apart(weights(one), weights(two)) == 0


@pytest.mark.parametrize("dropout", [True, False])
def test_a_seed_is_drawn_for_every_step_of_a_net_with_dropout_and_of_no_other(monkeypatch, dropout):
    seeds, real = [], step.Step.run

    def run(self, *given, **words):
        if "seed" in words:  # not so the first step's check
            seeds.append(words["seed"])
        return real(self, *given, **words)

    monkeypatch.setattr(step.Step, "run", run)
    net = normed() if dropout else smooth()
    trained(plan_of(), net, stop=6)
    assert len(seeds) >= 5
    assert len(set(seeds)) == (len(seeds) if dropout else 1)


def test_what_is_not_finite_is_reported_and_changes_nothing():
    plan = plan_of()
    state, _ = trained(plan, normed(), stop=2)
    before = weights(state)
    with torch.no_grad():
        state.model[0].weight[0, 0, 0, 0] = float("inf")
    before["0.weight"] = state.model[0].weight.clone()
    with pytest.raises(Diverged, match="training diverged at step 3"):
        trained(plan, None, state=state)
    after = weights(state)
    assert all(after[n].equal(t) for n, t in before.items())


class Sorted(nn.Module):
    def forward(self, x):
        return x.sort(1).values


def test_what_cannot_be_compiled_trains_in_torch_and_says_why():
    plan = plan_of()
    net = smooth(0, Sorted())
    ours, records = trained(plan, copy.deepcopy(net))
    theirs, _ = trained(plan, copy.deepcopy(net), by_native=False)
    assert apart(weights(ours), weights(theirs)) == 0
    notes = [r.note for r in records if isinstance(r, Step) and r.note]
    assert len(notes) == 1
    assert "in 6: training goes on in PyTorch" in notes[0]


def test_a_first_step_that_is_wrong_is_found_out(monkeypatch):
    real = native.compile_step

    def wrong(*given, **words):
        step = real(*given, **words)
        run = step.run

        def twisted(*args, **kwargs):
            answer = run(*args, **kwargs)
            if step.gradients:
                step.gradients["3.weight"][0] *= 1.5
            return answer

        step.run = twisted
        return step

    monkeypatch.setattr(native, "compile_step", wrong)
    images, labels = torch.randn(8, 1, 8, 10), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    with pytest.raises(NotCovered, match=r"differs from PyTorch's \(gradient of 3.weight off by"):
        check_native(smooth(), Classify(CLASSES), images, labels)
    plan = plan_of()
    _, records = trained(plan, smooth())
    assert "differs from PyTorch" in next(r.note for r in records if isinstance(r, Step))


def test_a_cumulative_norm_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten(), nn.Linear(80, 3))
    with pytest.raises(
        NotCovered, match="batch_norm in 0: whose running statistics average all batches"
    ):
        Compiled(net, Classify(CLASSES))(
            torch.randn(4, 1, 8, 10), torch.zeros(4, dtype=torch.int64)
        )


def test_outputs_are_torchs_and_follow_the_weights():
    net, images = normed().eval(), torch.randn(21, 1, 8, 10)
    for _ in range(2):
        expected = net(images).detach()
        assert native_outputs(net, images).sub(expected).abs().max() < 1e-5
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.1)
    assert native_outputs(smooth(0, Sorted()).eval(), images) is None


def test_too_little_memory_is_pytorchs_affair(monkeypatch):
    images, labels = torch.randn(40, 1, 8, 10), torch.arange(40) % 3
    few = type("Memory", (), {"available": 20_000})
    runner, run = native_runner(Classify(CLASSES)), native_outputs
    net = normed().eval()
    assert run(net, images[:8]) is not None
    assert callable(runner(normed(), images, labels, False))
    monkeypatch.setattr("hubel.engine.native.step.psutil.virtual_memory", lambda: few)
    assert runner(normed(), images, labels, False) is None
    assert run(normed().eval(), images) is None
    ours, records = trained(plan_of(), normed())
    assert any("memory" in (r.note or "") for r in records if isinstance(r, Step))
    assert ours.step == 10


def test_the_check_is_of_the_code_that_will_run(monkeypatch):
    asked, real = [], native.compile_step

    def spied(*given, **words):
        asked.append(real(*given, **words))
        return asked[-1]

    monkeypatch.setattr(native, "compile_step", spied)
    monkeypatch.setattr("hubel.engine.native.step.ALONE", 0)
    monkeypatch.setattr("hubel.engine.native.step.torch.get_num_threads", lambda: 16)
    batch = torch.randn(320, 1, 8, 10)  # the 64 that are checked would be 4 a thread
    Compiled(smooth(), Classify(CLASSES))(batch, torch.zeros(len(batch), dtype=torch.int64))
    assert len(asked) == 2
    assert asked[0].machine == asked[1].machine == this_machine()


def test_every_piece_of_a_batch_has_its_own_dropout(monkeypatch):
    seeds, run = [], native.Step.run
    monkeypatch.setattr(
        native.Step, "run", lambda *a, **k: (seeds.append(k.get("seed")), run(*a, **k))[1]
    )
    first = trained(plan_of(accumulate=2, epochs=1), normed())[0]
    taken = [seed for seed in seeds if seed]  # the check's, which is without chance, has none
    assert len(taken) == len(set(taken)) == 10
    assert (
        apart(weights(first), weights(trained(plan_of(accumulate=2, epochs=1), normed())[0])) == 0
    )


def test_which_updates_are_compiled():
    assert update_of(plan_of()).kind == "nesterov"
    assert update_of(plan_of(optimiser={"weight_decay": 0.0})).decay == "none"
    assert update_of(plan_of(optimiser={"name": "adamw"})).decay == "decoupled"
    assert update_of(plan_of(optimiser={"name": "adagrad"})) is None


def train(tmp_path, **words):
    said = []
    data = hubel.load_data("sample")
    few = (data.images[:600], data.targets[:600])
    result = hubel.train(
        "lenet5", few, out=tmp_path, batch=50, seed=3, epochs=2, size=(16, 16), **words,
        tell=said.append,
    )  # fmt: skip
    return result, said


@pytest.mark.parametrize("by_native", [True, False])
def test_images_are_made_ready_by_machine_code_where_steps_are(by_native):
    plan = plan_of(epochs=1)
    feeds, state = feeds_of(plan), State.start(smooth(), plan)
    choice = Choice(native=by_native)
    assert list(fit(state, Classify(CLASSES), feeds, plan, choice, ALONE))
    assert (feeds.train.mover is views) == (feeds.val.mover is views) == by_native


def test_hubel_train_by_the_native_step(tmp_path):
    ours, said = train(tmp_path, engine="native")
    theirs, expected = train(tmp_path, engine="torch", tune="off")
    assert ours.choices["native"]
    assert not theirs.choices["native"]
    losses = [[e.loss for e in found if isinstance(e, Step)] for found in (said, expected)]
    assert losses[0][:5] == pytest.approx(losses[1][:5], rel=1e-3)
    epochs = [e for e in said if isinstance(e, Epoch)]
    assert epochs[-1].train["loss"] < epochs[0].train["loss"]
    assert any("native step, fp32, as asked for" in getattr(e, "text", "") for e in said)


def test_hubel_train_in_bf16_where_the_processor_has_it(tmp_path, monkeypatch):
    ours, said = train(tmp_path, engine="native", precision="bf16")
    assert ours.choices["native"] == native.has_half()
    monkeypatch.setattr("hubel.session.has_half", lambda: False)
    ours, said = train(tmp_path, engine="native", precision="bf16")
    assert not ours.choices["native"]
    assert any("has no bf16" in getattr(e, "text", "") for e in said)


@pytest.mark.skipif(not native.has_half(), reason="the processor has no bfloat16 products")
def test_bf16_learns_as_fp32_does():
    plan = plan_of(optimiser={"lr": 0.02}, epochs=3)

    def wide():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
        )

    task = Classify(CLASSES, plan.smoothing)
    choices = [Choice(native=True), Choice("bf16", native=True)]
    found = []
    for choice in choices:
        state = State.start(wide(), plan)
        steps = fit(state, task, feeds_of(plan), plan, choice, ALONE)
        found.append([r.loss for r in steps if isinstance(r, Step)])
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_left_to_itself_it_measures_both(tmp_path):
    _, said = train(tmp_path)
    words = next(e.text for e in said if "ms a step" in getattr(e, "text", ""))
    assert "hubel's native step, fp32" in words


def test_several_sizes_take_several_steps():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    compiled = Compiled(net, Classify(CLASSES))
    for side in (8, 9, 8):
        images = torch.randn(5, 1, side, side)
        step = compiled(images, torch.zeros(5, dtype=torch.int64))
        expected = F.cross_entropy(compiled.model(images), torch.zeros(5, dtype=torch.int64))
        answer = step.run(images, torch.zeros(5, dtype=torch.int64))
        assert answer.loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert len(compiled.steps) == 2


def test_the_code_is_for_full_batches_whichever_comes_first():
    net = smooth()
    first, targets = torch.randn(2, 1, 8, 10), torch.zeros(2, dtype=torch.int64)
    assert Compiled(net, Classify(CLASSES), number=512)(first, targets).machine == this_machine()
    assert Compiled(net, Classify(CLASSES))(first, targets).machine != this_machine()


def test_outputs_of_many_after_few_are_made_by_tiles_for_many():
    net, lanes = normed().eval(), []
    for n in (2, 512, 2):
        images = torch.randn(n, 1, 8, 10)
        assert native_outputs(net, images).sub(net(images)).abs().max() < 1e-5
        (step,) = native._forwards[net].values()
        lanes.append(step.machine.lanes)
    assert lanes == [2, this_machine().lanes, this_machine().lanes]
