"""A table of figures, and how its values are spoken of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of one measure in one unit: a row for each time or thing, a column for each series."""

    name: str
    title: str
    series: str
    """What a column holds, in a sentence: "net generation from {column}"."""
    at: str
    """Where a row comes into that sentence: "in {row}"."""
    unit: str
    index: str
    """What a row is: "year"."""
    kind: str
    """What a column is: "source"."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """[rows][columns], rounded as they are shown."""
    decimals: int = 0
    ordered: bool = True
    """Rows follow each other in time."""
    parts: tuple[str, ...] = ()
    """What may be added up: "columns", "rows"."""
    whole: str = ""
    """What the sum is, in words."""

    def shown(self, value: float) -> str:
        """A value as it is printed."""
        return f"{value:,.{self.decimals}f}"

    def cell(self, row: int, column: int) -> str:
        """A value in words: "net generation from Renewables in 2005"."""
        return f"{self.column(column)} {self.at.format(row=self.rows[row])}"

    def column(self, column: int) -> str:
        """A series in words."""
        return self.series.format(column=self.columns[column])

    @property
    def counts(self) -> bool:
        """Values are numbers of things: their unit needs no mention."""
        return self.series.startswith("number of")

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> "Table":
        """Some rows and columns of it."""
        return replace(
            self,
            rows=tuple(self.rows[r] for r in rows),
            columns=tuple(self.columns[c] for c in columns),
            values=tuple(tuple(self.values[r][c] for c in columns) for r in rows),
        )

    def drawn(self, rows: int, columns: int, rng: random.Random) -> "Table":
        """A part of so many rows and columns, or fewer if it has fewer: neighbours in time, others as they come."""
        rows, columns = min(rows, len(self.rows)), min(columns, len(self.columns))
        if self.ordered:
            start = rng.randrange(len(self.rows) - rows + 1)
            chosen = list(range(start, start + rows))
        else:
            chosen = rng.sample(range(len(self.rows)), rows)
        return self.part(chosen, sorted(rng.sample(range(len(self.columns)), columns)))

    def transposed(self) -> "Table":
        """Rows as columns, for charts of shares: sentences about single cells would no longer fit."""
        return replace(
            self,
            rows=self.columns,
            columns=self.rows,
            index=self.kind,
            kind=self.index,
            at="for {row}",
            ordered=all(column.isdigit() for column in self.columns),
            values=tuple(zip(*self.values, strict=True)),
        )
