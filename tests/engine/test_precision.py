"""Half precision and other devices: the same gradients, as far as their digits go."""

import copy

import pytest
import torch
from small_nets import NETS

from hubel.engine.backprop import backpropagate
from hubel.engine.tape import Tape

NAMES = ["lenet", "vgg", "resnet", "unet", "mobilenet", "transformer"]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def both(net, model, inputs, labels, kernels, cast=None):
    """Gradients of the parameters by autograd and by the engine, from the same random numbers."""
    theirs = copy.deepcopy(model)
    context = (lambda: torch.autocast("cpu", dtype=cast)) if cast else torch.enable_grad
    torch.manual_seed(5)
    with context():
        loss = net.value(theirs, inputs, labels)
    loss.backward()
    torch.manual_seed(5)
    with Tape(model, kernels=kernels) as tape, context():
        found = net.value(model, inputs, labels)
    return {n: p.grad for n, p in theirs.named_parameters()}, backpropagate(tape, found)


def distance(ours, theirs):
    """Of all parameters together: relative to the whole gradient's length."""
    off = sum(float((ours[n].double() - g.double()).square().sum()) for n, g in theirs.items())
    return (off / sum(float(g.double().square().sum()) for g in theirs.values())) ** 0.5


@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_a_net_in_bfloat16(name, kernels):
    """Eight bits of mantissa: formulas and kernels round in other places."""
    net = NETS[name]
    model, inputs, labels = net.make(dtype=torch.bfloat16)
    model.eval()  # batch norm over a handful of values is chaotic at this precision
    theirs, ours = both(net, model, inputs, labels, kernels)
    assert all(ours[n].dtype == torch.bfloat16 for n in theirs)
    assert distance(ours, theirs) < (0.08 if kernels == "math" else 0.02)


@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_a_net_under_autocast(name, kernels):
    net = NETS[name]
    model, inputs, labels = net.make(dtype=torch.float32)
    model.eval()
    theirs, ours = both(net, model, inputs, labels, kernels, cast=torch.bfloat16)
    assert all(ours[n].dtype == torch.float32 for n in theirs)
    assert distance(ours, theirs) < (0.08 if kernels == "math" else 0.02)


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["math", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_a_net_on_a_gpu(name, kernels):
    net = NETS[name]
    model, inputs, labels = net.make()
    model, labels = model.cuda().eval(), labels.cuda()
    theirs, ours = both(net, model, [t.cuda() for t in inputs], labels, kernels)
    assert all(ours[n].is_cuda for n in theirs)
    assert distance(ours, theirs) < 1e-10
