"""Servers to fetch weights from."""

from mirrors import mirror  # noqa: F401 (a fixture)
