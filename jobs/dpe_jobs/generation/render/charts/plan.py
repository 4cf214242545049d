"""What a chart shows, before anything is drawn: figures of a table that leave no doubt about the answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dpe_jobs.generation.render.charts.axis import ticks
from dpe_jobs.generation.render.records import Points
from dpe_jobs.generation.render.tabular import Table


class Unsuitable(Exception):
    """These figures leave a doubt about the answer, or have no room in the picture: choose others."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Bars or lines: every row at a place of its own, a colour for every column."""

    table: Table
    printed: bool
    axis: tuple[float, ...]
    """Values of the ticks; the first and the last are the axis's ends."""
    bars: bool
    horizontal: bool = False

    @property
    def source(self) -> str:
        """Name of the table."""
        return self.table.name

    @property
    def span(self) -> float:
        """From one end of the axis to the other."""
        return self.axis[-1] - self.axis[0]


@dataclass(frozen=True, slots=True)
class Pies:
    """One pie, or two of the same parts."""

    table: Table
    """A row for each pie, a column for each part; per cent, each pie summing up to 100."""
    whole: str
    """What the shares are shares of: "the output of electricity"."""
    printed: bool

    @property
    def source(self) -> str:
        """Name of the table."""
        return self.table.name


@dataclass(frozen=True, slots=True)
class Cloud:
    """A scatter plot: of named points, or of groups."""

    title: str
    x: str
    y: str
    """What the axes show, in words, without unit."""
    units: tuple[str, str]
    points: tuple[tuple[float, float], ...]
    names: tuple[str, ...]
    """Of the points; none when they are told by their group."""
    index: str
    """What a named point is: "year"."""
    groups: tuple[str, ...]
    """Of the points; none when they are named."""
    group: str
    printed: bool
    decimals: int
    source: str
    axes: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def span(self) -> float:
        """From one end of the vertical axis to the other."""
        return self.axes[1][-1] - self.axes[1][0]


Plan = Grid | Pies | Cloud


def grid(table: Table, printed: bool, bars: bool, rng: random.Random) -> Grid:
    """A chart of a whole table. Bars begin at zero; lines where it suits them."""
    values = [value for row in table.values for value in row]
    low, high = min(values), max(values)
    from_zero = bars or rng.random() < 0.4 or low < 0.25 * high
    room = 0.06 * (high - (0 if from_zero else low))  # for what is printed above the highest
    return Grid(table, printed, tuple(ticks(low, high + room, from_zero)), bars)


def percents(parts: Sequence[float]) -> list[int]:
    """Whole per cents that sum up to 100, by largest remainder."""
    exact = [100 * part / sum(parts) for part in parts]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: 100 - sum(shares)]:
        shares[i] += 1
    return shares


def of_points(found: Points, chosen: Sequence[int]) -> Cloud:
    """A cloud of some of the points, told by their groups."""
    points = tuple((found.xs[i], found.ys[i]) for i in chosen)
    (x, x_unit), (y, y_unit) = (text.removesuffix(")").split(" (", 1) for text in (found.x, found.y))
    return Cloud(
        title=found.title,
        x=x,
        y=y,
        units=(x_unit, y_unit),
        points=points,
        names=(),
        index="point",
        groups=tuple(found.groups[i] for i in chosen),
        group=found.group,
        printed=False,
        decimals=1,
        source=found.name,
        axes=_axes(points),
    )


def of_table(table: Table, printed: bool) -> Cloud:
    """A cloud of a table's rows, by its first two columns."""
    points = tuple((row[0], row[1]) for row in table.values)
    return Cloud(
        title=table.title,
        x=table.column(0),
        y=table.column(1),
        units=(table.unit, table.unit),
        points=points,
        names=table.rows,
        index=table.index,
        groups=(),
        group="",
        printed=printed,
        decimals=table.decimals,
        source=table.name,
        axes=_axes(points),
    )


def _axes(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = []
    for values in zip(*points, strict=True):
        low, high = min(values), max(values)
        room = 0.05 * (high - low)
        # an amount has no values below nothing
        found.append(tuple(ticks(max(0.0, low - room) if low >= 0 else low - room, high + room, False)))
    return found[0], found[1]
