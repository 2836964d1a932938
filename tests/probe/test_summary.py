"""The summary of a model: its numbers by hand, its three faces."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from hubel.probe.summary import memory, summarise


class Tied(nn.Module):
    """Two convolutions of one kernel, one of them run twice; a norm; a frozen end."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.second = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2 * 5 * 7, 3).requires_grad_(False)

    def forward(self, x):
        return self.fc(self.norm(self.second(self.first(self.first(x)))).flatten(1))


def tied(**words):
    return summarise(Tied(), torch.ones(4, 2, 5, 7), **{"times": False, **words})


def test_shared_weights_and_repeated_layers_by_hand():
    found = tied()
    rows = {row.layer: row for row in found.layers}
    macs = 4 * 35 * 2 * 2 * 9
    assert (rows["first"].macs, rows["second"].macs, rows["fc"].macs) == (2 * macs, macs, 4 * 210)
    assert found.macs == 3 * macs + 4 * 210
    assert found.parameters == 36 + 4 + 213
    assert found.trainable == 40
    assert found.weights == 4 * (36 + 4 + 213) + 4 * (2 + 2) + 8  # statistics, and an int64 count
    assert found.costs.bytes == 4 * 4 * (4 * 70 + 3)
    assert found.tied == (("second.weight", "first.weight"),)
    assert [str(rows[layer].field) for layer in ("first", "second", "fc")] == ["5x5", "7x7", "all"]


def test_the_text_is_a_table_with_its_sums():
    text = str(tied(name="knot"))
    title, head, *rows, totals, once, _, _ = text.split("\n")
    assert title == "knot, 4 images of 2x5x7"
    assert head.split() == ["layer", "kind", "output", "parameters", "MACs", "memory", "field"]
    assert [line.split()[0] for line in rows] == ["first", "second", "norm", "fc"]
    assert re.match(r"first +Conv2d x2 +2x5x7 +36 +10,080 +2.2 KiB +5x5$", rows[0])
    assert (
        len({line.rindex(x) + len(x) for line, x in zip(rows, ["5x5", "7x7"], strict=False)}) == 1
    )
    assert totals == (
        "253 parameters (40 trainable), weights 1.0 KiB, 15,960 multiply-adds, outputs 4.4 KiB"
    )
    assert once == "fc holds 84 % of the parameters; first does 63 % of the multiply-adds"
    assert "first ran 2 times" in text
    assert "second.weight is first.weight" in text


def test_times_get_a_column_of_bars():
    found = tied(times=True)
    assert found.columns[-1] == "time"
    assert found.milliseconds == pytest.approx(found.costs.milliseconds / 4)
    shares = [float(row[-1].split()[0]) for row in found.rows()]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    bars = [row[-1].split()[-1] for row in found.rows()]
    assert bars[shares.index(max(shares))] == "█" * 8
    assert "ms per image" in str(found)


class Table(HTMLParser):
    """Rows of a table as a browser would see them; every tag must be closed in its turn."""

    def __init__(self):
        super().__init__()
        self.rows, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_notebook_shows_the_same_table():
    found = tied(name="<b>", times=True)
    table = Table()
    table.feed(found._repr_html_())
    assert not table.open
    assert table.rows == [list(found.columns), *found.rows()]
    assert "&lt;b&gt;" in found._repr_html_()


def test_a_machine_gets_every_number_and_no_nan():
    found = json.loads(json.dumps(tied().to_json(), allow_nan=False))
    assert found["input"] == [4, 2, 5, 7]
    assert found["milliseconds_per_image"] is None
    first, *_, last = found["layers"]
    assert (first["layer"], first["uses"]) == ("first", 2)
    assert (first["field"], first["step"]) == ([5, 5], [1, 1])
    assert first["milliseconds"] is None
    assert last["field"] == "all"
    assert sum(row["macs"] for row in found["layers"]) == found["macs"]
    assert tied(times=True).to_json()["milliseconds_per_image"] > 0


def test_a_layer_that_never_ran_and_one_with_an_unknown_field():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare, self.used = nn.Linear(2, 2), nn.ReLU()

        def forward(self, x):
            return self.used(torch.fft.fft2(x).abs())

    found = summarise(Odd(), torch.ones(1, 1, 4, 4), times=False)
    cells = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows()}
    assert cells["spare"]["output"] == "never ran"
    assert cells["used"]["field"] == "?"
    assert found.to_json()["layers"][0]["field"] is None
    assert len(found.notes) == 2


def test_without_images_of_places():
    found = summarise(nn.Linear(6, 2), torch.ones(3, 6), times=False)
    assert found.title == "Linear, 3 images of 6"
    assert found.macs == 36
    assert not found.notes


def test_folding():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten())
    (first, _) = summarise(net, torch.ones(1, 1, 5, 5), times=False, depth=1).layers
    assert (first.layer, first.kind, first.parameters) == ("0", "Sequential", 20)


def test_units_of_memory():
    sizes = {0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 2**20: "1.0 MiB", 3 * 2**30: "3,072.0 MiB"}
    assert {size: memory(size) for size in sizes} == sizes


def test_it_is_nan_where_nothing_was_timed():
    assert math.isnan(tied().milliseconds)
