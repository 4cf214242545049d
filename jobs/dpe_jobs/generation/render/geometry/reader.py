"""Measures a figure in its display list: with a ruler that one labelled length gives, and with a protractor.

No theorem is used that the question's writer used: a hypotenuse is measured, not worked out. Every label must agree
with what is measured.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpe_jobs.generation.render.scene import Mark, Point, Scene

_PI = 3.14  # what the questions say
_AGREE = 1e-3  # relative, of lengths
_AGREE_DEGREES = 0.05
_ON_LINE = 0.02  # radians
_TERM = re.compile(r"^\(?(\d*)x(?: ([+-]) (\d+))?\)?°?$")
_LENGTH = re.compile(r"^([\d.]+)(?: (cm|mm|m|km|in|ft))?$")


@dataclass(frozen=True, slots=True)
class _Figure:
    points: dict[str, Point]
    lines: list[tuple[Point, Point]]
    discs: list[tuple[Point, float]]
    """Middles and radii, the largest first."""


def _see(scene: Scene) -> _Figure:
    dots = [mark.center for mark in scene.all("point")]
    points: dict[str, Point] = {}
    for letter in scene.all("letter"):
        nearest = min(dots, key=lambda dot: math.dist(dot, letter.center))
        if nearest in points.values():
            raise ValueError(f"{letter.text} stands beside a point that has a letter")
        points[letter.text] = nearest
    lines = [(m.points[0], m.points[1]) for m in scene.marks if m.role in ("side", "help")]
    discs = [(m.center, (m.box[2] - m.box[0]) / 2 - 1) for m in scene.all("rim")]
    return _Figure(points, lines, sorted(discs, key=lambda d: -d[1]))


def _middle(line: tuple[Point, Point]) -> Point:
    return (line[0][0] + line[1][0]) / 2, (line[0][1] + line[1][1]) / 2


def _degrees(corner: Point, one: Point, other: Point) -> float:
    """The angle at a corner, below 180."""
    a, b = (np.array(end) - np.array(corner) for end in (one, other))
    return math.degrees(math.atan2(abs(a[0] * b[1] - a[1] * b[0]), float(a @ b)))


def _arms(scene: Scene, figure: _Figure, label: Mark) -> tuple[Point, Point, Point]:
    """The corner of the arc that an angle's label stands beside, and ends of the lines where the arc ends."""
    arcs = scene.all("arc")
    if not arcs:
        raise ValueError(f"{label.text} stands beside no arc")
    ends = [end for line in figure.lines for end in line]
    found = []
    for arc in arcs:
        corner = min(ends, key=lambda end: np.ptp([math.dist(end, p) for p in arc.points]))
        # the label is seen from the corner in the middle of the arc
        way, middle = _way(corner, label.center), _way(corner, arc.points[len(arc.points) // 2])
        found.append((math.dist(corner, label.center) + 100 * abs(_turn(way - middle)), arc, corner))
    _, arc, corner = min(found, key=lambda f: f[0])
    others = [line[1] if line[0] == corner else line[0] for line in figure.lines if corner in line]

    def arm(point: Point) -> Point:
        end = min(others, key=lambda end: abs(_turn(_way(corner, end) - _way(corner, point))))
        if abs(_turn(_way(corner, end) - _way(corner, point))) > _ON_LINE:
            raise ValueError(f"the arc beside {label.text} does not end at a line")
        return end

    return corner, arm(arc.points[0]), arm(arc.points[-1])


def _way(start: Point, end: Point) -> float:
    """In radians."""
    return math.atan2(end[1] - start[1], end[0] - start[0])


def _turn(radians: float) -> float:
    """From minus to plus half a turn."""
    return (radians + math.pi) % math.tau - math.pi


def _x(text: str, measured: float) -> float:
    """The x for which a term has a value."""
    found = _TERM.match(text)
    if not found:
        raise ValueError(f"{text!r} is no term in x")
    rest = int(found[3] or 0) * (-1 if found[2] == "-" else 1)
    return (measured - rest) / int(found[1] or 1)


def _agreed(values: list[float], what: str, within: float) -> float:
    if not values:
        raise ValueError(f"nothing gives {what}")
    if max(values) - min(values) > within:
        raise ValueError(f"the labels give different {what}: {values}")
    return sum(values) / len(values)


class _Measured:
    """A figure with its scale, and x where terms give it."""

    def __init__(self, scene: Scene, question: str) -> None:
        self.figure = _see(scene)
        self._ruled = [*self.figure.lines, *((m.points[0], m.points[1]) for m in scene.all("span"))]
        lengths = [(m.text, math.dist(*self._line(m))) for m in scene.all("length")]
        scales = [float(_number(text)) / pixels for text, pixels in lengths if "x" not in text]
        units = {m[2] for text, _ in lengths if (m := _LENGTH.match(text)) and m[2]}
        units |= set(re.findall(r" is [\d.]+ (cm|mm|m|km|in|ft)\b", question))
        self.unit = units.pop() if len(units) == 1 else ""
        xs = []
        if around := re.search(r"perimeter of .+ is ([\d.]+) ", question):
            scales.append(float(around[1]) / self._perimeter())
        if area := re.search(r"area of .+ is ([\d.]+) ", question):
            scales.append(math.sqrt(float(area[1]) / self._area()))
        self.scale = _agreed(scales, "lengths", _AGREE * max(scales)) if scales else None
        for text, pixels in lengths:
            if "x" in text and self.scale is not None:
                xs.append(_x(text, pixels * self.scale))
        for label in scene.all("angle"):
            degrees = _degrees(*_arms(scene, self.figure, label))
            if "x" in label.text:
                xs.append(_x(label.text, degrees))
            elif abs(float(label.text.removesuffix("°")) - degrees) > _AGREE_DEGREES:
                raise ValueError(f"{label.text} stands in an angle of {degrees:.1f} degrees")
        self.xs = xs

    def _line(self, label: Mark) -> tuple[Point, Point]:
        """The line whose middle is nearest to a length's label."""
        return min(self._ruled, key=lambda line: math.dist(_middle(line), label.center))

    def _corners(self) -> NDArray[np.float64]:
        """Letters A to D, in their order: the first ones that are corners of the figure."""
        named = sorted((n for n in self.figure.points if n not in "OMH"), key=str)
        return np.array([self.figure.points[n] for n in named])

    def _perimeter(self) -> float:
        corners = self._corners()
        return float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum())

    def _area(self) -> float:
        x, y = self._corners().T
        return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)  # Meister 1769

    def length(self, pixels: float) -> str:
        """In the figure's unit."""
        return f"{self._scaled(pixels):.6g} {self.unit}"

    def _scaled(self, pixels: float) -> float:
        if self.scale is None:
            raise ValueError("no length is labelled")
        # labels are whole or half units
        value = pixels * self.scale
        return round(value * 2) / 2 if abs(value * 2 - round(value * 2)) < 0.02 else value

    def points(self, letters: str) -> list[Point]:
        """Of points named in a question."""
        missing = [letter for letter in letters if letter not in self.figure.points]
        if missing:
            raise ValueError(f"there is no point {missing[0]}")
        return [self.figure.points[letter] for letter in letters]

    def radii(self) -> list[float]:
        """In the figure's unit, the largest first."""
        return [self._scaled(radius) for _, radius in self.figure.discs]

    def area(self) -> float:
        """Of the polygon, in the figure's unit."""
        if self.scale is None:
            raise ValueError("no length is labelled")
        return round(self._area() * self.scale**2 * 2) / 2

    def perimeter(self) -> float:
        """Of the polygon, in the figure's unit."""
        return self._scaled(self._perimeter())


