"""Which figures to show and what to ask about them, so that the picture leaves no doubt about the answer.

What a person has to tell by eye differs by at least EYE of the axis; what is printed, by at least PRINT of it.
"""

import itertools
import random
from collections.abc import Sequence
from statistics import StatisticsError, correlation

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.charts.axis import label
from dpe_jobs.generation.render.charts.plan import Cloud, Grid, Pies, Plan, Unsuitable
from dpe_jobs.generation.render.tabular import Table

EYE, PRINT = 0.045, 0.012  # of the axis
EYE_SHARE, PRINT_SHARE = 4, 1  # per cent of a pie
APART = 0.11  # of the axis, between options
RISE_FALL = ("rise", "fall")
_CLEAR = 0.5  # Kendall's tau and Pearson's correlation of a tendency that nobody doubts
_PLURALS = {"species": "species", "facility": "facilities", "kind of weather": "kinds of weather", "series": "series"}


def plural(noun: str) -> str:
    """More than one of it."""
    return _PLURALS.get(noun, f"{noun}s")


def ask(asks: str, plan: Plan, rng: random.Random) -> Written:
    """A question with its answer. Unsuitable: choose other figures."""
    match plan:
        case Grid():
            return _GRID[asks](plan, rng)
        case Pies():
            return _PIES[asks](plan, rng)
        case Cloud():
            return _CLOUD[asks](plan, rng)


def _best(values: Sequence[float], highest: bool, least: float) -> int:
    """Place of the extremum, which is away from all others."""
    sign = 1 if highest else -1
    order = sorted(range(len(values)), key=lambda i: -sign * values[i])
    if len(values) > 1 and abs(values[order[0]] - values[order[1]]) < least:
        raise Unsuitable
    return order[0]


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"


def _options(value: float, low: float, high: float, decimals: int, rng: random.Random) -> tuple[str, ...]:
    """Four values between the axis's ends, the right one among them, at least APART of it apart."""
    gap = APART * (high - low)
    for _ in range(40):
        others: list[float] = []
        while len(others) < 3:
            other = round(rng.uniform(low + 0.02 * (high - low), high), decimals)
            if all(abs(other - known) >= gap for known in (value, *others)):
                others.append(other)
            elif rng.random() < 0.05:
                break
        if len(others) == 3:
            shown = [_number(v, decimals) for v in (value, *others)]
            rng.shuffle(shown)
            return tuple(shown)
    raise Unsuitable


def _in_unit(table: Table) -> str:
    return "" if table.counts else f", in {table.unit}"


def _grid_value(plan: Grid, rng: random.Random) -> Written:
    table = plan.table
    row, column = rng.randrange(len(table.rows)), rng.randrange(len(table.columns))
    value = table.values[row][column]
    answer = _number(value, table.decimals)
    if plan.printed:
        lead = rng.choice(("What is the {cell}{unit}?", "According to the chart, what was the {cell}{unit}?"))
        return Written(lead.format(cell=table.cell(row, column), unit=_in_unit(table)), answer, AnswerType.NUMBER)
    options = _options(value, plan.axis[0], plan.axis[-1], table.decimals, rng)
    question = f"Which value is closest to the {table.cell(row, column)}{_in_unit(table)}?"
    return Written(question, answer, AnswerType.CHOICE, options)


def _grid_extremum(plan: Grid, rng: random.Random) -> Written:
    table, highest = plan.table, rng.random() < 0.5
    word = "highest" if highest else "lowest"
    least = (PRINT if plan.printed else EYE) * plan.span
    if len(table.columns) > 1 and rng.random() < 0.4:
        row = rng.randrange(len(table.rows))
        best = _best(table.values[row], highest, least)
        question = f"Which {table.kind} has the {word} value {table.at.format(row=table.rows[row])}?"
        return Written(question, table.columns[best], AnswerType.EXACT)
    column = rng.randrange(len(table.columns))
    best = _best([values[column] for values in table.values], highest, least)
    question = f"Which {table.index} has the {word} {table.column(column)}?"
    return Written(question, table.rows[best], AnswerType.EXACT)


