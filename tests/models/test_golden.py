"""The nets that torchvision has: its state dicts key by key, and its own code's outputs.

`golden.json` and `layouts/` were made by torchvision 0.29.2, timm 1.0.31 and PyPI's
efficientnet-lite-pytorch 0.1.0 themselves.
"""

import pytest
import torch
from golden import GOLDEN, close, fill, images, layout

from hubel.models.names import build

HEAVY = {"alexnet", "vgg13", "vgg11_bn", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"}
HEAVY |= {"resnet101", "resnet152"}
OTHERS = ("rule", "timm_", "package_")
NAMES = [name for name in GOLDEN if not name.startswith(OTHERS)]


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_shapes_are_torchvisions_in_its_order(name):
    with torch.device("meta"):
        net = build(name, classes=1000, channels=3, size=(224, 224))
    assert [(key, tuple(t.shape)) for key, t in net.state_dict().items()] == layout(name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in NAMES]
)
def test_outputs_are_torchvisions(name):
    side = GOLDEN[name]["size"]
    with torch.device("meta"):
        net = build(name, classes=1000, channels=3, size=(side, side))
    net = net.to_empty(device="cpu").eval()
    fill(net.state_dict(), GOLDEN[name]["gain"])
    with torch.inference_mode():
        close(net(images(side)), name)


def test_the_comparison_sees_a_small_mistake():
    """Batch norms with another epsilon: what a careless copy would get wrong."""
    net = build("resnet18", classes=1000, channels=3).eval()
    fill(net.state_dict(), GOLDEN["resnet18"]["gain"])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    with torch.inference_mode(), pytest.raises(AssertionError):
        close(net(images(GOLDEN["resnet18"]["size"])), "resnet18")
