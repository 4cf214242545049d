"""Rows as the formats give them, before anything is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpe_jobs.runtime import BadData


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row."""

    field: str
    """Column of the source, or `row` for the whole of it."""
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source."""

    number: int
    """From 0, over all files of the source."""
    place: str
    """Where a person finds it: `part-0.parquet row 3`, `probe.tsv line 5`."""
    cells: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    """Set when the row could not be read."""


class SourceBreaksOff(BadData):
    """The source cannot be read further: what follows is unknown, so that nothing of it is published."""

    def __init__(self, row: Row, reason: str) -> None:
        super().__init__("SourceBreaksOff", f"{row.place}: {reason}: mend the file")
        self.row, self.fault = row, Fault("row", reason)
