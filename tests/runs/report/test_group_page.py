"""The page of a group: every member and what they score together, whatever the numbers are."""

from html.parser import HTMLParser

import pytest

from hubel.errors import RunError
from hubel.runs.group import Group, Member
from hubel.runs.report.group_page import write_group_report
from hubel.tasks.interval import intervals

SCORES = [{"accuracy": a, "loss": 1 - a} for a in (0.80, 0.84, 0.85)]


def group(folder, kind="seeds", ensemble=None, scores=SCORES):
    name = {"seeds": "seed", "folds": "fold"}[kind]
    members = tuple(Member(f"{name}-{n}", {}) for n in range(len(scores)))
    source = {"name": "cats & <dogs>", "origin": "here", "where": None}
    made = Group.create(folder, "g", kind, "lenet5", source, {}, members)
    for member in members:
        (made.folder / member.name).mkdir()
        (made.folder / member.name / "results.json").write_text("{}")
    made.finish(
        {
            "part": "test",
            "members": {m.name: s for m, s in zip(members, scores, strict=True)},
            "intervals": {name: it.to_json() for name, it in intervals(scores).items()},
            "ensemble": ensemble or {"test": {"accuracy": 0.9, "loss": 0.05}},
            "seconds": 75.0,
        }
    )
    return made


class Words(HTMLParser):
    """The page's text, its links and the tags left open."""

    def __init__(self, page):
        super().__init__()
        self.text, self.links, self.ids, self.open = "", [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if tag == "a" else []
        self.ids += [found["id"]] if "id" in found else []
        if tag not in ("meta", "path", "use"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_members_mean_and_ensemble_are_on_the_page(tmp_path):
    path = write_group_report(group(tmp_path))
    page = Words(path.read_text())
    text = page.text.replace("\u202f", " ")
    assert page.links == ["seed-0/report.html", "seed-1/report.html", "seed-2/report.html"]
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for words in ("cats & <dogs>", "83.0 %", "mean of 3 seeds", "Ensemble: 90.0 %", "1 min 15 s"):
        assert words in text, words
    # 80, 84, 85: mean 83, deviation sqrt(7) = 2.65, half 4.303 * 2.65 / sqrt(3) = 6.57
    assert "76.4 % to 89.6 %" in text
    assert "standard deviation 2.6 points" in text
    assert "http" not in path.read_text().replace("http://www.w3.org/", "")


def test_folds_tell_of_held_out_images(tmp_path):
    ensemble = {"out-of-fold": {"accuracy": 0.83, "loss": 0.1}, "test": {"accuracy": 0.88}}
    path = write_group_report(group(tmp_path, "folds", ensemble))
    text = Words(path.read_text()).text.replace("\u202f", " ")
    for words in ("of the held-out images", "mean of 3 folds", "All held-out images: 83.0 %",
                  "Ensemble, test part: 88.0 %", "take the interval as a rough one"):  # fmt: skip
        assert words in text, words


def test_a_loss_that_is_no_number_is_a_dash(tmp_path):
    scores = [{"accuracy": 0.5, "loss": float("nan")}, {"accuracy": 0.6, "loss": 1.0}]
    assert "–" in write_group_report(group(tmp_path, scores=scores)).read_text()


def test_an_unfinished_group_has_no_page(tmp_path):
    source = {"name": "x", "origin": "here", "where": None}
    made = Group.create(tmp_path, "h", "seeds", "mlp", source, {}, (Member("seed-0", {}),))
    with pytest.raises(RunError, match="is not finished"):
        write_group_report(made)


def test_masks_are_compared_by_mean_iou(tmp_path):
    scores = [{"miou": m, "pixel_accuracy": 0.9, "loss": 1 - m} for m in (0.50, 0.54, 0.55)]
    ensemble = {"test": {"miou": 0.6, "pixel_accuracy": 0.92}}
    page = write_group_report(group(tmp_path, ensemble=ensemble, scores=scores)).read_text()
    text = Words(page).text.replace("\u202f", " ")
    for words in ("53.0 %", "mean IoU on the test images, in the mean of 3 seeds",
                  "Ensemble: 60.0 %", "pixels right"):  # fmt: skip
        assert words in text, words
    assert "named right, in the mean" not in text
    assert 'aria-label="Mean IoU of every member: seed-0 50.0' in page
