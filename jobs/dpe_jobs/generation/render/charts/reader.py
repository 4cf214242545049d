"""Reads a chart from its display list, as a person reads the picture: a bar is measured against the labels of the axis,
a colour looked up in the legend, a part of a pie by its area. It shares no code with the drawing.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpe_jobs.generation.render.scene import Mark, Scene

_AGREE = 0.012  # of the axis: how far what is printed may be from what is measured
_AGREE_SHARE = 0.7  # per cent of a pie
_CLEAR = 0.4  # of a correlation
_CLOSE, _FAR = 0.02, 0.06  # of the axis: the right option, and the next one
_NUMBER = re.compile(r"-?[\d,]*\.?\d+")


@dataclass(frozen=True, slots=True)
class Read:
    """One mark, understood."""

    row: str
    column: str
    value: float
    across: float = 0.0
    """Of a point: its place on the horizontal axis."""


def _number(text: str) -> float:
    found = _NUMBER.findall(text)
    if not found:
        raise ValueError(f"{text!r} is no number")
    return float(found[-1].replace(",", ""))


class _Axis:
    """From pixels to values, by the labels beside the ticks."""

    def __init__(self, scene: Scene, name: str) -> None:
        place = 0 if name == "x" else 1
        ticks = [mark.points[0][place] for mark in scene.all(f"{name} tick")]
        texts = scene.all(f"{name} tick text")
        if len(ticks) < 2:
            raise ValueError(f"the {name} axis has no ticks")
        # each label belongs to the nearest tick
        values = [_number(min(texts, key=lambda t: abs(t.center[place] - tick)).text) for tick in ticks]
        self._scale, self._zero = np.polyfit(ticks, values, 1)
        if np.abs(self._scale * np.array(ticks) + self._zero - values).max() > 1e-3 * (max(values) - min(values)):
            raise ValueError(f"the labels of the {name} axis are not evenly spaced")
        self.span = max(values) - min(values)
        self.low = min(values)

    def __call__(self, pixel: float) -> float:
        return float(self._scale * pixel + self._zero)


def _distance(one: Mark, other: Mark) -> float:
    return math.dist(one.center, other.center)


def _columns(scene: Scene) -> dict[str, str]:
    """Names by colour, from the legend."""
    keys, texts = scene.all("key"), scene.all("key text")

    def beside(key: Mark, text: Mark) -> float:
        """From the key's right side to the text's left one."""
        return math.dist((key.box[2], key.center[1]), (text.box[0], text.center[1]))

    return {key.color: min(texts, key=lambda text: beside(key, text)).text for key in keys}


def _printed(marks: Sequence[Mark], texts: Sequence[Mark]) -> dict[int, str]:
    """The text beside each mark, by the mark's place; each text belongs to the mark that is nearest to its middle."""
    found: dict[int, str] = {}
    for text in texts:
        nearest = min(range(len(marks)), key=lambda i: _distance(marks[i], text))
        if nearest in found:
            raise ValueError(f"{found[nearest]!r} and {text.text!r} stand beside the same mark")
        found[nearest] = text.text
    return found


def _ends(marks: Sequence[Mark], flat: bool) -> list[Mark]:
    """The end of each bar where its value stands, as a mark of no size."""
    ends = []
    for mark in marks:
        left, top, right, bottom = mark.box
        point = (right + 12, (top + bottom) / 2) if flat else ((left + right) / 2, top - 10)
        ends.append(Mark("line", "end", (point, point), mark.color))
    return ends


def _grid(scene: Scene) -> list[Read]:
    """Bars, or the points of lines."""
    marks, rows, columns = scene.all("mark"), scene.all("row"), _columns(scene)
    flat = not scene.all("y tick")
    axis = _Axis(scene, "x" if flat else "y")
    bars = marks[0].kind == "rect"
    texts = _printed(_ends(marks, flat) if bars else marks, scene.all("value"))
    found = []
    for number, mark in enumerate(marks):
        _, top, right, _ = mark.box
        end = right if flat else top if bars else mark.center[1]
        value = axis(end)
        if number in texts:
            value = _check(_number(texts[number]), value, _AGREE * axis.span, texts[number])
        place = 1 if flat else 0
        row = min(rows, key=lambda r: abs(r.center[place] - mark.center[place])).text
        found.append(Read(row, columns.get(mark.color, ""), value))
    if texts and len(texts) < len(marks):
        raise ValueError("some values are printed and some are not")
    return found


