"""The training report: `write_report` makes one page of a run folder; `Evidence` feeds it."""

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.page import write_report

__all__ = ["Evidence", "write_report"]
