"""`hubel train`, `resume` and `tune-lr`: the flags of a plan, and what is said while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RECIPE = "Default: the model's recipe."

Source = Annotated[
    str, typer.Argument(help="Folder, file or name of labelled images.", show_default=True)
]
Model = Annotated[
    str | None,
    typer.Option(
        help="A name ('hubel models') or file.py:function. Default: compact; to segment, "
        "unet_padded.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def _text(*names: str, help: str, panel: str | None = None) -> Any:
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=panel)


Epochs = Annotated[int | None, _text(help=f"Times through the training images. {RECIPE}")]
Batch = Annotated[int | None, _text(help=f"Images per step. {RECIPE}")]
Optimiser = Annotated[
    str | None, _text("--optimiser", help=f"sgd, adagrad, rmsprop, adam, adamw, sdlm. {RECIPE}")
]
Lr = Annotated[float | None, _text(help=f"Highest learning rate; see 'hubel tune-lr'. {RECIPE}")]
Momentum = Annotated[float | None, _text(help="Momentum, or Adam's beta1. Default: 0.9.")]
MomentumForm = Annotated[
    str | None, _text(help="velocity, average, nesterov or pytorch. Default: nesterov.")
]
Beta2 = Annotated[float | None, _text(help="Second moment of Adam and RMSProp. Default: 0.999.")]
Eps = Annotated[
    float | None, _text(help="Added to the root in Adam, Adagrad and RMSProp. Default: 1e-8.")
]
Mu = Annotated[float | None, _text(help="sdlm: added to the curvature. Default: 0.02.")]
WeightDecay = Annotated[float | None, _text(help=f"Strength of weight decay. {RECIPE}")]
Decay = Annotated[str | None, _text(help="l2 (in the gradient) or decoupled. Default: l2.")]
DecayAll = Annotated[bool | None, _text("--decay-all", help="Decay biases and norms too.")]
Schedule = Annotated[
    str | None,
    _text(help="constant, step, plateau, cosine, one-cycle or table. Default: one-cycle."),
]
Warmup = Annotated[float | None, _text(help="Share of the training in which the rate rises.")]
Milestones = Annotated[
    str | None, _text(help="step: shares at which the rate drops. Default: 0.5,0.75.")
]
Factor = Annotated[float | None, _text(help="step, plateau: a drop multiplies by. Default: 0.1.")]
Wait = Annotated[
    int | None, _text(help="plateau: epochs without a gain before a drop. Default: 5.")
]
Final = Annotated[float | None, _text(help="cosine, one-cycle: last rate / highest. Default: 0.")]
Rates = Annotated[
    str | None, _text(help="table: shares of --lr, for equal parts of the training: 1,0.4,0.1.")
]
Weights = Annotated[
    str | None,
    _text(help="Begin from trained weights: imagenet ('hubel weights list'), a file or a run."),
]
Freeze = Annotated[
    str | None, _text(help="body: train the head alone; or the last layer that stands still.")
]
HeadEpochs = Annotated[
    int | None,
    _text(help="First epochs, of the head alone. Default: 1 with --weights, but 0 to segment."),
]
BodyRate = Annotated[
    float | None,
    _text(help="The body's share of --lr. Default with --weights: 0.1, to segment 0.2; else 1."),
]
Task = Annotated[
    str | None,
    _text(help="classify or segment (a label for every pixel). Default: what the model is for."),
]
Body = Annotated[
    str | None, _text(help="segment: the classifier whose layers the net begins by (resnet18).")
]
Options = Annotated[str | None, _text(help="What the model takes besides: width=16,norm=false.")]
Loss = Annotated[
    str | None, _text(help="segment: cross-entropy, dice, focal, or several, joined by commas.")
]
Balance = Annotated[
    str | None,
    _text(help="segment: weigh rare classes more: none, balanced or inverse-log. Default: none."),
]
Objects = Annotated[
    str | None, _text(help="segment: the class whose connected pieces are objects (cell).")
]
Border = Annotated[
    float | None, _text(help="segment: weight of pixels between objects, as U-Net's 10.")
]
Windows = Annotated[int | None, _text(help="segment: windows of each image in an epoch.")]
Classes = Annotated[str | None, _text(help="segment: file with the classes' names and colours.")]
Ignore = Annotated[int | None, _text(help="segment: the index of pixels without a label.")]
Resize = Annotated[
    str | None, _text(help="progressive: small images first; mixed: any size. Default: none.")
]
Smoothing = Annotated[float | None, _text(help=f"Label smoothing, 0 to 1. {RECIPE}")]
Dropout = Annotated[float | None, _text(help="Share dropped, for models that have it.")]
Clip = Annotated[float | None, _text(help="Largest norm of the gradient. Default: no limit.")]
Accumulate = Annotated[int | None, _text(help="Micro-batches per step. Default: 1.")]
Ema = Annotated[float | None, _text(help="Average the weights with this decay, as 0.999.")]
Patience = Annotated[int | None, _text(help="Stop after so many epochs without a gain.")]
Augmentation = Annotated[
    str | None,
    _text(help="flip,vflip,shift=4,rotate=10,scale=0.1,elastic=2,erase=8,jitter=0.2,mixup=0.2, "
               "or none. "
               "Default: what suits the data."),
]  # fmt: skip
Size = Annotated[str | None, _text(help="Pixels the net is fed: 64, or 48x64 (height x width).")]
Fit = Annotated[
    str | None,
    _text(
        help="stretch, crop or pad to that size; same: keep the scale, and segment windows of "
        "that size. Default: stretch; to segment, same."
    ),
]
Val = Annotated[float | None, _text(help="Share set apart for validation. Default: 0.1.")]
Test = Annotated[float | None, _text(help="Share set apart for the test. Default: 0.1.")]
Seed = Annotated[int | None, _text(help="Same seed, same weights, bit for bit. Default: 0.")]
SplitSeed = Annotated[int | None, _text(help="Draws the parts. Default: the seed.")]
Fold = Annotated[str | None, _text(help="Test on one fold of several, as 1/5, in --test's place.")]
Seeds = Annotated[int | None, _text(help="Train so often, with seed, seed + 1, ..., on one split.")]
Folds = Annotated[
    int | None, _text(help="Cross-validation: train so often, each fold held out once.")
]
Device = Annotated[str | None, _text(help="auto, cpu, cuda, cuda:1. Default: auto.")]
Precision = Annotated[str | None, _text(help="auto (measured), fp32 or bf16. Default: auto.")]
Tune = Annotated[
    str | None, _text(help="on: measure how steps run fastest; off: plain. Default: on.")
]
Engine = Annotated[
    str | None,
    _text(
        help="auto, torch, native: compiled whole for this CPU, or explicit: by hubel's own "
        "formulas, without autograd. Default: auto, which measures torch and native."
    ),
]
Workers = Annotated[
    int | None, _text(help="Processes that decode large data. Default: one a core.")
]
CheckpointSeconds = Annotated[
    float | None, _text(help="Seconds between saved states. Default: 60.")
]
CheckpointSteps = Annotated[int | None, _text(help="Also save every so many steps.")]
MaxBroken = Annotated[
    float | None, _text(help="Stop if more than this share of the images is broken. Default: 0.05.")
]


def train(
    source: Source = "sample",
    model: Model = None,
    task: Task = None,
    body: Body = None,
    options: Options = None,
    weights: Weights = None,
    freeze: Freeze = None,
    head_epochs: HeadEpochs = None,
    body_rate: BodyRate = None,
    epochs: Epochs = None,
    batch: Batch = None,
    optimiser: Optimiser = None,
    lr: Lr = None,
    momentum: Momentum = None,
    momentum_form: MomentumForm = None,
    beta2: Beta2 = None,
    eps: Eps = None,
    mu: Mu = None,
    weight_decay: WeightDecay = None,
    decay: Decay = None,
    decay_all: DecayAll = None,
    schedule: Schedule = None,
    warmup: Warmup = None,
    milestones: Milestones = None,
    factor: Factor = None,
    wait: Wait = None,
    final: Final = None,
    rates: Rates = None,
    smoothing: Smoothing = None,
    loss: Loss = None,
    balance: Balance = None,
    objects: Objects = None,
    border: Border = None,
    windows: Windows = None,
    classes: Classes = None,
    ignore: Ignore = None,
    dropout: Dropout = None,
    clip: Clip = None,
    accumulate: Accumulate = None,
    ema: Ema = None,
    patience: Patience = None,
    augment: Augmentation = None,
    size: Size = None,
    fit: Fit = None,
    resize: Resize = None,
    val: Val = None,
    test: Test = None,
    seed: Seed = None,
    split_seed: SplitSeed = None,
    fold: Fold = None,
    seeds: Seeds = None,
    folds: Folds = None,
    device: Device = None,
    precision: Precision = None,
    tune: Tune = None,
    engine: Engine = None,
    workers: Workers = None,
    checkpoint_seconds: CheckpointSeconds = None,
    checkpoint_steps: CheckpointSteps = None,
    max_broken: MaxBroken = None,
    out: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    name: Annotated[str | None, _text(help="Name of the run. Default: data-model-number.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on labelled images, test, and report.

    \b
      hubel train                                  the sample that comes along
      hubel train photos/ --model resnet20 --epochs 20
      hubel train fashion-mnist --model lenet5 --seed 3
      hubel train photos/ --model efficientnet_lite0 --weights imagenet
      hubel train photos/ --seeds 5                mean, interval, ensemble
      hubel train photos/ --folds 5                cross-validation
      hubel train street/ --task segment           images/ and masks/: a label for every pixel
    """
    from hubel.cli.words import plan_words

    words = plan_words(locals())
    from hubel import several
    from hubel.show import Display

    with Display(quiet=quiet, machine=as_json) as display:
        result = several.train(
            model, source, seeds=seeds, folds=folds, out=out, name=name, tell=display, **words
        )
    display.result(result.to_json())


