"""Reads a table from the texts of its display list: rows are texts at one height, columns those that end at one place.

Sums are made of decimals, not of floating point numbers.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from dpe_jobs.generation.render.scene import Mark, Scene

_SAME_LINE = 7.0  # pixels between the middles of two texts of a row; capitals and small letters differ
_SAME_COLUMN = 3.0  # pixels between the ends of two figures of a column


class _Read:
    """Heads, names of rows and figures."""

    def __init__(self, scene: Scene) -> None:
        lines: list[list[Mark]] = []
        for cell in sorted(scene.all("cell"), key=lambda m: m.center[1]):
            if lines and abs(lines[-1][0].center[1] - cell.center[1]) <= _SAME_LINE:
                lines[-1].append(cell)
            else:
                lines.append([cell])
        table = [sorted(line, key=lambda m: m.box[0]) for line in lines]
        if not table or any(len(line) != len(table[0]) for line in table):
            raise ValueError("there is no table, or its rows differ in length")
        for place in range(1, len(table[0])):
            ends = [line[place].box[2] for line in table]
            if max(ends) - min(ends) > _SAME_COLUMN:
                raise ValueError(f"the figures under {table[0][place].text!r} do not stand below each other")
        self.index = table[0][0].text.lower()
        self.columns = [cell.text for cell in table[0][1:]]
        self.rows = [line[0].text for line in table[1:]]
        self.values = [[Decimal(cell.text.replace(",", "")) for cell in line[1:]] for line in table[1:]]

    def column(self, question: str) -> list[Decimal]:
        """The figures of the column that a question names, or of the only one."""
        named = _named(question, self.columns)
        if len(named) != 1 and len(self.columns) > 1:
            raise ValueError(f"{question!r} names {named}, not one column")
        place = self.columns.index(named[0]) if named else 0
        return [row[place] for row in self.values]

    def cells(self, question: str, wanted: int) -> list[Decimal]:
        """The figures that a question names, in its order."""
        rows, columns = _named(question, self.rows), _named(question, self.columns)
        if not columns and len(self.columns) == 1:
            columns = list(self.columns)
        rows, columns = (found * wanted if len(found) == 1 else found for found in (rows, columns))
        if len(rows) != wanted or len(columns) != wanted:
            raise ValueError(f"{question!r} names {rows} and {columns}, not {wanted} cells")
        return [
            self.values[self.rows.index(row)][self.columns.index(column)]
            for row, column in zip(rows, columns, strict=True)
        ]


def _named(question: str, names: Sequence[str]) -> list[str]:
    """Names in a question, in its order; the longer one where one is part of another."""
    found = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(names, key=len, reverse=True))
    return re.findall(found, question)


def solve(scene: Scene, question: str) -> str:
    """The answer. ValueError: another question, or a name that is not in the table."""
    read = _Read(scene)
    if "sum of" in question:
        return str(_sum(read, question))
    if question.startswith("By how much"):
        one, other = read.cells(question, 2)
        return str(one - other)
    if question.startswith("Is "):
        one, other = read.cells(question, 2)
        return "yes" if one > other else "no"
    if bound := re.search(r" (above|below) (-?[\d,]*\.?\d+)", question):
        limit, what = Decimal(bound[2].replace(",", "")), question[: bound.start()]
        fits = [(v > limit) if bound[1] == "above" else (v < limit) for v in read.column(what)]
        if question.startswith("List every"):
            return ", ".join(name for name, fit in zip(read.rows, fits, strict=True) if fit)
        return str(sum(fits))
    if word := re.search(r"\b(highest|lowest)\b", question):
        return _extremum(read, question, word[1] == "highest")
    return str(read.cells(question, 1)[0])


def _sum(read: _Read, question: str) -> Decimal:
    if row := re.search(r"in the row (.+?)(?:, in .+)?\?$", question):
        if row[1] not in read.rows:
            raise ValueError(f"there is no row {row[1]}")
        return sum(read.values[read.rows.index(row[1])], Decimal(0))
    head, _, tail = question.partition(", what")
    values, ends = read.column(head), _named(tail, read.rows)
    if len(ends) != 2:
        raise ValueError(f"{question!r} names {ends}, not two rows")
    first, last = (read.rows.index(end) for end in ends)
    return sum(values[first : last + 1], Decimal(0))


def _extremum(read: _Read, question: str, highest: bool) -> str:
    named = _named(question, read.rows)
    names, values = read.rows, read.values[read.rows.index(named[0])] if named else read.column(question)
    if named:
        names = read.columns
    best = max(values) if highest else min(values)
    if values.count(best) > 1:
        raise ValueError(f"{values.count(best)} values are {best}")
    return names[values.index(best)]
