"""Whole native steps held against float64 autograd, for their tests."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hubel.engine.native.kernels.update import FIGURES
from hubel.engine.native.machine import this_machine
from hubel.engine.native.plan import Aim
from hubel.engine.native.step import Step, compile_step


def batch(n: int, *shape: int, classes: int = 5, seed: int = 0):
    """Images (n, C, H, W) and labels."""
    chance = torch.Generator().manual_seed(seed)
    images = torch.randn(n, *shape, generator=chance)
    return images, torch.randint(0, classes, (n,), generator=chance)


def seeded(make, seed: int = 0) -> nn.Module:
    """A net with weights of its own, and norms that are not the identity."""
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.2)
                if module.running_mean is not None:
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
    return model


@dataclasses.dataclass
class Reference:
    """What PyTorch finds: loss, logits, gradients by name, and the model with its new buffers."""

    loss: float
    logits: torch.Tensor
    gradients: dict[str, torch.Tensor]
    model: nn.Module


def reference(
    model, images, labels, *, smoothing=0.0, scale=None, dtype=torch.float64, auxiliary=0.0
):
    """One forward and backward of a copy of the model."""
    model = copy.deepcopy(model).to(dtype)
    outputs = model(images.to(dtype))
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    logits = outputs.pop("logits")
    labels = labels.to(dtype) if labels.is_floating_point() else labels
    loss = 0
    for z, weight in [(logits, 1.0), *[(z, auxiliary) for z in outputs.values() if auxiliary]]:
        loss = loss + weight * _loss(z, labels, smoothing)
    loss = loss * (1 / len(images) if scale is None else scale)
    if loss.requires_grad:
        loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return Reference(loss.item(), logits.detach(), gradients, model)


def _loss(z, labels, smoothing):
    """Summed over images, or over pixels, each by its weight; below 0 stands no label."""
    if labels.ndim < 4:
        return F.cross_entropy(z, labels, label_smoothing=smoothing, reduction="sum")
    truth, weights = labels[:, 0].long(), labels[:, 1]
    known = truth >= 0
    each = F.cross_entropy(z, truth.where(known, 0), label_smoothing=smoothing, reduction="none")
    return (each * weights)[known].sum()


def pixels(n: int, height: int, width: int, classes: int, seed: int = 0) -> torch.Tensor:
    """Labels and weights of pixels (n, 2, height, width), one in ten without a label."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n, height, width), generator=chance).float()
    labels[torch.rand(n, height, width, generator=chance) < 0.1] = -1
    return torch.stack([labels, torch.rand(n, height, width, generator=chance) + 0.5], dim=1)


def off(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], least: float = 0.01
) -> dict[str, float]:
    """Each gradient's largest deviation over its largest element.

    A gradient of less than `least` of the net's largest counts as that large: a bias before batch
    norm, say, has a gradient of nothing but rounding.
    """
    top = max((float(g.abs().max()) for g in theirs.values()), default=0.0)
    return {
        name: float((ours[name].double() - g).abs().max())
        / max(float(g.abs().max()), least * top, 1e-30)
        for name, g in theirs.items()
    }


def assert_agrees(
    model,
    images,
    labels,
    *,
    tolerance=1e-5,
    smoothing=0.0,
    scale=None,
    spare=10,
    least=0.01,
    seed=0,
    auxiliary=0.0,
    **how,
) -> Step:
    """Compile, run, and hold everything against float64: loss, logits, hits, norm, gradients and
    running statistics. All may be off by rounding (gradients by `tolerance`) or by `spare` times
    what PyTorch's float32 is off by itself: some nets cannot be had much better in float32."""
    kind = {"pixels": True} if labels.ndim == 4 else {"shares": labels.is_floating_point()}
    aim = Aim(loss=True, smoothing=smoothing, auxiliary=auxiliary, **kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    step = compile_step(model, images, aim=aim, **how)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), f"compiling changed {name}"
    words = {"smoothing": smoothing, "scale": scale, "auxiliary": auxiliary}
    exact = reference(model, images, labels, **words)
    single = reference(model, images, labels, **words, dtype=torch.float32)
    answer = step.run(images, labels, scale=scale, seed=seed)
    assert answer.sound
    known = abs(single.loss - exact.loss)
    assert abs(answer.loss - exact.loss) <= max(3e-6 * max(1.0, abs(exact.loss)), spare * known)
    _same_answers(answer, exact, single, labels, spare)
    _same_gradients(step, answer, exact, single, tolerance, spare, least)
    ours = dict(model.named_buffers())
    for name, theirs in exact.model.named_buffers():
        if theirs.is_floating_point():
            torch.testing.assert_close(ours[name].double(), theirs, rtol=1e-5, atol=1e-5)
    return step


