"""Bars, lines, pies and scatter plots, with labels where nothing is covered."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from dpe_jobs.generation.render.charts.axis import label, touches
from dpe_jobs.generation.render.charts.figure import INK, Sheet, Style
from dpe_jobs.generation.render.charts.plan import Cloud, Grid, Pies, Plan, Unsuitable
from dpe_jobs.generation.render.pen import text_size
from dpe_jobs.generation.render.scene import Box, Point, Scene
from dpe_jobs.generation.render.tabular import Table

_EDGE = 12.0  # pixels between the picture's edge and what is next to it
_SWATCH = 12.0  # pixels
_SMALL = 11.0  # pixels of the em: values beside marks
_DOT = 8.0  # pixels: a point's diameter
_GRID = "#d9d9d9"
_INK_SHARE = 0.5  # of a colour's brightness


def draw(plan: Plan, style: Style) -> tuple[Image.Image, Scene]:
    """Picture and display list. Unsuitable: draw another part of the table, or larger."""
    sheet = Sheet(style)
    match plan:
        case Pies():
            _pies(sheet, plan)
        case Cloud():
            _cloud(sheet, plan)
        case Grid():
            _grid(sheet, plan)
    return sheet.finish()


def _width(text: str, size: float) -> float:
    # DejaVu Serif is somewhat wider than the sans
    return text_size(text, size)[0] * 1.06


def _head(sheet: Sheet, title: str, legend: Sequence[str]) -> float:
    """Title and legend; returns the height in pixels that they take."""
    style = sheet.style
    if _width(title, style.text + 3) > style.width - 2 * _EDGE:
        raise Unsuitable
    sheet.text((style.width / 2, _EDGE + 9), title, "title", size=style.text + 3, fontweight="bold")
    top = _EDGE + 26.0
    if len(legend) < 2:
        return top + 4
    lines: list[list[tuple[int, float]]] = [[]]
    for number, name in enumerate(legend):
        width = _SWATCH + 5 + _width(name, style.text) + 16
        if sum(w for _, w in lines[-1]) + width > style.width - 2 * _EDGE:
            lines.append([])
        lines[-1].append((number, width))
    for line in lines:
        x = (style.width - sum(w for _, w in line)) / 2
        for number, width in line:
            sheet.swatch((x, top + 2, x + _SWATCH, top + 2 + _SWATCH), style.palette[number], "key")
            sheet.text((x + _SWATCH + 5, top + 8), legend[number], "key text", ha="left")
            x += width
        top += 20
    return top + 6


def _frame(sheet: Sheet, top: float, left_labels: Sequence[str], titles: tuple[str, str], last_label: str = "") -> Box:
    """The box of the plot, beside the labels and titles of its axes; and the titles.

    `last_label` is that at the right end of the horizontal axis: half of it needs room beyond.
    """
    style = sheet.style
    beyond = max(_EDGE + 8, _width(last_label, style.text) / 2 + 4)
    left = _EDGE + 10 + max(_width(text, style.text) for text in left_labels) + (18 if titles[1] else 0)
    box = (left, top, style.width - beyond, style.height - 36 - (18 if titles[0] else 0))
    if titles[1] and _width(titles[1], style.text) > box[3] - box[1] + 20:
        raise Unsuitable
    if titles[0]:
        sheet.text(((box[0] + box[2]) / 2, style.height - _EDGE - 5), titles[0], "axis title")
    if titles[1]:
        middle = (box[1] + box[3]) / 2
        sheet.text((_EDGE + 5, middle), titles[1], "axis title", rotation=90, rotation_mode="default")
    return box


def _values_axis(sheet: Sheet, axes: Any, box: Box, ticks: Sequence[float], ends: tuple[float, float], at: str) -> None:
    """Ticks, labels and grid lines of values: `at` is "left" or "bottom"."""
    style, left = sheet.style, at == "left"
    side = axes.get_yaxis_transform() if left else axes.get_xaxis_transform()
    for value in ticks:
        share = (value - ends[0]) / (ends[1] - ends[0])
        here, out, across = [value, value], [0, -0.01], [0, 1]
        tick = Line2D(*((out, here) if left else (here, out)), color=INK, lw=0.8, clip_on=False, transform=side)
        axes.add_artist(tick)
        if left:
            y = box[3] - share * (box[3] - box[1])
            sheet.text((box[0] - 8, y), label(value), "y tick text", ha="right", va="center_baseline")
        else:
            x = box[0] + share * (box[2] - box[0])
            sheet.text((x, box[3] + 16), label(value), "x tick text")
        sheet.keep("line", "y tick" if left else "x tick", tick)
        if style.grid:
            xs, ys = (across, here) if left else (here, across)
            axes.add_artist(Line2D(xs, ys, color=_GRID, lw=0.8, zorder=0.5, transform=side))


def _bare(axes: Any, style: Style) -> None:
    """No ticks of matplotlib's own: ours are texts and lines of the display list."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right"):
        axes.spines[side].set_visible(not style.grid)


