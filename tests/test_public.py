"""`import hubel`: its names are what they say, whatever else has been imported."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import hubel


def test_every_public_name_is_there_and_explained():
    for name in hubel.__all__:
        assert inspect.getdoc(getattr(hubel, name)), name
    assert set(hubel.__all__) <= set(dir(hubel))
    assert hubel.__version__


def test_no_room_takes_a_verbs_name():
    """Python binds an imported subpackage onto its package: `hubel.train` must stay the verb."""
    for module in pkgutil.walk_packages(hubel.__path__, "hubel."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    rooms = {module.name for module in pkgutil.iter_modules(hubel.__path__)}
    assert not rooms & set(hubel.__all__)
    for name in ("train", "resume", "load_data", "load_run", "build", "tune_lr"):
        assert inspect.isfunction(getattr(hubel, name)), name
        assert inspect.isfunction(getattr(hubel, name)), f"{name}, the second time"


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        hubel.trian  # noqa: B018


def test_importing_hubel_does_not_import_torch():
    code = "import sys, hubel; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