def _same_answers(answer, exact, single, labels, spare):
    known = float((single.logits - exact.logits).abs().max())
    size = max(1.0, float(exact.logits.abs().max()))
    assert float((answer.logits - exact.logits).abs().max()) <= max(3e-6 * size, spare * known)
    right = labels.argmax(1) if labels.is_floating_point() else labels
    right = labels[:, 0] if labels.ndim == 4 else right
    top = exact.logits.topk(min(2, exact.logits.shape[1]), 1)
    if float((top.values[:, 0] - top.values[:, -1]).min()) > 1e-4:
        assert answer.hits == int((top.indices[:, 0] == right).sum())


def _same_gradients(step, answer, exact, single, tolerance, spare, least):
    assert set(step.gradients) == set(exact.gradients)
    wrong = off(step.gradients, exact.gradients, least)
    known = max(off(single.gradients, exact.gradients, least).values(), default=0.0)
    worst = max(wrong, key=wrong.get, default=None)
    allowed = max(tolerance, spare * known)
    assert worst is None or wrong[worst] <= allowed, (
        f"{worst} off by {wrong[worst]:.2g}, PyTorch {known:.2g}"
    )
    whole = sum(float(g.square().sum()) for g in exact.gradients.values()) ** 0.5
    assert abs(answer.norm - whole) <= max(1e-4, 30 * allowed) * max(whole, 1e-3)


def lenet():
    """As LeCun's of 1989: tanh and average pooling, smooth throughout."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 5),
    )  # fmt: skip


def normed():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(400, 5)
    )


def compiled(model, images, *, update=None, rate=0.1, momentum=0.9, decay=0.01, **how):
    """A step; with `update` its states are zeros and its figures filled in."""
    how = {
        "threads": 2,
        "machine": this_machine(),
    } | how  # by itself it goes by the number of images
    step = compile_step(model, images, aim=Aim(loss=True), update=update, **how)
    if update is not None:
        weights = dict(model.named_parameters())
        for name in step.parameters:
            step.bind(name, torch.zeros_like(weights[name]), torch.zeros_like(weights[name]))
        known = {"rate": rate, "momentum": momentum, "decay": decay, "warm1": 1, "warm2": 1}
        step.figures[:] = np.array([known.get(word, 0) for word in FIGURES], dtype=np.float32)
    return step


def small_images(n, seed=0):
    return batch(n, 1, 12, 12, seed=seed)


def loss_in_a_new_process(folder) -> float:
    """A small net's loss, compiled and run; here because a new process has to import it."""
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))
    )
    images, labels = batch(40, 1, 8, 8)
    step = compile_step(
        model, images, aim=Aim(loss=True), threads=3, machine=this_machine(), cache_folder=folder
    )
    return step.run(images, labels).loss


class Wired(nn.Module):
    """Modules by name, and how they are wired: forward(self, x)."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.wiring = forward

    def forward(self, x):
        return self.wiring(self, x)


def conv(cin=3, cout=4, k=3, **options):
    """A convolution that keeps the size unless told otherwise."""
    return nn.Conv2d(cin, cout, k, **({"padding": k // 2} | options))


def pooled(c=4):
    """From a map to 5 logits."""
    return nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5))