def resume(
    run: Annotated[str, typer.Argument(help="A run or group folder that is not finished.")],
    data: Annotated[str | None, _text(help="Where the images are now, if they moved.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a training that was stopped.

    It starts from its last checkpoint and ends in the same weights, bit for bit, as if it had
    never stopped.
    """
    from hubel import several
    from hubel.show import Display

    with Display(quiet=quiet, machine=as_json) as display:
        result = several.resume(run, data=data, tell=display)
    display.result(result.to_json())


def tune_lr(
    source: Source = "sample",
    model: Model = None,
    task: Task = None,
    batch: Batch = None,
    optimiser: Optimiser = None,
    momentum: Momentum = None,
    momentum_form: MomentumForm = None,
    weight_decay: WeightDecay = None,
    augment: Augmentation = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    steps: Annotated[int, typer.Option(help="Steps, from rate 1e-6 to 10.", min=10)] = 100,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("lr-range.png"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find a learning rate, with a picture.

    A copy is trained for a few steps while the rate grows; the loss is drawn against it.
    """
    from hubel.cli.words import plan_words

    words = plan_words(locals())
    from hubel import api
    from hubel.show import Display

    with Display(quiet=quiet, machine=as_json) as display:
        found = api.tune_lr(model, source, out=out, steps=steps, tell=display, **words)
    if as_json:
        record = {"suggested": found.suggested, "highest": found.highest, "picture": str(out)}
        print(json.dumps(record | {"rates": found.rates, "losses": found.losses}))
    else:
        print(f"the loss falls fastest at {found.suggested:g}; above {found.highest:g} it rises")
        print(f"picture: {found.picture}; train with: --lr {found.suggested:g}")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command()(train)
    app.command()(resume)
    app.command("tune-lr")(tune_lr)
