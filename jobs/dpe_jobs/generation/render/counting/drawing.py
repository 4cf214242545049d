"""Things: what they look like, and where they lie so that each can still be told."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dpe_jobs.generation.render.grounds import ground
from dpe_jobs.generation.render.pen import Pen
from dpe_jobs.generation.render.scene import Box, Point, Scene

COLORS = {
    "red": (212, 44, 44),
    "orange": (243, 140, 34),
    "yellow": (246, 214, 60),
    "green": (52, 158, 74),
    "blue": (46, 98, 206),
    "purple": (134, 66, 176),
}
RADII = {"small": (14.0, 16.0), "large": (27.0, 31.0)}  # pixels: nobody takes one for the other
MARGIN = 4.0  # pixels between things that do not touch, and to the edge
_COARSE = 2  # pixels a side of a cell of the map of who covers what
_TRIES = 60
# Share of a thing that may be hidden by all that lie on it, and that the next thing should hide of an earlier one
HIDDEN = {"none": (0.0, 0.0), "some": (0.12, 0.3), "heavy": (0.35, 0.55)}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object, lying somewhere."""

    kind: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    turn: float
    """Radians."""


def _around(thing: Thing, points: list[tuple[float, float]]) -> list[Point]:
    """Points given in radii from the middle, turned."""
    c, s = math.cos(thing.turn), math.sin(thing.turn)
    r = thing.radius
    return [(thing.x + r * (c * x - s * y), thing.y + r * (s * x + c * y)) for x, y in points]


_STAR = [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate((1.0, 0.45) * 5)]
_HEART = [
    (0.94 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
    for t in (i * math.tau / 36 for i in range(36))
]
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "ball": [(0.95 * math.cos(i * math.tau / 32), 0.95 * math.sin(i * math.tau / 32)) for i in range(32)],
    "box": [(-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)],
    "star": _STAR,
    "cone": [(0, -1), (0.85, 0.8), (-0.85, 0.8)],
    "heart": _HEART,
    "bottle": [(-0.2, -1), (0.2, -1), (0.2, -0.5), (0.48, -0.15), (0.48, 1), (-0.48, 1), (-0.48, -0.15), (-0.2, -0.5)],
}
KINDS = tuple(OUTLINES)
_FREE = {"ball", "star"}
"""Kinds that may be turned any way; the others stand a little askew."""


def strew(count: int, occlusion: str, width: int, height: int, rng: random.Random) -> tuple[list[Thing], float]:
    """Things in the order in which they are painted, and how much of the most hidden one others cover, from 0 to 1."""
    kinds = rng.sample(KINDS, min(len(KINDS), rng.randint(2, 4)))
    colors = rng.sample(list(COLORS), min(len(COLORS), rng.randint(2, 4)))
    things: list[Thing] = []
    cover = _Cover(width, height)
    for _ in range(count):
        kind, color, size = rng.choice(kinds), rng.choice(colors), rng.choice(list(RADII))
        radius = rng.uniform(*RADII[size])
        turn = rng.uniform(0, math.tau) if kind in _FREE else rng.uniform(-0.3, 0.3)
        # every second thing lies on an earlier one
        onto = occlusion != "none" and len(things) % 2 == 1
        thing = _place(Thing(kind, color, size, 0, 0, radius, turn), things, onto, occlusion, cover, rng)
        if thing is not None:
            things.append(thing)
            cover.add(thing)
    return things, cover.most_hidden()


def _place(
    thing: Thing, things: list[Thing], onto: bool, occlusion: str, cover: "_Cover", rng: random.Random
) -> Thing | None:
    """The thing where it may lie; None when there is no room."""
    least, most = HIDDEN[occlusion]
    for attempt in range(_TRIES):
        if onto and attempt < _TRIES // 2:
            under = rng.choice(things)
            angle, reach = rng.uniform(0, math.tau), rng.uniform(0.4, 1.0) * (under.radius + thing.radius)
            at = under.x + reach * math.cos(angle), under.y + reach * math.sin(angle)
        else:
            at = rng.uniform(0, cover.width), rng.uniform(0, cover.height)
        moved = Thing(thing.kind, thing.color, thing.size, *at, thing.radius, thing.turn)
        edge = moved.radius + MARGIN
        if not (edge <= moved.x <= cover.width - edge and edge <= moved.y <= cover.height - edge):
            continue
        if onto and attempt < _TRIES // 2:
            hidden = cover.hidden_by(moved)
            if least <= hidden.max() <= most:
                return moved
        elif all(math.hypot(moved.x - t.x, moved.y - t.y) >= moved.radius + t.radius + MARGIN for t in things):
            return moved
    return None


