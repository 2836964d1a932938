"""The training report: `page.write_report` makes one page of a run folder; `evidence` feeds it."""
