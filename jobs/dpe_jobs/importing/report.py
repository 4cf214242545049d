"""What an import found: counts, and every bad row by number, field and reason."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_jobs.importing.rows import Fault, Row
from dpe_jobs.questions import Question
from dpe_jobs.runtime import BadConfig

LISTED = 100  # bad rows on the terminal; all of them are in bad-rows.jsonl
MAX_CATEGORIES = 1000  # more are no categories


class BadRowEntry(ApiModel):
    """One line of bad-rows.jsonl: one fault of one row."""

    row: int
    """From 0."""
    place: str
    """File and row or line."""
    field: str
    reason: str


class ImportReport(ApiModel):
    """`import.json`."""

    source: list[str]
    """Files that were read."""
    format: str
    split: str | None = None
    columns: dict[str, str]
    """Field -> column of the source."""
    facets: dict[str, str]
    published: bool = False
    rows: int = 0
    """Rows of the source."""
    questions: int = 0
    """Questions made of them: several when a row is a conversation."""
    bad: int = 0
    """Rows of which no question was made."""
    bad_by_field: dict[str, int] = Field(default_factory=dict)
    """Faults by field, most frequent first."""
    first_bad: list[BadRowEntry] = Field(default_factory=list)
    turns_left_out: int = 0
    answer_types: dict[str, int] = Field(default_factory=dict)
    categories: dict[str, int] = Field(default_factory=dict)
    image_bytes: int = 0
    parts: int = 0


class Tally:
    """Counts as rows go by, and lists the bad ones."""

    def __init__(self, bad_rows: Path) -> None:
        self.rows = self.questions = self.bad = self.image_bytes = 0
        self.answer_types, self.categories, self.fields = Counter[str](), Counter[str](), Counter[str]()
        self.first_bad: list[BadRowEntry] = []
        self._handle = bad_rows.open("w", encoding="utf-8")

    def good(self, question: Question) -> None:
        """Count a question. BadConfig when its categories are none."""
        self.questions += 1
        self.image_bytes += len(question.image)
        self.answer_types[question.answer_type] += 1
        if question.category:
            self.categories[question.category] += 1
            if len(self.categories) > MAX_CATEGORIES:
                raise BadConfig(
                    "TooManyCategories",
                    f"more than {MAX_CATEGORIES} categories ({question.category[:60]!r} ...): name another column "
                    "with --column category=NAME",
                )

    def fault(self, row: Row, faults: Sequence[Fault]) -> None:
        """List a bad row."""
        self.bad += 1
        for fault in faults:
            entry = BadRowEntry(row=row.number, place=row.place, field=fault.field, reason=_legible(fault.reason))
            self.fields[fault.field] += 1
            self._handle.write(entry.model_dump_json(by_alias=True) + "\n")
            if len(self.first_bad) < LISTED:
                self.first_bad.append(entry)
                print(f"row {entry.row} ({entry.place}), {entry.field}: {entry.reason}", file=sys.stderr)

    def fill(self, report: ImportReport) -> ImportReport:
        """The report with what was counted."""
        return report.model_copy(
            update={
                "rows": self.rows,
                "questions": self.questions,
                "bad": self.bad,
                "bad_by_field": dict(self.fields.most_common()),
                "first_bad": self.first_bad,
                "answer_types": dict(self.answer_types.most_common()),
                "categories": dict(sorted(self.categories.items())),
                "image_bytes": self.image_bytes,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish bad-rows.jsonl, and say how much of it was not on the terminal."""
        unlisted = sum(self.fields.values()) - len(self.first_bad)
        if unlisted and not self._handle.closed:
            print(f"... and {unlisted} more", file=sys.stderr)
        self._handle.close()


def _legible(text: str) -> str:
    """One line, of bounded length, that any terminal and file can hold."""
    flat = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return flat if len(flat) <= 300 else flat[:297] + "..."
