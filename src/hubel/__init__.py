"""hubel: convolutional neural networks you can see through.

    import hubel
    data = hubel.load_data("photos/")
    result = hubel.train("compact", data, epochs=20)
    run = hubel.load_run(result.folder)
    look = hubel.look(run.model, images, labels)  # every operator, its values, its gradients

Names are imported when they are first used, so that `hubel --help` does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.api import LoadedRun, Result, Tuned, load_data, train, tune_lr
    from hubel.data.record import ArraySource, Batch, Sample, Source
    from hubel.deploy.predictor import Prediction, Predictor
    from hubel.engine.backprop import rules
    from hubel.engine.check import check
    from hubel.engine.expression import expression
    from hubel.engine.look import Look, look
    from hubel.errors import HubelError
    from hubel.examine import summary
    from hubel.models.convolutionalize import convolutionalize
    from hubel.several import Several, cross_validate, resume, train_seeds
    from hubel.together import LoadedEnsemble, ensemble, load_run
    from hubel.weights.open import build

_HOMES = {
    "hubel.api": ("LoadedRun", "Result", "Tuned", "load_data", "train", "tune_lr"),
    "hubel.data.record": ("ArraySource", "Batch", "Sample", "Source"),
    "hubel.deploy.predictor": ("Prediction", "Predictor"),
    "hubel.engine.backprop": ("rules",),
    "hubel.engine.check": ("check",),
    "hubel.engine.expression": ("expression",),
    "hubel.engine.look": ("Look", "look"),
    "hubel.errors": ("HubelError",),
    "hubel.examine": ("summary",),
    "hubel.models.convolutionalize": ("convolutionalize",),
    "hubel.weights.open": ("build",),
    "hubel.several": ("Several", "cross_validate", "resume", "train_seeds"),
    "hubel.together": ("LoadedEnsemble", "ensemble", "load_run"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ArraySource",
    "Batch",
    "HubelError",
    "LoadedEnsemble",
    "LoadedRun",
    "Look",
    "Prediction",
    "Predictor",
    "Result",
    "Sample",
    "Several",
    "Source",
    "Tuned",
    "build",
    "check",
    "convolutionalize",
    "cross_validate",
    "ensemble",
    "expression",
    "load_data",
    "load_run",
    "look",
    "resume",
    "rules",
    "summary",
    "train",
    "train_seeds",
    "tune_lr",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hubel")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hubel' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