def _pair(table: Table, rng: random.Random) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two cells of one row or of one column."""
    if len(table.columns) > 1 and rng.random() < 0.5:
        row = rng.randrange(len(table.rows))
        one, other = rng.sample(range(len(table.columns)), 2)
        return (row, one), (row, other)
    column = rng.randrange(len(table.columns))
    one, other = rng.sample(range(len(table.rows)), 2)
    return (one, column), (other, column)


def _grid_compare(plan: Grid, rng: random.Random) -> Written:
    table = plan.table
    one, other = _pair(table, rng)
    a, b = (table.values[row][column] for row, column in (one, other))
    if abs(a - b) < (PRINT if plan.printed else EYE) * plan.span:
        raise Unsuitable
    if plan.printed and rng.random() < 0.5:
        if a < b:
            one, other, a, b = other, one, b, a
        question = f"By how much is the {table.cell(*one)} higher than the {table.cell(*other)}{_in_unit(table)}?"
        return Written(question, _number(a - b, table.decimals), AnswerType.NUMBER)
    question = f"Is the {table.cell(*one)} higher than the {table.cell(*other)}?"
    return Written(question, "yes" if a > b else "no", AnswerType.YES_NO)


def _grid_trend(plan: Grid, rng: random.Random) -> Written:
    table = plan.table
    if not table.ordered:
        raise Unsuitable
    least = (PRINT if plan.printed else EYE) * plan.span
    column = rng.randrange(len(table.columns))
    values = [row[column] for row in table.values]
    if rng.random() < 0.4:
        if any(abs(b - a) < least for a, b in itertools.pairwise(values)):
            raise Unsuitable
        index = table.index
        question = f"In how many {plural(index)} is the {table.column(column)} higher than in the {index} before?"
        count = sum(b > a for a, b in itertools.pairwise(values))
        return Written(question, str(count), AnswerType.NUMBER)
    falls = rng.random() < 0.5  # of itself, much rises
    pairs = [(i, j) for i, j in itertools.combinations(range(len(values)), 2) if abs(values[i] - values[j]) >= least]
    pairs = [(i, j) for i, j in pairs if (values[j] < values[i]) == falls] or pairs
    if not pairs:
        raise Unsuitable
    first, last = rng.choice(pairs)
    question = f"From {table.rows[first]} to {table.rows[last]}, did the {table.column(column)} rise or fall?"
    return Written(question, RISE_FALL[values[last] < values[first]], AnswerType.CHOICE, RISE_FALL)


def _grid_count(plan: Grid, rng: random.Random) -> Written:
    table = plan.table
    if len(table.columns) > 1 and rng.random() < 0.35:
        question = f"How many {plural(table.kind)} does the chart compare?"
        return Written(question, str(len(table.columns)), AnswerType.NUMBER)
    column = rng.randrange(len(table.columns))
    values = [row[column] for row in table.values]
    bounds = [v for v in plan.axis[1:-1] if all(abs(v - other) >= 0.02 * plan.span for other in values)]
    between = [v for v in bounds if min(values) < v < max(values)]
    if not bounds:
        raise Unsuitable
    bound = rng.choice(between or bounds)
    unit = "" if table.counts else f" {table.unit}"
    question = f"For how many {plural(table.index)} is the {table.column(column)} above {label(bound)}{unit}?"
    return Written(question, str(sum(v > bound for v in values)), AnswerType.NUMBER)


def _share(plan: Pies, column: int, row: int | None = None) -> str:
    table = plan.table
    where = "" if row is None or len(table.rows) == 1 else f" {table.at.format(row=table.rows[row])}"
    return f"share of {table.columns[column]}{where}"


def _pie_value(plan: Pies, rng: random.Random) -> Written:
    row, column = rng.randrange(len(plan.table.rows)), rng.randrange(len(plan.table.columns))
    value = plan.table.values[row][column]
    share = _share(plan, column, row)
    if plan.printed:
        return Written(f"What is the {share} in {plan.whole}, in percent?", f"{value:.0f}", AnswerType.NUMBER)
    options = _options(value, 0, max(60.0, value + 10), 0, rng)
    question = f"Which value is closest to the {share} in {plan.whole}, in percent?"
    return Written(question, f"{value:.0f}", AnswerType.CHOICE, options)


def _pie_extremum(plan: Pies, rng: random.Random) -> Written:
    highest = rng.random() < 0.6
    row = rng.randrange(len(plan.table.rows))
    best = _best(plan.table.values[row], highest, PRINT_SHARE if plan.printed else EYE_SHARE)
    where = "" if len(plan.table.rows) == 1 else f" {plan.table.at.format(row=plan.table.rows[row])}"
    question = f"Which {plan.table.kind} has the {'largest' if highest else 'smallest'} share{where}?"
    return Written(question, plan.table.columns[best], AnswerType.EXACT)


def _pie_compare(plan: Pies, rng: random.Random) -> Written:
    row = rng.randrange(len(plan.table.rows))
    one, other = rng.sample(range(len(plan.table.columns)), 2)
    a, b = plan.table.values[row][one], plan.table.values[row][other]
    if abs(a - b) < (PRINT_SHARE if plan.printed else EYE_SHARE):
        raise Unsuitable
    if plan.printed and rng.random() < 0.5:
        if a < b:
            one, other, a, b = other, one, b, a
        question = (
            f"By how many percentage points is the {_share(plan, one, row)} larger than the {_share(plan, other)}?"
        )
        return Written(question, f"{a - b:.0f}", AnswerType.NUMBER)
    question = f"Is the {_share(plan, one, row)} larger than the {_share(plan, other)}?"
    return Written(question, "yes" if a > b else "no", AnswerType.YES_NO)


def _pie_trend(plan: Pies, rng: random.Random) -> Written:
    table = plan.table
    if len(table.rows) != 2:
        raise Unsuitable
    column = rng.randrange(len(table.columns))
    before, after = (row[column] for row in table.values)
    if abs(before - after) < (PRINT_SHARE if plan.printed else EYE_SHARE):
        raise Unsuitable
    question = f"From {table.rows[0]} to {table.rows[1]}, did the {_share(plan, column)} rise or fall?"
    return Written(question, RISE_FALL[after < before], AnswerType.CHOICE, RISE_FALL)


def _pie_count(plan: Pies, rng: random.Random) -> Written:
    table = plan.table
    row = rng.randrange(len(table.rows))
    bounds = [b for b in (10, 15, 20, 25, 30, 40) if any(v > b for v in table.values[row])]
    bounds = [b for b in bounds if all(v != b for v in table.values[row])]
    if plan.printed and bounds and rng.random() < 0.6:
        bound = rng.choice(bounds)
        where = "" if len(table.rows) == 1 else f" {table.at.format(row=table.rows[row])}"
        question = f"How many {plural(table.kind)} have a share above {bound}%{where}?"
        return Written(question, str(sum(v > bound for v in table.values[row])), AnswerType.NUMBER)
    question = rng.choice(("How many parts does the pie have?", "Into how many parts is the pie divided?"))
    return Written(question, str(len(table.columns)), AnswerType.NUMBER)


def _cloud_value(plan: Cloud, rng: random.Random) -> Written:
    if not plan.names:
        raise Unsuitable
    which = rng.randrange(len(plan.names))
    value = plan.points[which][1]
    answer = _number(value, plan.decimals)
    of = f"{plan.y} of the point {plan.names[which]}, in {plan.units[1]}"
    if plan.printed:
        return Written(f"What is the {of}?", answer, AnswerType.NUMBER)
    options = _options(value, plan.axes[1][0], plan.axes[1][-1], plan.decimals, rng)
    return Written(f"Which value is closest to the {of}?", answer, AnswerType.CHOICE, options)


def _cloud_extremum(plan: Cloud, rng: random.Random) -> Written:
    if not plan.names:
        raise Unsuitable
    highest = rng.random() < 0.5
    if plan.printed or rng.random() < 0.5:
        least = (PRINT if plan.printed else EYE) * plan.span
        best, what = _best([y for _, y in plan.points], highest, least), plan.y
    else:
        least = EYE * (plan.axes[0][-1] - plan.axes[0][0])
        best, what = _best([x for x, _ in plan.points], highest, least), plan.x
    question = f"Which {plan.index} has the {'highest' if highest else 'lowest'} {what}?"
    return Written(question, plan.names[best], AnswerType.EXACT)


def _cloud_compare(plan: Cloud, rng: random.Random) -> Written:
    if not plan.names:
        raise Unsuitable
    one, other = rng.sample(range(len(plan.names)), 2)
    a, b = plan.points[one][1], plan.points[other][1]
    if abs(a - b) < (PRINT if plan.printed else EYE) * plan.span:
        raise Unsuitable
    of = f"{plan.y} of the point {plan.names[one]}"
    if plan.printed and a > b and rng.random() < 0.7:
        question = f"By how much is the {of} higher than that of the point {plan.names[other]}, in {plan.units[1]}?"
        return Written(question, _number(a - b, plan.decimals), AnswerType.NUMBER)
    question = f"Is the {of} higher than that of the point {plan.names[other]}?"
    return Written(question, "yes" if a > b else "no", AnswerType.YES_NO)


def ranks_agree(points: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-a (Kendall 1938): 1 when y always rises with x, -1 when it always falls."""
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in pairs]
    return sum((s > 0) - (s < 0) for s in signs) / len(signs)


