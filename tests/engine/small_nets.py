"""One small net of every kind that the engine must open, each with inputs and a loss.

They use what real code uses: functional calls, in-place layers, shared modules, slices, `view`,
data-dependent control flow, several inputs, ceil-mode pooling, skip connections.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


def stack(*widths, norm=False, inplace=True):
    layers = []
    for c, o in itertools.pairwise(widths):
        layers.append(nn.Conv2d(c, o, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(o)] if norm else []
        layers.append(nn.ReLU(inplace=inplace))
    return nn.Sequential(*layers)


class AlexNet(nn.Module):
    """Groups, local response norm, overlapping pooling, dropout."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.norm = nn.LocalResponseNorm(5, alpha=5e-2, k=2.0)
        self.fc1 = nn.Linear(12 * 9, 20)
        self.fc2 = nn.Linear(20, 10)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = F.max_pool2d(self.norm(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), 3, 2, ceil_mode=True)
        x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(self.drop(x))))


class Vgg(nn.Module):
    """A long Sequential with in-place ReLU and adaptive pooling."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            stack(3, 6, 6), nn.MaxPool2d(2), stack(6, 10, 10), nn.MaxPool2d(2), stack(10, 12)
        )
        self.pool = nn.AdaptiveAvgPool2d((3, 2))
        self.classifier = nn.Sequential(
            nn.Linear(72, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10)
        )

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class GoogLeNet(nn.Module):
    """Branches that are concatenated, an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)
        )
        self.one = nn.Conv2d(8, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(8, 3, 1), nn.ReLU(True), nn.Conv2d(3, 5, 3, padding=1))
        self.five = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(True), nn.Conv2d(2, 3, 5, padding=2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))
        self.auxiliary = nn.Linear(16, 10)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.local_response_norm(self.stem(x), 5, 1e-2)
        x = F.relu(torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1))
        side = self.auxiliary(F.avg_pool2d(x, 3, 3).mean((2, 3)))
        return self.head(x.mean(dim=(-2, -1))) + 0.3 * side


