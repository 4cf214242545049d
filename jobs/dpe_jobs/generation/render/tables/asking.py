"""Questions that a table answers exactly: nothing has to be estimated, and no two rows tie."""

import itertools
import random

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.tabular import Table

_PLURALS = {"species": "species"}


class Unsuitable(Exception):
    """These figures do not allow such a question, or have no room in the picture."""


def ask(asks: str, table: Table, rng: random.Random) -> Written:
    """A question with its answer. Unsuitable: choose other figures."""
    return _ASKS[asks](table, rng)


def _plural(noun: str) -> str:
    return _PLURALS.get(noun, f"{noun}s")


def _number(value: float, table: Table) -> str:
    return f"{value:.{table.decimals}f}"


def _unit(table: Table) -> str:
    return "" if table.counts else f", in {table.unit}"


def _column(table: Table, column: int) -> tuple[float, ...]:
    return tuple(row[column] for row in table.values)


def _lookup(table: Table, rng: random.Random) -> Written:
    row, column = rng.randrange(len(table.rows)), rng.randrange(len(table.columns))
    question = rng.choice(("What is the {cell}{unit}?", "According to the table, what was the {cell}{unit}?"))
    question = question.format(cell=table.cell(row, column), unit=_unit(table))
    return Written(question, _number(table.values[row][column], table), AnswerType.NUMBER)


def _arithmetic(table: Table, rng: random.Random) -> Written:
    """A sum of two to four neighbours in a column or of a whole row, or a difference where sums make no sense."""
    if not table.parts:
        return _difference(table, rng)
    if len(table.columns) > 1 and "columns" in table.parts and rng.random() < 0.5:
        row = rng.randrange(len(table.rows))
        question = f"What is the sum of all values in the row {table.rows[row]}{_unit(table)}?"
        return Written(question, _number(sum(table.values[row]), table), AnswerType.NUMBER)
    column, count = rng.randrange(len(table.columns)), rng.randint(2, min(4, len(table.rows)))
    first = rng.randrange(len(table.rows) - count + 1)
    last = first + count - 1
    total = sum(_column(table, column)[first : last + 1])
    span = f"from {table.rows[first]} to {table.rows[last]}"
    if count == 2:
        span = f"of {table.rows[first]} and {table.rows[last]}"
    question = f"In the column {table.columns[column]}, what is the sum of the values {span}{_unit(table)}?"
    return Written(question, _number(total, table), AnswerType.NUMBER)


def _difference(table: Table, rng: random.Random) -> Written:
    column = rng.randrange(len(table.columns))
    one, other = rng.sample(range(len(table.rows)), 2)
    values = _column(table, column)
    if values[one] == values[other]:
        raise Unsuitable
    if values[one] < values[other]:
        one, other = other, one
    question = (
        f"By how much is the {table.cell(one, column)} higher than the {table.cell(other, column)}{_unit(table)}?"
    )
    return Written(question, _number(values[one] - values[other], table), AnswerType.NUMBER)


def _extremum(table: Table, rng: random.Random) -> Written:
    highest = rng.random() < 0.5
    word, choose = ("highest", max) if highest else ("lowest", min)
    if len(table.columns) > 2 and rng.random() < 0.4:
        row = rng.randrange(len(table.rows))
        values = table.values[row]
        question = f"Which {table.kind} has the {word} value {table.at.format(row=table.rows[row])}?"
        names = table.columns
    else:
        column = rng.randrange(len(table.columns))
        values, names = _column(table, column), table.rows
        question = f"Which {table.index} has the {word} {table.column(column)}?"
    if values.count(choose(values)) > 1:
        raise Unsuitable
    return Written(question, names[values.index(choose(values))], AnswerType.EXACT)


def _bound(table: Table, column: int, rng: random.Random) -> float:
    """A value between two of the column's."""
    values = sorted(set(_column(table, column)))
    gaps = [(a, b) for a, b in itertools.pairwise(values) if b - a >= 4 * 10**-table.decimals]
    if not gaps:
        raise Unsuitable
    low, high = rng.choice(gaps)
    # as round as fits
    for digits in range(-4, table.decimals + 1):
        bound = round((low + high) / 2, digits)
        if low < bound < high:
            return bound
    raise Unsuitable


def _condition(table: Table, rng: random.Random) -> Written:
    """Which rows lie above or below a value: all of them, one to four."""
    column = rng.randrange(len(table.columns))
    bound, above = _bound(table, column, rng), rng.random() < 0.5
    rows = [name for name, value in zip(table.rows, _column(table, column), strict=True) if (value > bound) == above]
    if not 1 <= len(rows) <= 4:
        raise Unsuitable
    word = "above" if above else "below"
    what = f"{table.column(column)} {word} {table.shown(bound)}{'' if table.counts else f' {table.unit}'}"
    return Written(f"List every {table.index} with a {what}: which are they?", ", ".join(rows), AnswerType.LIST)


def _count(table: Table, rng: random.Random) -> Written:
    column = rng.randrange(len(table.columns))
    bound = _bound(table, column, rng)
    unit = "" if table.counts else f" {table.unit}"
    question = f"For how many {_plural(table.index)} is the {table.column(column)} above {table.shown(bound)}{unit}?"
    return Written(question, str(sum(v > bound for v in _column(table, column))), AnswerType.NUMBER)


def _compare(table: Table, rng: random.Random) -> Written:
    if len(table.columns) > 1 and rng.random() < 0.5:
        row = rng.randrange(len(table.rows))
        cells = [(row, column) for column in rng.sample(range(len(table.columns)), 2)]
    else:
        column = rng.randrange(len(table.columns))
        cells = [(row, column) for row in rng.sample(range(len(table.rows)), 2)]
    one, other = (table.values[row][column] for row, column in cells)
    if one == other:
        raise Unsuitable
    question = f"Is the {table.cell(*cells[0])} higher than the {table.cell(*cells[1])}?"
    return Written(question, "yes" if one > other else "no", AnswerType.YES_NO)


_ASKS = {
    "lookup": _lookup,
    "compare": _compare,
    "extremum": _extremum,
    "arithmetic": _arithmetic,
    "condition": _condition,
    "count": _count,
}
ASKS = tuple(_ASKS)
