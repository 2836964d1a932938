"""What tests of whole trainings share."""

import pytest


@pytest.fixture(scope="module")
def short_reports():
    """Drawing a report takes longer than small trainings; tests/runs/report/ looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hubel.runs.report.page.write_report",
            lambda folder: (folder / "report.html").write_text("-"),
        )
        yield


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder that is empty, for this test alone."""
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