def _grid(sheet: Sheet, plan: Grid) -> None:
    table, style = plan.table, sheet.style
    legend = table.columns if len(table.columns) > 1 else ()
    title = table.title if legend or table.columns[0] in table.title else f"{table.title}: {table.columns[0]}"
    top = _head(sheet, title, legend)
    if plan.horizontal:
        _flat_bars(sheet, plan, top)
        return
    box = _frame(sheet, top, [label(v) for v in plan.axis], ("", table.unit))
    slot = (box[2] - box[0]) / len(table.rows)
    if max(_width(row, style.text) for row in table.rows) > slot - 4:
        raise Unsuitable
    bars = plan.bars
    upright = bars and max(_width(table.shown(v), _SMALL) for row in table.values for v in row) + 2 > slot * 0.76 / len(
        table.columns
    )
    above = 46.0 if plan.printed and upright else 14.0 if plan.printed else 0.0  # pixels for what stands on a bar
    high = plan.axis[-1] + plan.span * above / (box[3] - box[1])
    ends = (plan.axis[0], high)
    spots = [] if bars else _beside_lines(table, plan.printed, box, ends)
    axes = sheet.axes(box)
    _bare(axes, style)
    axes.set_xlim(-0.5, len(table.rows) - 0.5)
    axes.set_ylim(*ends)
    _values_axis(sheet, axes, box, plan.axis, ends, "left")
    for number, row in enumerate(table.rows):
        sheet.text((box[0] + slot * (number + 0.5), box[3] + 14), row, "row")
    if bars:
        _bars(sheet, axes, plan, box, high, upright)
    else:
        _lines(sheet, axes, plan)
        inks = [_dark(style.palette[c]) for c in range(len(table.columns)) for _ in table.rows]
        _print(sheet, spots, inks if spots else [])


def _beside_lines(table: Table, printed: bool, box: Box, ends: tuple[float, float]) -> list[tuple[Point, str]]:
    """Where the values of lines are printed. Unsuitable: points lie on each other, or there is no room."""
    places, texts = [], []
    for column in range(len(table.columns)):
        values = [row[column] for row in table.values]
        heights = [(value - ends[0]) / (ends[1] - ends[0]) for value in values]
        places.append([_place(box, (i + 0.5) / len(values), height) for i, height in enumerate(heights)])
        texts.append([table.shown(value) if printed else "" for value in values])
    return [spot for spot in _spots(places, texts, box) if spot[1]]


def _bars(sheet: Sheet, axes: Any, plan: Grid, box: Box, high: float, upright: bool) -> None:
    table, style = plan.table, sheet.style
    wide = 0.76 / len(table.columns)
    for column in range(len(table.columns)):
        for row in range(len(table.rows)):
            x = row - 0.38 + wide * (column + 0.5)
            value = table.values[row][column]
            (bar,) = axes.bar(x, value, wide * 0.94, color=style.palette[column], linewidth=0)
            sheet.keep("patch", "mark", bar)
            if plan.printed:
                at = _place(box, (x + 0.5) / len(table.rows), (value - plan.axis[0]) / (high - plan.axis[0]))
                turn: dict[str, Any] = {"rotation": 90} if upright else {}
                sheet.text((at[0], at[1] - 3), table.shown(value), "value", size=_SMALL, va="bottom", **turn)


