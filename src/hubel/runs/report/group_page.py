"""`write_group_report`: several trainings on one page, in a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter

from hubel.runs.files import write_text
from hubel.runs.group import Group
from hubel.runs.headline import HEADLINES, headline
from hubel.runs.report.figures import GOOD, MUTED, TRAIN, _panel, _svg
from hubel.runs.report.folder import PARTS
from hubel.runs.report.origin import METRICS
from hubel.runs.report.page import fill_in
from hubel.runs.report.words import number, percent

Scores = dict[str, Any]


def write_group_report(group: Group) -> Path:
    """Write `report.html` into a group's folder, from its group.json; return its path.

    Raises `RunError` where the group is not finished or its folder cannot be written.
    """
    path = group.folder / "report.html"
    write_text(path, fill_in("group.html.j2", it=_contents(group)))
    return path


def _contents(group: Group) -> dict[str, Any]:
    results = group.results()
    together = _together(results["ensemble"], results["part"])
    members: dict[str, Scores] = results["members"]
    intervals: dict[str, Scores] = results["intervals"]
    key = headline(intervals)
    return {
        "name": group.folder.resolve().name,
        "kind": group.kind,
        "model": group.model,
        "source": group.source["name"],
        "part": "held-out" if group.kind == "folds" else PARTS[results["part"]],
        "count": len(members),
        "measured": HEADLINES[key],
        "masks": key == "miou",
        "score": intervals[key],
        "shared": {name: scores.get(key) for name, scores in together.items()},
        "heads": [label for key, (label, _) in METRICS.items() if key in intervals],
        "rows": [(name, _row(scores, intervals)) for name, scores in members.items()],
        "sums": [*_sums(intervals), *((n, _row(s, intervals)) for n, s in together.items())],
        "picture": _picture(members, intervals[key], together, key),
        "seconds": results["seconds"],
    }


def _together(ensemble: dict[str, Scores], part: str) -> dict[str, Scores]:
    """The ensemble's scores on what the members were compared on, and what else there is."""
    found = {}
    if "out-of-fold" in ensemble:
        found["all held-out images"] = ensemble["out-of-fold"]
        if "test" in ensemble:
            found["ensemble, test part"] = ensemble["test"]
    elif part in ensemble:
        found["ensemble"] = ensemble[part]
    return found


def _row(scores: Scores, known: dict[str, Scores]) -> list[str]:
    return [form(scores.get(key)) for key, (_, form) in METRICS.items() if key in known]


def _sums(intervals: dict[str, Scores]) -> list[tuple[str, list[str]]]:
    """Mean, half the 95 % interval and standard deviation of every score."""
    half = {name: (number(it["high"]) - number(it["low"])) / 2 for name, it in intervals.items()}
    return [
        ("mean", _row({name: it["mean"] for name, it in intervals.items()}, intervals)),
        ("± 95 %", _row(half, intervals)),
        ("deviation", _row({name: it["std"] for name, it in intervals.items()}, intervals)),
    ]


def _picture(
    members: dict[str, Scores], mean_score: Scores, together: dict[str, Scores], key: str
) -> Markup:
    """The score: a dot per member, the mean and its interval as a band, a ring per ensemble."""
    names = [*members, *together]
    values = [100 * number(scores.get(key)) for scores in (*members.values(), *together.values())]
    figure, axes = _panel(0.9 + 0.26 * len(names))
    low, mean, high = (100 * number(mean_score[part]) for part in ("low", "mean", "high"))
    if high >= low:
        axes.axvspan(low, high, color=TRAIN, alpha=0.14, linewidth=0)
    axes.axvline(mean, color=TRAIN, linewidth=1.2)
    alone, places = len(members), list(range(len(names)))
    axes.plot(values[:alone], places[:alone], "o", color=TRAIN, markersize=7)
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 2, "markersize": 9}
    axes.plot(values[alone:], places[alone:], "o", color=GOOD, **ring)
    axes.set_yticks(places, labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=MUTED, alpha=0.25, linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel(HEADLINES[key])
    told = ", ".join(f"{n} {percent(v / 100)}" for n, v in zip(names, values, strict=True))
    measured = HEADLINES[key][:1].upper() + HEADLINES[key][1:]
    return _svg(figure, "members", f"{measured} of every member: {told}")
