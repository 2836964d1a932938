"""Judging a model: every image once, in eval mode, nothing changed."""

import numpy as np
import torch
from torch import nn

from hubel.data.feed import Feed
from hubel.data.mask_feed import MaskFeed, open_mask_store
from hubel.data.masks.open import open_masks
from hubel.data.preprocess import Preprocess
from hubel.data.record import ArraySource
from hubel.data.store import MemoryStore
from hubel.tasks.classify import Classify
from hubel.tasks.segment import Segment
from hubel.training.distribute import Crew
from hubel.training.evaluate import evaluate

CPU = torch.device("cpu")
TASK = Classify(("a", "b", "c"))


def feed(count=50, batch=16):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    targets = draw.integers(0, 3, count)
    source = ArraySource(images, targets, TASK.classes, name="n", origin="o")
    store = MemoryStore(source, Preprocess(1, 4, 4, "stretch", (0.5,), (0.5,)), CPU)
    return Feed(store, torch.arange(count), torch.from_numpy(targets), 3, batch, CPU)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))


def test_the_tally_is_that_of_all_images_at_once():
    model, judged = net(), feed()
    tally = evaluate(model, TASK, judged, Crew(0, 1, CPU))
    batch = next(feed(batch=50).batches())
    with torch.no_grad():
        outputs = model.eval()(batch.images)
    right = (outputs.argmax(1) == batch.targets).double().mean().item()
    assert tally.count == 50
    assert TASK.scores(tally)["accuracy"] == right


def test_every_row_is_told_once_with_probabilities():
    rows, sums = [], []
    evaluate(
        net(), TASK, feed(), Crew(0, 1, CPU),
        each=lambda r, t, p: (rows.extend(r.tolist()), sums.extend(p.sum(1).tolist())),
    )  # fmt: skip
    assert rows == list(range(50))
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_mode_and_statistics_stay():
    model = net().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    evaluate(model, TASK, feed(), Crew(0, 1, CPU))
    assert model.training
    assert all(t.equal(before[name]) for name, t in model.state_dict().items())


def test_large_images_go_through_a_net_for_pixels_by_tiles():
    """And the scores are those of the whole image, for a net that sees no further than a tile."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (2, 1100, 1030), dtype=np.uint8)
    source = open_masks((images, (images > 128).astype(np.uint8)))
    plain = Preprocess(1, 64, 64, "same", (0.5,), (0.5,))
    store = open_mask_store(source, plain, torch.device("cpu"))
    feed = MaskFeed(store, torch.arange(2), batch=1, device=torch.device("cpu"))
    net, seen = nn.Conv2d(1, 2, 1), []
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1))
        net.bias.zero_()
    net.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2:]))
    task = Segment(("dark", "light"), ((0, 0, 0), (255, 255, 255)))
    found = task.scores(evaluate(net.train(), task, feed, Crew(0, 1, torch.device("cpu"))))
    assert found["miou"] > 0.99
    assert len(seen) == 2 * 4
    assert max(max(size) for size in seen) <= 1024
    assert net.training