def _cloud_trend(plan: Cloud, _: random.Random) -> Written:
    tau = ranks_agree(plan.points)
    try:
        slope = correlation([x for x, _ in plan.points], [y for _, y in plan.points])
    except StatisticsError as error:  # one of them is the same everywhere
        raise Unsuitable from error
    if min(abs(tau), abs(slope)) < _CLEAR or (tau < 0) != (slope < 0):
        raise Unsuitable
    question = f"As the {plan.x} rises, does the {plan.y} tend to rise or fall?"
    return Written(question, RISE_FALL[tau < 0], AnswerType.CHOICE, RISE_FALL)


def _cloud_count(plan: Cloud, rng: random.Random) -> Written:
    ys = [y for _, y in plan.points]
    if plan.groups and rng.random() < 0.6:
        if rng.random() < 0.25:
            question = f"How many {plural(plan.group)} does the plot tell apart?"
            return Written(question, str(len(set(plan.groups))), AnswerType.NUMBER)
        name = rng.choice(sorted(set(plan.groups)))
        question = f"How many points belong to the {plan.group} {name}?"
        return Written(question, str(plan.groups.count(name)), AnswerType.NUMBER)
    bounds = [v for v in plan.axes[1][1:-1] if all(abs(v - y) >= 0.025 * plan.span for y in ys)]
    bounds = [v for v in bounds if sum(y > v for y in ys) <= 15]
    if not bounds:
        raise Unsuitable
    bound = rng.choice(bounds)
    question = f"How many points lie above {label(bound)} {plan.units[1]} on the vertical axis?"
    return Written(question, str(sum(y > bound for y in ys)), AnswerType.NUMBER)


_GRID = {
    "value": _grid_value,
    "extremum": _grid_extremum,
    "compare": _grid_compare,
    "trend": _grid_trend,
    "count": _grid_count,
}
_PIES = {
    "value": _pie_value,
    "extremum": _pie_extremum,
    "compare": _pie_compare,
    "trend": _pie_trend,
    "count": _pie_count,
}
_CLOUD = {
    "value": _cloud_value,
    "extremum": _cloud_extremum,
    "compare": _cloud_compare,
    "trend": _cloud_trend,
    "count": _cloud_count,
}
ASKS = tuple(_GRID)