class Residual(nn.Module):
    """Batch norm in training, option A shortcuts by slicing and padding, `+=`."""

    def __init__(self, width=8, blocks=2):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.ModuleList()
        self.second = nn.ModuleList()
        self.norms = nn.ModuleList()
        for stage in range(3):
            for block in range(blocks):
                o = width * 2**stage
                c = o // 2 if stage and not block else o
                step = 2 if stage and not block else 1
                self.first.append(nn.Conv2d(c, o, 3, step, 1, bias=False))
                self.second.append(nn.Conv2d(o, o, 3, 1, 1, bias=False))
                self.norms.extend([nn.BatchNorm2d(o), nn.BatchNorm2d(o)])
        self.fc = nn.Linear(width * 4, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        for i, (one, two) in enumerate(zip(self.first, self.second, strict=True)):
            y = F.relu(self.norms[2 * i](one(x)), inplace=True)
            y = self.norms[2 * i + 1](two(y))
            if one.stride[0] > 1:
                more = y.size(1) - x.size(1)
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more // 2, more - more // 2))
            y += x
            x = F.relu_(y)
        return self.fc(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class UNet(nn.Module):
    """Valid convolutions, transposed convolution, crop and concat."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(True), nn.Conv2d(5, 5, 3), nn.ReLU(True)
        )
        self.down2 = nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU(True))
        self.up = nn.ConvTranspose2d(8, 5, 2, 2)
        self.last = nn.Sequential(nn.Conv2d(10, 6, 3), nn.ReLU(True), nn.Conv2d(6, 4, 1))

    def forward(self, x):
        a = self.down1(x)
        b = self.up(self.down2(F.max_pool2d(a, 2)))
        dy, dx = (a.size(2) - b.size(2)) // 2, (a.size(3) - b.size(3)) // 2
        return self.last(torch.cat([a[:, :, dy : dy + b.size(2), dx : dx + b.size(3)], b], 1))


class Fcn(nn.Module):
    """Dilation, groups, a scoring layer shared by two scales, bilinear upsampling."""

    def __init__(self):
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.two, self.norm2 = nn.Conv2d(8, 8, 3, 2, 2, dilation=2, groups=2), nn.BatchNorm2d(8)
        self.score = nn.Conv2d(8, 5, 1)
        self.up = nn.ConvTranspose2d(5, 5, 4, 2, 1, groups=5, bias=False)

    def forward(self, x):
        a = F.relu(self.norm1(self.one(x)))
        b = F.leaky_relu(self.norm2(self.two(a)), 0.1)
        s = self.score(a) + F.interpolate(self.score(b), scale_factor=2, mode="nearest")
        return F.interpolate(s + self.up(self.score(b)), size=x.shape[-2:], mode="bilinear")


class Detector(nn.Module):
    """RoI pooling on slices whose place and size depend on the data, with Python ints from it."""

    def __init__(self):
        super().__init__()
        self.body = stack(3, 6, 8)
        self.objectness, self.cls, self.box = nn.Conv2d(8, 1, 1), nn.Linear(32, 3), nn.Linear(32, 4)

    def forward(self, x, truth):
        f = F.max_pool2d(self.body(x), 2)
        scores = self.objectness(f)[:, 0]
        loss = F.softplus(-scores).mean()
        count = 0
        for i in range(x.size(0)):
            for place in scores[i].flatten().topk(3).indices.tolist():
                r, c = divmod(place, f.size(3))
                h, w = min(2 + place % 3, f.size(2) - r), min(3, f.size(3) - c)
                if scores[i, r, c].item() < -5:
                    continue
                roi = F.adaptive_max_pool2d(f[i : i + 1, :, r : r + h, c : c + w], 2).flatten(1)
                loss = loss + F.cross_entropy(self.cls(roi), truth[i : i + 1])
                loss = loss + 0.1 * F.smooth_l1_loss(self.box(roi), torch.zeros_like(self.box(roi)))
                count += 1
        return loss / max(count, 1)


class Captioner(nn.Module):
    """A CNN sets the state of an LSTM that predicts the next word; padding is ignored."""

    def __init__(self, words=11):
        super().__init__()
        self.body = stack(3, 6, 6)
        self.start = nn.Linear(6, 7)
        self.embed = nn.Embedding(words, 5, padding_idx=0)
        self.rnn = nn.LSTM(5, 7, num_layers=2, batch_first=True)
        self.word = nn.Linear(7, words)

    def forward(self, images, text):
        h = torch.tanh(self.start(self.body(images).mean((2, 3))))
        h = h.unsqueeze(0).repeat(2, 1, 1)
        y, _ = self.rnn(self.embed(text[:, :-1]), (h, torch.zeros_like(h)))
        return F.cross_entropy(self.word(y).transpose(1, 2), text[:, 1:], ignore_index=0)


class Generator(nn.Module):
    """From noise to an image that a discriminator judges: transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(6, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 5, 4, 2, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(True),
            nn.ConvTranspose2d(5, 3, 3, 2, 1, output_padding=1), nn.Tanh(),
        )  # fmt: skip
        self.judge = nn.Sequential(
            nn.Conv2d(3, 6, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.InstanceNorm2d(6),
            nn.Conv2d(6, 1, 4, 2, 1), nn.Flatten(),
        )  # fmt: skip

    def forward(self, noise):
        verdict = self.judge(self.up(noise))
        return F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))


class MobileNet(nn.Module):
    """Depthwise convolutions, ReLU6, hard swish, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.deep = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True),
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.SiLU(),
        )  # fmt: skip
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(x)
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.fc((x + self.project(y * gate)).flatten(2).mean(-1))


class Transformer(nn.Module):
    """A block of a vision transformer: the stranger."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 16, 12) * 0.1)
        self.block = nn.TransformerEncoderLayer(
            12, 3, 20, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.block(tokens).mean(1))


class Siamese(nn.Module):
    """Two inputs through one net, a module under two names, tied by addition."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2))
        self.proj = nn.Linear(20, 10)
        self.again = self.proj

    def forward(self, one, other):
        a, b = self.body(one).flatten(1), self.body(other).flatten(1)
        return self.proj(a) * torch.softmax(self.again(b), 1)


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 400)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@dataclass
class Net:
    """A net, its inputs, and what makes a number of its output."""

    build: Callable
    inputs: Callable
    loss: Callable = F.cross_entropy  # of (output, labels); the net's own if it has no labels
    labels: Callable | None = None

    def make(self, seed=0, dtype=torch.float64):
        torch.manual_seed(seed)
        model = self.build().to(dtype)
        inputs = [t.to(dtype) if t.is_floating_point() else t for t in self.inputs()]
        labels = None if self.labels is None else self.labels()
        return model, inputs, labels

    def value(self, model, inputs, labels):
        out = model(*inputs)
        return out if labels is None else self.loss(out, labels)


def images(*shape):
    return lambda: [torch.randn(shape)]


def classes(n=2, k=10):
    return lambda: torch.randint(0, k, (n,))


NETS = {
    "lenet": Net(Lenet, images(2, 1, 28, 28), labels=classes()),
    "alexnet": Net(AlexNet, images(2, 3, 31, 31), labels=classes()),
    "vgg": Net(Vgg, images(2, 3, 21, 17), labels=classes()),
    "googlenet": Net(GoogLeNet, images(2, 3, 30, 33), labels=classes()),
    "resnet": Net(Residual, images(3, 3, 16, 12), labels=classes(3)),
    "unet": Net(UNet, images(2, 3, 18, 22), labels=lambda: torch.randint(0, 4, (2, 8, 12))),
    "fcn": Net(Fcn, images(2, 3, 16, 20), labels=lambda: torch.randint(0, 5, (2, 16, 20))),
    "detector": Net(Detector, lambda: [torch.randn(2, 3, 14, 18), torch.tensor([2, 0])]),
    "captioner": Net(
        Captioner,
        lambda: [torch.randn(2, 3, 9, 8), torch.tensor([[1, 4, 7, 2], [1, 9, 2, 0]])],
    ),
    "gan": Net(Generator, images(3, 6, 1, 1)),
    "mobilenet": Net(MobileNet, images(3, 3, 14, 10), labels=classes(3)),
    "transformer": Net(Transformer, images(2, 3, 16, 16), labels=classes()),
    "siamese": Net(
        Siamese, lambda: [torch.randn(2, 3, 7, 6), torch.randn(2, 3, 7, 6)], labels=classes()
    ),
}
