"""`Plan`: everything that decides one training, checked once at the door and frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hubel.data.augment import Augment
from hubel.errors import OptionError, unknown

OptimiserName = Literal["sgd", "adagrad", "rmsprop", "adam", "adamw", "sdlm"]
Momentum = Literal["velocity", "average", "nesterov", "pytorch"]
Decay = Literal["l2", "decoupled"]
ScheduleName = Literal["constant", "step", "plateau", "cosine", "one-cycle", "table"]
Resize = Literal["none", "progressive", "mixed"]
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "torch", "native", "explicit"]
Tune = Literal["on", "off"]
TaskName = Literal["classify", "segment"]
Term = Literal["cross-entropy", "dice", "focal"]
Balance = Literal["none", "balanced", "inverse-log"]
BODY = "body"  # what `freeze` calls all but the head


class Part(BaseModel):
    """Base of every config record: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Optimiser(Part):
    """How a gradient becomes a step. Formulas in `training/optimiser.py`."""

    name: OptimiserName = "sgd"
    lr: float = Field(0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    momentum_form: Momentum = "nesterov"
    beta2: float = Field(0.999, ge=0, lt=1, description="second moment of Adam, RMSProp")
    eps: float = Field(1e-8, gt=0)
    mu: float = Field(0.02, gt=0, description="sdlm: what is added to the curvature")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    decay: Decay = "l2"
    decay_all: bool = Field(False, description="decay biases and norm parameters too")


class Schedule(Part):
    """How the learning rate moves. `warmup` and `milestones` are shares of the whole training."""

    name: ScheduleName = "one-cycle"
    warmup: float | None = Field(None, ge=0, lt=1, description="None: 0.25 for one-cycle, else 0")
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = Field(0.1, gt=0, lt=1, description="step and plateau multiply by this")
    wait: int = Field(5, ge=1, description="plateau: epochs without a gain before it multiplies")
    final: float = Field(0.0, ge=0, description="cosine, one-cycle: last rate / highest rate")
    rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="table: shares of the highest rate, for equal parts of the training"
    )

    @model_validator(mode="after")
    def _a_table_has_rates(self) -> Schedule:
        if self.name == "table" and not self.rates:
            raise ValueError("the table schedule needs rates, as 1,0.4,0.1; given none")
        return self


class Masks(Part):
    """What only a training on masks (a label for every pixel) has to say."""

    classes: str | None = Field(None, description="file with the classes' names and colours")
    ignore: int | None = Field(None, ge=0, le=255, description="index of pixels without a label")
    terms: tuple[Term, ...] = Field(("cross-entropy",), min_length=1)
    balance: Balance = "none"
    weights: tuple[float, ...] | None = Field(None, description="per class; set by balance")
    windows: int | None = Field(None, ge=1, description="windows of each image, each epoch")
    objects: str | None = Field(None, description="class whose connected pieces are objects")
    border: float = Field(0.0, ge=0, allow_inf_nan=False, description="weight between objects")
    border_sigma: float = Field(5.0, gt=0, allow_inf_nan=False, description="its reach, pixels")

    @model_validator(mode="after")
    def _borders_are_between_objects(self) -> Masks:
        if self.border and self.objects is None:
            raise ValueError(
                "border weighs the pixels between objects: say which class they are of "
                "(--objects cell)"
            )
        if len(set(self.terms)) < len(self.terms):
            raise ValueError(f"a loss stands twice in {','.join(self.terms)}")
        return self


