"""Findings survive JSON, and their lists stay short."""

import json

from hubel.data.findings import Finding, Findings, say


def made() -> Findings:
    return Findings(
        findings=[
            Finding.listing(
                "warning", "leak", "1 test image also stands in train", [3, 9], ["a = b"]
            ),
            Finding("note", "sizes", "images have 2 sizes"),
        ],
        full=True,
        images=10,
        broken=1,
        classes=["cat", "dog"],
        counts={"train": [4, 4], "test": [1, 1]},
        sizes={"height": [8, 9.5, 12], "width": [8, 8, 8], "grey": 9, "rgb": 0, "read": 9},
    )


def test_json_and_back() -> None:
    assert Findings.from_json(json.loads(json.dumps(made().to_json()))) == made()


def test_of_one_level() -> None:
    assert [finding.code for finding in made().of("note")] == ["sizes"]
    assert made().of("error") == []


def test_lists_are_cut_at_a_thousand() -> None:
    finding = Finding.listing("note", "copies", "many", range(5000), map(str, range(5000)))
    assert len(finding.rows) == len(finding.names) == 1000


def test_say() -> None:
    assert say(1, "image is", "images are") == "1 image is"
    assert say(1200, "image is", "images are") == "1,200 images are"
