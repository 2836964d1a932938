"""Which tests of kernels run by default: all on this processor, and each on some of the others."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TURNS = 3  # of the others, one in so many


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rest only in the slow suite."""
    cases: dict[str, dict[str, int]] = defaultdict(dict)  # by function: its cases, numbered
    machines: dict[str, dict[str, int]] = defaultdict(dict)
    for item in items:
        call = getattr(item, "callspec", None)
        if HERE not in item.path.parents or call is None or "machine" not in call.params:
            continue
        name = item.nodeid.partition("[")[0]
        machine = repr(call.params["machine"])
        case = repr(sorted((k, repr(v)) for k, v in call.params.items() if k != "machine"))
        number = cases[name].setdefault(case, len(cases[name]))
        turn = machines[name].setdefault(machine, len(machines[name]))
        if turn and (number + turn) % TURNS:
            item.add_marker(pytest.mark.slow)
