"""The one table of model names: a row a net. A new model is one file and one row here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One named model.

    Attributes:
        make: "module:function" below `hubel.models`, imported when the model is asked for.
        year, paper: where it comes from.
        summary: one line.
        smallest: the smallest image it takes, (H, W).
        usual: the images it was made for, (C, H, W).
        classes: how many classes it was made for.
        task: what it answers: "classify", logits (N, classes); "segment", (N, classes, H, W).
    """

    name: str
    make: str
    year: int
    paper: str
    summary: str
    smallest: tuple[int, int]
    usual: tuple[int, int, int]
    classes: int = 10
    task: str = "classify"


def table(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by name. Raises `ValueError` for a name that stands twice."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise ValueError(f"two models are called {entry.name!r}")
        found[entry.name] = entry
    return found


def _imagenet(
    name: str,
    file: str,
    year: int,
    paper: str,
    summary: str,
    smallest: int = 1,
    side: int = 224,
) -> Entry:
    """A net for colour photos of 1000 classes; square images."""
    usual = (3, side, side)
    return Entry(name, f"{file}:{name}", year, paper, summary, (smallest,) * 2, usual, 1000)


def _segment(
    name: str,
    file: str,
    year: int,
    paper: str,
    summary: str,
    usual: tuple[int, int, int],
    classes: int,
) -> Entry:
    """A net that answers for every pixel of images of any size."""
    make = f"{file}:{name}"
    return Entry(name, make, year, paper, summary, (1, 1), usual, classes, "segment")


LENET = "LeCun et al., Gradient-based learning applied to document recognition"
ALEXNET = "Krizhevsky et al., ImageNet classification with deep convolutional neural networks"
TRICK = "Krizhevsky, One weird trick for parallelizing convolutional neural networks"
VGG = "Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition"
GOOGLENET = "Szegedy et al., Going deeper with convolutions"
RESNET = "He et al., Deep residual learning for image recognition"
EFFICIENT = "Tan and Le, EfficientNet: rethinking model scaling for convolutional neural networks"
MOBILE = "Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks"
FULLY = "Long et al., Fully convolutional networks for semantic segmentation"
UNET = "Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation"
DECONV = "Noh et al., Learning deconvolution network for semantic segmentation"
DEEPLAB = (
    "Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs"
)
MEMBRANES = (
    "Ciresan et al., Deep neural networks segment neuronal membranes in electron microscopy images"
)
SCALES = "Farabet et al., Learning hierarchical features for scene labeling"
ROUNDS = "Pinheiro and Collobert, Recurrent convolutional neural networks for scene labeling"

SMALL_RESIDUAL = {
    "resnet": "{depth} layers with parameter-free shortcuts, the paper's form for CIFAR-10",
    "plain": "the same {depth} layers without the shortcuts: the twin that depth makes worse",
}
LARGE_RESIDUAL = {
    18: "blocks of two 3x3 convolutions; shortcut A, B or C",
    34: "blocks of two 3x3 convolutions; shortcut A, B or C",
    50: "bottlenecks; shortcut A, B or C, stride on the 3x3 or on the first 1x1",
    101: "bottlenecks, 23 in the third stage",
    152: "bottlenecks, 8 and 36 in the middle stages",
}
SKIPS = {32: "32 times at once", 16: "with those of pool4", 8: "with those of pool4 and pool3"}

MODELS = table(
    [
        _imagenet("alexnet", "alexnet", 2014, TRICK, "AlexNet as torchvision has it", 63),
        _imagenet(
            "alexnet_2012", "alexnet", 2012, ALEXNET,
            "AlexNet as printed: two groups, response normalisation", 63, 227,
        ),
        Entry(
            "compact", "compact:compact", 2026, "hubel's own",
            "five 3x3 convolutions with batch norm: much accuracy for little CPU time",
            smallest=(4, 4), usual=(1, 28, 28),
        ),
        _segment(
            "deconvnet", "deconvnet", 2015, DECONV,
            "VGG-16 and its mirror image: unpooling by switches, transposed convolutions",
            (3, 224, 224), 21,
        ),
        _segment(
            "deeplab_v1", "deeplab", 2015, DEEPLAB,
            "VGG-16 with holes: scores at every eighth pixel from a large field of view",
            (3, 321, 321), 21,
        ),
        *(
            _imagenet(
                f"efficientnet_lite{n}", "efficientnet_lite", 2020, EFFICIENT,
                f"EfficientNet-Lite{n}: accurate for its few multiply-adds", 1, side,
            )
            for n, side in enumerate((224, 240, 260))
        ),
        *(
            _segment(
                f"fcn{stride}s", "fcn", 2015, FULLY,
                f"VGG-16 made fully convolutional: its scores enlarged {summary}",
                (3, 500, 500), 21,
            )
            for stride, summary in SKIPS.items()
        ),
        _imagenet(
            "googlenet", "googlenet", 2014, GOOGLENET,
            "nine inception blocks with batch norm, as torchvision has them; two heads to train by",
            15,
        ),
        _imagenet(
            "googlenet_2014", "googlenet", 2014, GOOGLENET,
            "GoogLeNet as printed: 5x5 branches, response normalisation, two heads to train by",
            79,
        ),
        Entry(
            "lenet5", "lenet:lenet5", 1998, LENET,
            "two 5x5 convolutions and three fully connected layers, in today's form",
            smallest=(12, 12), usual=(1, 28, 28),
        ),
        Entry(
            "lenet5_1998", "lenet_1998:lenet5_1998", 1998, LENET,
            "LeNet-5 as printed: trained subsampling, linked maps, distances to drawn digits",
            smallest=(12, 12), usual=(1, 32, 32),
        ),
        Entry(
            "mlp", "mlp:mlp", 1986,
            "Rumelhart et al., Learning representations by back-propagating errors",
            "two hidden layers of 256 and 128 units", smallest=(1, 1), usual=(1, 28, 28),
        ),
        _imagenet(
            "mobilenet_v2", "mobilenet", 2018, MOBILE,
            "inverted residuals of depthwise convolutions, for phones",
        ),
        _segment(
            "multiscale", "multiscale", 2013, SCALES,
            "the same 7x7 convolutions on three scales of the image, joined", (3, 240, 320), 8,
        ),
        Entry(
            "net32", "lenet:net32", 1998, "LeNet-5's layers, as the lectures take them to CIFAR-10",
            "LeNet-5 for 32x32 colour images", smallest=(16, 16), usual=(3, 32, 32),
        ),
        _segment(
            "recurrent", "recurrent", 2014, ROUNDS,
            "a small net fed with its own answer, each round at a coarser scale", (3, 240, 320), 8,
        ),
        *(
            _imagenet(
                f"plain{depth}", "resnet", 2015, RESNET,
                f"resnet{depth} without its shortcuts: the twin that depth makes worse",
            )
            for depth in (18, 34)
        ),
        *(
            _imagenet(f"resnet{depth}", "resnet", 2015, RESNET, f"{depth} layers: {summary}")
            for depth, summary in LARGE_RESIDUAL.items()
        ),
        *(
            Entry(
                f"{kind}{depth}", f"resnet:{kind}{depth}", 2015, RESNET,
                summary.format(depth=depth), smallest=(1, 1), usual=(3, 32, 32),
            )
            for depth in (20, 32, 44, 56, 110)
            for kind, summary in SMALL_RESIDUAL.items()
        ),
        _segment(
            "sliding_window", "sliding_window", 2012, MEMBRANES,
            "a classifier of windows, moved over every pixel", (1, 128, 128), 2,
        ),
        Entry(
            "softmax", "softmax:softmax", 1990,
            "Bridle, Probabilistic interpretation of feedforward classification networks",
            "one fully connected layer: a template per class",
            smallest=(1, 1), usual=(1, 28, 28),
        ),
        _segment(
            "unet", "unet", 2015, UNET,
            "the U-Net as printed: convolutions without padding, mirrored surroundings",
            (1, 388, 388), 2,
        ),
        _segment(
            "unet_padded", "unet", 2015, UNET,
            "the U-Net in common use: padded, batch norm, any classifier as its way down",
            (3, 256, 256), 2,
        ),
        *(
            _imagenet(
                f"vgg{depth}{norm}", "vgg", 2014, VGG,
                f"{depth - 3} 3x3 convolutions" + (" with batch norm" if norm else ""), 32,
            )
            for depth in (11, 13, 16, 19)
            for norm in ("", "_bn")
        ),
    ]
)  # fmt: skip
