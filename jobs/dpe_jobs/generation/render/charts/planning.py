"""Chooses the figures of a chart: which part of which table, as many marks as the planner wants."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from dpe_jobs.generation.render.charts.plan import (
    Cloud,
    Grid,
    Pies,
    Plan,
    Unsuitable,
    grid,
    of_points,
    of_table,
    percents,
)
from dpe_jobs.generation.render.records import NAMES, POINT_SETS, axis_count, points, table
from dpe_jobs.generation.render.tabular import Table

DENSITIES = ("few", "some", "many")
# rows and columns of a table, at least and at most
_BARS = {"few": ((3, 4), (1, 1)), "some": ((5, 7), (1, 1)), "many": ((4, 7), (2, 3))}
_LINES = {"few": ((5, 6), (1, 1)), "some": ((6, 8), (2, 2)), "many": ((7, 9), (3, 4))}
_PARTS = {"few": (3, 3), "some": (4, 5), "many": (6, 7)}
_NAMED = {"few": (4, 5), "some": (6, 8), "many": (9, 12)}
_UNNAMED = {"few": (8, 12), "some": (16, 24), "many": (30, 40)}
_LEAST_SHARE = 3  # per cent: a thinner part can hardly be seen
_TWO_PIES = 0.3  # of the pies that are not asked about a trend
_SPREAD = 3  # times as many points are drawn as are wanted: some would lie on others


def plan_chart(knobs: Mapping[str, str], rng: random.Random) -> Plan:
    """Figures for a chart. Unsuitable: try again."""
    return _PLANS[knobs["chart"]](knobs, rng)


def _some_table(rng: random.Random, *, ordered: bool = False, columns: int = 1) -> Table:
    found = table(rng.choice(NAMES))
    if (ordered and not found.ordered) or len(found.columns) < columns:
        raise Unsuitable
    return found


def _of_size(found: Table, size: tuple[tuple[int, int], tuple[int, int]], rng: random.Random) -> Table:
    """A part of the table with as many rows and columns."""
    (least, most), (fewest, highest) = size
    if len(found.rows) < least or len(found.columns) < fewest:
        raise Unsuitable
    return found.drawn(rng.randint(least, most), rng.randint(fewest, highest), rng)


def _bars(knobs: Mapping[str, str], rng: random.Random) -> Grid:
    found = _some_table(rng, ordered=knobs["asks"] == "trend")
    part = _of_size(found, _BARS[knobs["density"]], rng)
    plan = grid(part, knobs["values"] == "printed", True, rng)
    longest = max(len(row) for row in part.rows)
    return replace(plan, horizontal=longest > 8 or rng.random() < 0.25)


def _lines(knobs: Mapping[str, str], rng: random.Random) -> Grid:
    part = _of_size(_some_table(rng, ordered=True), _LINES[knobs["density"]], rng)
    return grid(part, knobs["values"] == "printed", False, rng)


def _pies(knobs: Mapping[str, str], rng: random.Random) -> Pies:
    found = _some_table(rng)
    if not found.parts:
        raise Unsuitable
    if rng.choice(found.parts) == "rows":
        found = found.transposed()
    least, most = _PARTS[knobs["density"]]
    if len(found.columns) < least:
        raise Unsuitable
    two = knobs["asks"] == "trend" or rng.random() < _TWO_PIES
    rows = rng.sample(range(len(found.rows)), min(len(found.rows), 2 if two else 1))
    start, count = rng.randrange(len(found.columns)), rng.randint(least, most)
    columns = sorted((start + i) % len(found.columns) for i in range(min(count, len(found.columns))))
    part = found.part(sorted(rows), columns)
    if knobs["asks"] == "trend" and (len(part.rows) < 2 or not found.ordered):
        raise Unsuitable
    shares = tuple(tuple(float(share) for share in percents(row)) for row in part.values)
    if min(share for row in shares for share in row) < _LEAST_SHARE:
        raise Unsuitable
    title = part.title if two else f"{part.title}, {part.rows[0]}"
    return Pies(replace(part, values=shares, title=title), found.whole, knobs["values"] == "printed")


def _cloud(knobs: Mapping[str, str], rng: random.Random) -> Cloud:
    printed = knobs["values"] == "printed"
    if not printed and (knobs["asks"] == "count" or (knobs["asks"] == "trend" and rng.random() < 0.6)):
        return _grouped(_UNNAMED[knobs["density"]], rng)
    found = _some_table(rng, columns=2)
    least, most = _NAMED[knobs["density"]]
    if len(found.rows) < least:
        raise Unsuitable
    return of_table(found.drawn(rng.randint(least, most), 2, rng), printed)


def _grouped(size: tuple[int, int], rng: random.Random) -> Cloud:
    """Cars or irises; what lies too near to others is left out."""
    name = rng.choice(POINT_SETS)
    found = points(name, *rng.sample(range(axis_count(name)), 2))
    names = sorted(set(found.groups))
    kept_names = set(rng.sample(names, rng.randint(2, len(names))))
    candidates = [i for i in range(len(found.xs)) if found.groups[i] in kept_names]
    count = rng.randint(*size)
    wide, high = max(found.xs) - min(found.xs), max(found.ys) - min(found.ys)
    chosen: list[int] = []
    for i in rng.sample(candidates, min(len(candidates), _SPREAD * count)):
        # an ellipse of the plot's shape, of some 12 pixels
        near = ((found.xs[i] - found.xs[j]) ** 2 / wide**2 + (found.ys[i] - found.ys[j]) ** 2 / high**2 for j in chosen)
        if all(distance > 0.045**2 for distance in near):
            chosen.append(i)
        if len(chosen) == count:
            return of_points(found, sorted(chosen))
    raise Unsuitable


_PLANS: Mapping[str, Callable[[Mapping[str, str], random.Random], Plan]] = {
    "bar": _bars,
    "line": _lines,
    "pie": _pies,
    "scatter": _cloud,
}
