"""The training report: `write_report` turns a run folder into one page, `Evidence` is what it shows."""

from hubel.runs.report.evidence import Evidence
from hubel.runs.report.page import write_report

__all__ = ["Evidence", "write_report"]