def _flat_bars(sheet: Sheet, plan: Grid, top: float) -> None:
    table, style = plan.table, sheet.style
    box = _frame(sheet, top, table.rows, (table.unit, ""), label(plan.axis[-1]))
    slot = (box[3] - box[1]) / len(table.rows)
    if slot * 0.76 / len(table.columns) < _SMALL + 2:
        raise Unsuitable
    axes = sheet.axes(box)
    _bare(axes, style)
    beside = max(_width(table.shown(v), _SMALL) for row in table.values for v in row) + 6 if plan.printed else 0
    high = plan.axis[-1] + plan.span * beside / (box[2] - box[0])
    axes.set_xlim(plan.axis[0], high)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    _values_axis(sheet, axes, box, plan.axis, (plan.axis[0], high), "bottom")
    wide = 0.76 / len(table.columns)
    for row, name in enumerate(table.rows):
        sheet.text((box[0] - 8, box[1] + slot * (row + 0.5)), name, "row", ha="right")
        for column in range(len(table.columns)):
            y, value = row - 0.38 + wide * (column + 0.5), table.values[row][column]
            (bar,) = axes.barh(y, value, wide * 0.94, color=style.palette[column], linewidth=0)
            sheet.keep("patch", "mark", bar)
            if plan.printed:
                share = (value - plan.axis[0]) / (high - plan.axis[0])
                at = box[0] + share * (box[2] - box[0]) + 4, box[1] + (y + 0.5) * slot
                sheet.text(at, table.shown(value), "value", size=_SMALL, ha="left")


def _place(box: Box, x: float, y: float) -> Point:
    """The pixel at shares of a box, from its left lower corner."""
    return box[0] + x * (box[2] - box[0]), box[3] - y * (box[3] - box[1])


def _lines(sheet: Sheet, axes: Any, plan: Grid) -> None:
    table, style = plan.table, sheet.style
    rows = range(len(table.rows))
    for column in range(len(table.columns)):
        values = [row[column] for row in table.values]
        line = Line2D(rows, values, color=style.palette[column], lw=2, zorder=3)
        _dots(sheet, axes, rows, values, 6.5, style.palette[column])
        axes.add_artist(line)
        sheet.keep("line", "series", line)


def _dots(sheet: Sheet, axes: Any, xs: Sequence[float], ys: Sequence[float], size: float, color: str) -> None:
    """Points, `size` pixels wide."""
    dots = Line2D(xs, ys, marker="o", ls="", ms=size * 0.72, color=color, mew=0, zorder=4)  # 72 points are 100 pixels
    axes.add_artist(dots)
    sheet.keep("dots", "mark", dots)


def _spots(places: Sequence[Sequence[Point]], texts: Sequence[Sequence[str]], box: Box) -> list[tuple[Point, str]]:
    """A place for a text beside every point, nearer to it than to any other. Unsuitable: there is none for one."""
    dots = [point for series in places for point in series]
    if any(math.dist(a, b) < _DOT + 2 for i, a in enumerate(dots) for b in dots[:i]):
        raise Unsuitable
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    spots = []
    for series, words in zip(places, texts, strict=True):
        for at, text in zip(series, words, strict=True):
            width, height = _width(text, _SMALL) + 2, _SMALL + 3
            for dx, dy in ((0, -1), (0, 1), (1, 0), (-1, 0), (0.8, -0.8), (-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)):
                x, y = at[0] + dx * (width / 2 + 6), at[1] + dy * (height / 2 + 6)
                spot = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                mine = math.dist(at, (x, y))
                others = [math.dist(dot, (x, y)) for dot in dots if dot != at]
                inside = spot[0] > box[0] + 4 and spot[2] < box[2] - 4 and spot[1] > box[1] + 3 and spot[3] < box[3] - 4
                if not text:
                    break  # nothing to print: only the points must not hide each other
                if inside and not touches(spot, taken) and all(other > 1.25 * mine + 3 for other in others):
                    break
            else:
                raise Unsuitable
            if text:
                taken.append(spot)
            spots.append(((x, y), text))
    return spots