class _Cover:
    """Which thing is on top where, on a coarse map."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._top: NDArray[np.uint8] = np.zeros((height // _COARSE, width // _COARSE), dtype=np.uint8)
        self._areas: list[int] = [0]

    def _mask(self, thing: Thing) -> NDArray[np.bool_]:
        canvas = Image.new("1", (self._top.shape[1], self._top.shape[0]))
        points = [(x / _COARSE, y / _COARSE) for x, y in _around(thing, OUTLINES[thing.kind])]
        ImageDraw.Draw(canvas).polygon(points, fill=1)
        return np.asarray(canvas)

    def hidden_by(self, thing: Thing) -> NDArray[np.float64]:
        """Share of each thing that would be hidden if this one were put on top."""
        left = np.bincount(self._top[~self._mask(thing)], minlength=len(self._areas))[1:]
        shares: NDArray[np.float64] = 1 - left / np.array(self._areas[1:])
        return shares

    def most_hidden(self) -> float:
        """Share of the most hidden thing."""
        left = np.bincount(self._top.ravel(), minlength=len(self._areas))[1:]
        return float((1 - left / np.array(self._areas[1:])).max())

    def add(self, thing: Thing) -> None:
        mask = self._mask(thing)
        self._top[mask] = len(self._areas)
        self._areas.append(int(mask.sum()))


def paint(things: list[Thing], table: str, width: int, height: int, rng: random.Random) -> tuple[Image.Image, Scene]:
    """The picture. An object's body is painted first, then its edge and what else belongs to it."""
    pen = Pen(ground(table, rng), width, height)
    for thing in things:
        color = [min(255, max(0, v + rng.randint(-8, 8))) for v in COLORS[thing.color]]
        points = _around(thing, OUTLINES[thing.kind])
        pen.polygon(points, _hex(color), "object")
        pen.line([*points, points[0], points[1]], _hex([v * 0.55 for v in color]), 1.6, "edge")
        _DETAILS.get(thing.kind, _none)(pen, thing, color)
    return pen.finish()


def _hex(color: list[float] | list[int]) -> str:
    return "#" + "".join(f"{round(v):02x}" for v in color)


def _lighter(color: list[int], share: float = 0.45) -> str:
    return _hex([v + (255 - v) * share for v in color])


def _none(pen: Pen, thing: Thing, color: list[int]) -> None:
    pass


def _ball(pen: Pen, thing: Thing, color: list[int]) -> None:
    r = thing.radius
    box: Box = (thing.x - 0.5 * r, thing.y - 0.6 * r, thing.x - 0.1 * r, thing.y - 0.25 * r)
    pen.ellipse(box, _lighter(color, 0.6), "detail")


def _box(pen: Pen, thing: Thing, color: list[int]) -> None:
    """A ribbon."""
    dark = _hex([v * 0.7 for v in color])
    ribbon = [(-0.14, -0.74), (0.14, -0.74), (0.14, 0.74), (-0.14, 0.74)]
    for points in (ribbon, [(y, x) for x, y in ribbon]):
        pen.polygon(_around(thing, points), dark, "detail")


def _cone(pen: Pen, thing: Thing, color: list[int]) -> None:
    """A band."""
    pen.polygon(_around(thing, [(-0.45, 0.05), (0.45, 0.05), (0.6, 0.35), (-0.6, 0.35)]), _lighter(color), "detail")


def _bottle(pen: Pen, thing: Thing, color: list[int]) -> None:
    """A label."""
    pen.polygon(
        _around(thing, [(-0.42, 0.1), (0.42, 0.1), (0.42, 0.65), (-0.42, 0.65)]), _lighter(color, 0.7), "detail"
    )


_DETAILS: dict[str, Callable[[Pen, Thing, list[int]], None]] = {
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "bottle": _bottle,
}
