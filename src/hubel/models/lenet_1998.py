"""LeNet-5 as it was printed.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition",
section II.B. What later copies leave out is all here:

  C1  6 maps, 5x5                      156 weights
  S2  each map: sum of 2x2, times one weight, plus one bias         12
  C3  16 maps, 5x5; each sees 3, 4 or all 6 maps of S2 (table I)    1,516
  S4  as S2, 16 maps                                                32
  C5  120 units, each sees all of S4                                48,120
  F6  84 units                                                      10,164
  out per class the squared distance of F6 to a fixed code          none that learns

60,000 trainable weights, 340,908 connections with 10 classes. Every layer but the last ends in
1.7159 tanh(2 a / 3). The codes of ten classes are pictures of the digits, 12 rows of 7 pixels of
-1 and +1, so that alike digits have alike codes; other numbers of classes get fixed random codes.

The net answers with minus the distances as logits, and with "garbage", the constant -j that is the
logit of "none of these": cross entropy over both (`tasks/classify.py`) is the paper's equation 9.
The paper gives no value for j; here it is 1. A side below 32 pixels is brought to the paper's
border by repeating the edge.

One thing is not as printed. The paper says that weights are drawn uniformly from +-2.4 / F, F the
fan-in; here it is +-2.4 / root F (S2 and S4, whose four inputs are alike, keep F). As printed, the
signal dies out on its way and the net does not learn by the paper's own method: the curvature is so
small that most weights get the highest learning rate there is, 0.025, and none less than 1.9e-4,
where the paper reports 7e-5 to 0.016. With the root, 98 % of the rates lie between 1e-4 and 0.015.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hubel.models.geometry import map_size

PAPER_SIDE = 32
GARBAGE = 1.0  # j
CODE = 84  # 7 x 12

# Which maps of S2 each map of C3 sees: the columns of table I.
TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
LINKS = sum(map(len, TABLE))  # 60

# The paper's figure 3 shows its digits; these are drawn after its manner, # is +1.
DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  #######  ##...##  #######  ..####.  #######  .#####.  .####..
.##.##.  ..###..  ##...##  .....##  ##...##  ##.....  .##....  ##...##  ##...##  ##..##.
##...##  .####..  .....##  ....##.  ##...##  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...##..  .....##  ...##..  ##...##  ######.  ##.....  ....##.  .##.##.  ##...##
##...##  ...##..  ....##.  ..####.  ##...##  .....##  ##.###.  ....##.  ..###..  .##..##
##...##  ...##..  ...##..  .....##  #######  .....##  ###..##  ...##..  .##.##.  ..#####
##...##  ...##..  ..##...  .....##  .....##  .....##  ##...##  ...##..  ##...##  .....##
##...##  ...##..  .##....  .....##  .....##  ##...##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  .....##  .##.##.  .##..##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  .....##  ..###..  ..####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def codes(classes: int) -> Tensor:
    """float (classes, 84) of -1 and +1: the digits where there are ten, else fixed at random."""
    if classes != 10:
        chance = torch.Generator().manual_seed(0)
        return torch.randint(0, 2, (classes, CODE), generator=chance).float() * 2 - 1
    rows = [line.split() for line in DIGITS.strip().splitlines()]
    pictures = ["".join(row[digit] for row in rows) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in p] for p in pictures])


class Squash(nn.Module):
    """1.7159 tanh(2 a / 3): about 1 at 1 and -1 at -1, where it bends most."""

    def forward(self, a: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * a)


class Subsampling(nn.Module):
    """(N, C, H, W) -> (N, C, H / 2, W / 2): each 2x2 window's sum, times a weight, plus a bias."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        total = F.avg_pool2d(x, 2, divisor_override=1)
        return total * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return str(len(self.weight))


class LinkedConv(nn.Module):
    """C3: (N, 6, H, W) -> (N, 16, H - 4, W - 4), each map from its own few maps (`TABLE`).

    `weight` (60, 5, 5) has a kernel for every link, map by map; `bias` is (16). At work the kernels
    are laid out as an ordinary convolution's, zeros where there is no link: 1.6 times the products,
    and on a CPU a third to a fourteenth of the time that grouped convolutions take.
    """

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(LINKS, 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(TABLE)))
        links = iter(range(LINKS))
        rows = [next(links) if seen in maps else LINKS for maps in TABLE for seen in range(6)]
        self.register_buffer("rows", torch.tensor(rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(self.weight, (0, 0, 0, 0, 0, 1))  # row 60 is zero
        return F.conv2d(x, padded.index_select(0, self.rows).view(-1, 6, 5, 5), self.bias)

    def extra_repr(self) -> str:
        return f"6, {len(TABLE)}, kernel_size=(5, 5), links={LINKS}"


class Distances(nn.Module):
    """The output layer: (N, 84) -> (N, classes), squared Euclidean distances to fixed codes."""

    codes: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", codes(classes))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] - self.codes).square().sum(2)


class LeNet5(nn.Module):
    """float (N, C, H, W) -> {"logits": (N, classes), "garbage": (N, 1)}."""

    def __init__(self, *, classes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (2 if side < PAPER_SIDE else 0 for side in size)
        self.border = nn.ReplicationPad2d((columns, columns, rows, rows))
        self.c1, self.squash1 = nn.Conv2d(channels, 6, 5), Squash()
        self.s2, self.squash2 = Subsampling(6), Squash()
        self.c3, self.squash3 = LinkedConv(), Squash()
        self.s4, self.squash4 = Subsampling(16), Squash()
        chain = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=(rows, columns)),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
        )
        self.c5, self.squash5 = nn.Conv2d(16, 120, map_size("lenet5_1998", chain, size)), Squash()
        self.flatten = nn.Flatten()
        self.f6, self.squash6 = nn.Linear(120, CODE), Squash()
        self.output = Distances(classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float (N, C, H, W) -> minus the distances as "logits", and the "garbage" logit."""
        x = self.squash1(self.c1(self.border(images)))
        x = self.squash2(self.s2(x))
        x = self.squash3(self.c3(x))
        x = self.squash4(self.s4(x))
        x = self.flatten(self.squash5(self.c5(x)))
        distances = self.output(self.squash6(self.f6(x)))
        garbage = torch.full_like(distances[:, :1], -GARBAGE)
        return {"logits": -distances, "garbage": garbage}

    def initialise(self) -> None:
        """Uniform in +-2.4 / root of the fan-in (see above), biases too; S2, S4: +-2.4 / 4."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _draw(module.weight[0].numel(), *module.parameters())
            elif isinstance(module, Subsampling):
                _draw(4**2, *module.parameters())
        kernels = torch.split(self.c3.weight, [len(maps) for maps in TABLE])
        for maps, kernel, bias in zip(TABLE, kernels, self.c3.bias, strict=True):
            _draw(25 * len(maps), kernel, bias)


@torch.no_grad()
def _draw(fan_in: int, *parameters: Tensor) -> None:
    for parameter in parameters:
        parameter.uniform_(-2.4 / math.sqrt(fan_in), 2.4 / math.sqrt(fan_in))


def lenet5_1998(*, classes: int, channels: int, size: tuple[int, int]) -> LeNet5:
    """LeNet-5 as printed. Raises `ModelError` for images too small for its pools."""
    return LeNet5(classes=classes, channels=channels, size=size)