def _check(printed: float, measured: float, least: float, text: str) -> float:
    if abs(printed - measured) > least:
        raise ValueError(f"{text!r} is printed where {measured:.4g} is drawn")
    return printed


def _area(mark: Mark) -> float:
    x, y = np.array(mark.points).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _pies(scene: Scene) -> list[Read]:
    marks, names, columns = scene.all("mark"), scene.all("pie"), _columns(scene)
    # wedges of one pie touch at its middle, their first or last vertex
    pies: dict[str, list[Mark]] = {}
    for mark in marks:
        row = min(names, key=lambda n: abs(n.center[0] - _tip(mark)[0])).text if names else ""
        pies.setdefault(row, []).append(mark)
    texts = _printed([_rim(mark) for mark in marks], scene.all("value"))
    found = []
    for row, wedges in pies.items():
        total = sum(_area(wedge) for wedge in wedges)
        for wedge in wedges:
            value = 100 * _area(wedge) / total
            if text := texts.get(marks.index(wedge)):
                value = _check(_number(text), value, _AGREE_SHARE, text)
            found.append(Read(row, columns[wedge.color], value))
    return found


def _tip(wedge: Mark) -> tuple[float, float]:
    """The pie's middle: where two straight sides meet. All other vertices are as far from it as the rim is."""
    points = np.array(wedge.points)
    spread = [np.ptp(np.sort(np.linalg.norm(points - p, axis=1))[2:]) for p in points]
    x, y = points[int(np.argmin(spread))]
    return float(x), float(y)