class Plan(Part):
    """One training, whole. Two equal plans on one machine give bit-equal weights."""

    source: str
    model: str
    task: TaskName = "classify"
    body: str | None = Field(None, description="classifier whose layers a segmenting net begins by")
    options: dict[str, bool | int | float | str] = Field({}, description="what the model takes")
    masks: Masks = Masks()
    size: tuple[int, int] | None = None
    fit: Literal["stretch", "crop", "pad", "same"] = "stretch"
    resize: Resize = "none"
    dropout: float | None = Field(None, ge=0, lt=1, description="None: the model's own")
    augment: Augment = Augment()
    weights: str | None = Field(None, description="trained weights to begin from")
    freeze: str | None = Field(None, description="body, or the last layer that stands still")
    head_epochs: int = Field(0, ge=0, description="first epochs, in which only the head learns")
    body_rate: float = Field(1.0, gt=0, le=1, description="the body's share of the learning rate")
    epochs: int = Field(10, ge=1)
    batch: int = Field(128, ge=1)
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    smoothing: float = Field(0.0, ge=0, lt=1)
    clip: float | None = Field(None, gt=0, description="largest global gradient norm")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' moving average")
    patience: int | None = Field(None, ge=1, description="epochs without a gain, then stop")
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(0, ge=0)
    split_seed: int | None = Field(None, ge=0, description="what the split is drawn by; None: seed")
    fold: tuple[int, int] | None = Field(None, description="(i, k): test on fold i of k, from 1")
    device: str = "auto"
    precision: Precision = "auto"
    tune: Tune = "on"
    engine: Engine = "auto"
    workers: int | None = Field(None, ge=0, description="None: chosen from the cores")
    checkpoint_seconds: float = Field(60.0, ge=0)
    checkpoint_steps: int | None = Field(None, ge=1)
    max_broken: float = Field(0.05, ge=0, le=1, description="share of broken images that stops")

    @field_validator("weights", mode="before")
    @classmethod
    def _a_path_is_a_word_too(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @model_validator(mode="after")
    def _options_have_no_flag_of_their_own(self) -> Plan:
        for name in ("dropout", "body"):
            if name in self.options:
                raise ValueError(f"{name} is given by itself, not among the options")
        return self

    @model_validator(mode="after")
    def _parts_leave_training_data(self) -> Plan:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test must stay below 1, given {self.val} + {self.test}")
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate ({self.accumulate}) cannot exceed batch ({self.batch})")
        return self

    @model_validator(mode="after")
    def _what_is_frozen_can_thaw(self) -> Plan:
        if self.head_epochs >= self.epochs and self.freeze is None:
            raise ValueError(
                f"head_epochs ({self.head_epochs}) must stay below epochs ({self.epochs}); "
                "to train the head alone, freeze the body"
            )
        if self.freeze == BODY and (self.head_epochs or self.body_rate != 1):
            raise ValueError("a frozen body takes no head_epochs and no body_rate")
        return self

    @model_validator(mode="after")
    def _masks_keep_their_size(self) -> Plan:
        if self.task == "segment" and self.resize != "none":
            raise ValueError(
                f"resize '{self.resize}' would change images and not their masks: with task "
                "segment only 'none' is allowed (augment 'scale' shows things larger and smaller)"
            )
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_them(self) -> Plan:
        number, folds = self.fold or (1, 2)
        if not (folds >= 2 and 1 <= number <= folds):
            raise ValueError(f"fold must be one of two or more, as 1/5, given {number}/{folds}")
        return self

    def piece(self, world: int) -> int:
        """Images that go through the net at once, in each of `world` processes."""
        return math.ceil(self.batch / world / self.accumulate)


def make_plan(**words: Any) -> Plan:
    """A `Plan` from loose words. Raises `OptionError`, one line, naming the nearest known word."""
    try:
        return Plan(**words)
    except ValidationError as error:
        raise OptionError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _fields(first["loc"][:-1])
        return unknown("option", path, fields)
    given = "" if first["type"] == "value_error" else f", given {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message}{given}" if path else f"{message}{given}"


def _fields(path: tuple[int | str, ...]) -> list[str]:
    record: type[BaseModel] = Plan
    for step in path:
        annotation = record.model_fields[str(step)].annotation
        options = [annotation, *get_args(annotation)]
        record = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    prefix = "".join(f"{step}." for step in path)
    return [prefix + name for name in record.model_fields]