def _number(text: str) -> str:
    found = _LENGTH.match(text)
    if not found:
        raise ValueError(f"{text!r} is no length")
    return found[1]


def solve(scene: Scene, question: str) -> str:
    """The answer. ValueError: another question, or labels that contradict the figure."""
    seen = _Measured(scene, question)
    if "value of x" in question:
        return f"{_agreed(seen.xs, 'x', 0.1):.0f}"
    if angle := re.search(r"size of the angle ([A-Z])([A-Z])([A-Z])", question):
        one, corner, other = seen.points(angle[1] + angle[2] + angle[3])
        degrees = _degrees(corner, one, other)
        if abs(degrees - round(degrees)) > _AGREE_DEGREES:
            raise ValueError(f"the angle has {degrees:.2f} degrees")
        return f"{round(degrees)}°"
    if side := re.search(r"How long is (?:the side )?([A-Z])([A-Z])\b", question):
        return seen.length(math.dist(*seen.points(side[1] + side[2])))
    if "radius" in question:
        return f"{seen.radii()[0]:g} {seen.unit}"
    if re.search(r"what is the circumference", question, re.IGNORECASE):
        return f"{round(2 * _PI * seen.radii()[0], 2):g} {seen.unit}"
    if "What is the diameter" in question:
        return f"{2 * seen.radii()[0]:g} {seen.unit}"
    if "area of the circle" in question:
        return f"{round(_PI * seen.radii()[0] ** 2, 2):g} {seen.unit}²"
    if "area of the ring" in question:
        outer, inner = seen.radii()
        return f"{round(_PI * (outer**2 - inner**2), 2):g} {seen.unit}²"
    if "What is the perimeter" in question:
        return f"{seen.perimeter():g} {seen.unit}"
    if "What is the area" in question:
        return f"{seen.area():g} {seen.unit}²"
    raise ValueError(f"{question!r} is no question about a figure")