def _print(sheet: Sheet, spots: Sequence[tuple[Point, str]], inks: Sequence[str]) -> None:
    back = {"facecolor": sheet.style.plot, "edgecolor": "none", "pad": 0.4}
    for (at, text), ink in zip(spots, inks, strict=True):
        sheet.text(at, text, "value", size=_SMALL, zorder=5, bbox=back, color=ink)


def _dark(color: str) -> str:
    """A colour as ink: its hue, dark enough to be read on a light ground."""
    return to_hex(np.array(to_rgb(color)) * _INK_SHARE)


def _cloud(sheet: Sheet, plan: Cloud) -> None:
    style = sheet.style
    names = tuple(sorted(set(plan.groups)))
    top = _head(sheet, plan.title, names)
    titles = tuple(f"{what} ({unit})" for what, unit in zip((plan.x, plan.y), plan.units, strict=True))
    across, up = plan.axes
    box = _frame(sheet, top, [label(v) for v in up], (titles[0], titles[1]), label(across[-1]))
    places = [
        _place(box, (x - across[0]) / (across[-1] - across[0]), (y - up[0]) / (up[-1] - up[0])) for x, y in plan.points
    ]
    texts = [
        f"{name}: {y:,.{plan.decimals}f}" if plan.printed else name
        for name, (_, y) in zip(plan.names, plan.points, strict=False)
    ]
    spots = [spot for spot in _spots([places], [texts or [""] * len(places)], box) if spot[1]]
    axes = sheet.axes(box)
    _bare(axes, style)
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(up[0], up[-1])
    _values_axis(sheet, axes, box, across, (across[0], across[-1]), "bottom")
    _values_axis(sheet, axes, box, up, (up[0], up[-1]), "left")
    for number, name in enumerate(names or ("",)):
        chosen = [p for i, p in enumerate(plan.points) if not names or plan.groups[i] == name]
        _dots(sheet, axes, [x for x, _ in chosen], [y for _, y in chosen], _DOT, style.palette[number])
    _print(sheet, spots, [INK] * len(spots))


def _pies(sheet: Sheet, plan: Pies) -> None:
    table, style = plan.table, sheet.style
    top = _head(sheet, table.title, table.columns)
    count = len(table.rows)
    width = style.width / count
    for number, name in enumerate(table.rows):
        middle = width * (number + 0.5)
        under = top + (18 if count > 1 else 0)
        beside, above = (34, 22) if plan.printed else (12, 4)  # pixels for what is printed around the rim
        half = min(width / 2 - beside, (style.height - under - _EDGE) / 2 - above)
        center = (middle, under + (style.height - under - _EDGE) / 2)
        if count > 1:
            sheet.text((middle, center[1] - half - above - 8), name, "pie", fontweight="bold")
        axes = sheet.axes((center[0] - half, center[1] - half, center[0] + half, center[1] + half), framed=False)
        wedges, _ = axes.pie(
            table.values[number],
            colors=style.palette[: len(table.columns)],
            startangle=90,
            counterclock=False,
            radius=1.0,
            wedgeprops={"linewidth": 1.2, "edgecolor": style.ground},
        )
        axes.set_xlim(-1.02, 1.02)
        axes.set_ylim(-1.02, 1.02)
        for wedge in wedges:
            sheet.keep("patch", "mark", wedge)
        if plan.printed:
            _shares(sheet, table.values[number], center, half)


def _shares(sheet: Sheet, shares: Sequence[float], center: Point, radius: float) -> None:
    """Each part's per cent, outside its rim: inside, some colours would hide it."""
    before = 0.0
    for share in shares:
        angle = math.tau * (before + share / 2) / 100
        before += share
        reach = radius + 12 + 6 * abs(math.sin(angle))
        at = center[0] + reach * math.sin(angle), center[1] - reach * math.cos(angle)
        sheet.text(at, f"{share:.0f}%", "value", size=_SMALL + 1)