def _rim(wedge: Mark) -> Mark:
    """The middle of a wedge's rim."""
    tip = np.array(_tip(wedge))
    away = np.array(wedge.points) - tip
    rim = away[np.linalg.norm(away, axis=1) > 0.5 * np.linalg.norm(away, axis=1).max()]
    middle = rim[len(rim) // 2]
    point = (float(tip[0] + middle[0]), float(tip[1] + middle[1]))
    return Mark("line", "rim", (point, point), wedge.color)


def _cloud(scene: Scene) -> list[Read]:
    marks, columns = scene.all("mark"), _columns(scene)
    across, up = _Axis(scene, "x"), _Axis(scene, "y")
    texts = _printed(marks, scene.all("value"))
    found = []
    for number, mark in enumerate(marks):
        x, y = mark.center
        name, _, printed = texts.get(number, "").partition(": ")
        value = up(y)
        if printed:
            value = _check(_number(printed), value, _AGREE * up.span, printed)
        found.append(Read(name, columns.get(mark.color, ""), value, across(x)))
    return found


def solve(scene: Scene, question: str, choices: Sequence[str]) -> str:
    """The answer. ValueError: another question, a name that is not in the picture, or one that contradicts itself."""
    if scene.all("mark") and scene.all("mark")[0].kind == "polygon":
        return _answer(_pies(scene), scene, question, choices, 100.0)
    if scene.all("row"):
        axis = _Axis(scene, "y" if scene.all("y tick") else "x")
        return _answer(_grid(scene), scene, question, choices, axis.span)
    return _answer(_cloud(scene), scene, question, choices, _Axis(scene, "y").span)


def _named(question: str, names: Sequence[str]) -> list[str]:
    """Names in a question, in their order; the longer one where one is part of another."""
    names = sorted({name for name in names if name}, key=lambda name: (-len(name), name))
    if not names:
        return []
    return re.findall("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names), question)


def _cells(reads: Sequence[Read], question: str, wanted: int) -> list[Read]:
    """The cells that a question names, in its order: names of rows and of columns, one of each for every cell."""
    rows, columns = (_named(question, [getattr(r, what) for r in reads]) for what in ("row", "column"))
    rows, columns = (found * wanted if len(found) == 1 else found or [""] * wanted for found in (rows, columns))
    if len(rows) != wanted or len(columns) != wanted:
        raise ValueError(f"{question!r} names {rows} and {columns}, not {wanted} of the values")
    cells = []
    for row, column in zip(rows, columns, strict=True):
        fitting = [r for r in reads if row in ("", r.row) and column in ("", r.column)]
        if len(fitting) != 1:
            raise ValueError(f"{question!r}: {len(fitting)} marks are called {row} {column}")
        cells.append(fitting[0])
    return cells


def _answer(reads: list[Read], scene: Scene, question: str, choices: Sequence[str], span: float) -> str:
    text = question
    if re.match(r"(What is the number of|How many) (parts|.+ does the (chart|plot))|Into how many", text):
        return str(len({r.column for r in reads}))
    if match := re.search(r" above (-?[\d,.]*\d)", text):
        return _above(reads, text, float(match[1].replace(",", "")))
    if text.startswith("How many points belong to"):
        (name,) = _named(text, [r.column for r in reads])
        return str(sum(r.column == name for r in reads))
    if "tend to rise or fall" in text:
        return _tendency(reads)
    if text.startswith("From "):
        return _change(reads, text)
    if text.startswith("In how many"):
        values = [r.value for r in _series(reads, text)]
        return str(sum(b > a for a, b in itertools.pairwise(values)))
    if re.search(r"\b(highest|lowest|largest|smallest)\b", text) and text.startswith("Which"):
        return _extremum(reads, scene, text)
    if text.startswith("Which value is closest"):
        return _closest(_cells(reads, text, 1)[0].value, choices, span)
    if text.startswith("Is "):
        one, other = _cells(reads, text, 2)
        return "yes" if one.value > other.value else "no"
    if text.startswith("By how"):
        one, other = _cells(reads, text, 2)
        return f"{one.value - other.value:.6g}"
    return f"{_cells(reads, text, 1)[0].value:.10g}"


def _series(reads: Sequence[Read], question: str) -> list[Read]:
    """The marks of the one column that a question names, or of the only one."""
    named = _named(question, [r.column for r in reads])
    columns = {r.column for r in reads}
    if len(columns) > 1 and len(named) != 1:
        raise ValueError(f"{question!r} names {named}, not one series")
    return [r for r in reads if len(columns) == 1 or r.column == named[0]]


def _above(reads: list[Read], question: str, bound: float) -> str:
    # a pie's parts are its columns, a cloud's points are not told apart
    rows = _named(question, [r.row for r in reads])
    if question.startswith("For how many"):
        reads = _series(reads, question)
    elif rows:
        reads = [r for r in reads if r.row == rows[0]]
    elif len({r.row for r in reads}) > 1 and "share" in question:
        raise ValueError(f"{question!r} does not say which pie")
    return str(sum(r.value > bound for r in reads))


def _tendency(reads: list[Read]) -> str:
    xs, ys = np.array([r.across for r in reads]), np.array([r.value for r in reads])
    slope = np.corrcoef(xs, ys)[0, 1]
    if abs(slope) < _CLEAR:
        raise ValueError("there is no clear tendency")
    return "rise" if slope > 0 else "fall"


def _change(reads: list[Read], question: str) -> str:
    found = re.match(r"From (.+) to (.+), did", question)
    if not found:
        raise ValueError(f"{question!r} does not say from when to when")
    before, after = (
        _cells([r for r in reads if r.row == when], question[found.end() :], 1)[0] for when in found.groups()
    )
    return "rise" if after.value > before.value else "fall"


def _extremum(reads: list[Read], scene: Scene, question: str) -> str:
    highest = bool(re.search(r"\b(highest|largest)\b", question))
    titles = [mark.text.rsplit(" (", 1)[0] for mark in scene.all("axis title")]
    if not scene.all("row") and not scene.all("pie") and len(titles) == 2:  # a cloud: which of its axes?
        across = titles[0] in question and titles[1] not in question
        best = (max if highest else min)(reads, key=lambda r: r.across if across else r.value)
        return best.row
    rows = _named(question, [r.row for r in reads])
    if rows or not any(r.row for r in reads):
        reads = [r for r in reads if not rows or r.row == rows[0]]
        return (max if highest else min)(reads, key=lambda r: r.value).column
    return (max if highest else min)(_series(reads, question), key=lambda r: r.value).row


def _closest(value: float, choices: Sequence[str], span: float) -> str:
    order = sorted(choices, key=lambda choice: abs(_number(choice) - value))
    if abs(_number(order[0]) - value) > _CLOSE * span or abs(_number(order[1]) - value) < _FAR * span:
        raise ValueError(f"{value:.4g} is not clearly one of {list(choices)}")
    return order[0]
