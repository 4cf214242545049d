"""Reads a map from its display list: cells are rectangles, water is what is blue, north is where the needle points."""

import colorsys
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpe_jobs.generation.render.legible import rgb
from dpe_jobs.generation.render.scene import Mark, Scene

_BLUE = (190.0, 230.0)  # degrees of hue
_SATURATED = 0.35
_NAMES = ("east", "northeast", "north", "northwest", "west", "southwest", "south", "southeast")  # anticlockwise


class _Map:
    def __init__(self, scene: Scene) -> None:
        cells = scene.all("cell")
        if not cells:
            raise ValueError("there are no cells")
        xs, ys = (np.unique(np.round([c.center[i] for c in cells], 1)) for i in (0, 1))
        if len(xs) * len(ys) != len(cells):
            raise ValueError("the cells are no full grid")
        self.xs, self.ys = xs, ys
        self.land = np.ones((len(ys), len(xs)), dtype=bool)  # [rows, columns]
        for cell in cells:
            self.land[self._row(cell), self._column(cell)] = not _is_water(cell)
        self.places = {mark.text: np.array([self._column(mark), self._row(mark)]) for mark in scene.all("place")}
        self.letters = {mark.text: self._column(mark) for mark in scene.all("letter")}
        self.numbers = {mark.text: self._row(mark) for mark in scene.all("number")}
        self.north = _north(scene)
        # a quarter turn clockwise on a page whose y grows downwards
        self.east = np.array([-self.north[1], self.north[0]])
        self.scale = self._metres(scene)

    def _column(self, mark: Mark) -> int:
        return int(np.abs(self.xs - mark.center[0]).argmin())

    def _row(self, mark: Mark) -> int:
        return int(np.abs(self.ys - mark.center[1]).argmin())

    def _metres(self, scene: Scene) -> float:
        """Metres from one cell's middle to the next one's."""
        (bar,), (text,) = scene.all("scale"), scene.all("scale text")
        found = re.fullmatch(r"(\d+) m", text.text)
        if not found:
            raise ValueError(f"the scale says {text.text!r}")
        return float(found[1]) * float(self.xs[1] - self.xs[0]) / math.dist(*bar.points)

    def named(self, question: str) -> list[str]:
        """Places that a question names, in its order."""
        return re.findall("|".join(map(re.escape, self.places)), question)

    def bearing(self, one: str, other: str) -> str:
        """The nearest of eight directions."""
        way = self.places[other] - self.places[one]
        angle = math.atan2(float(way @ self.north), float(way @ self.east))
        place = angle / (math.pi / 4)
        if abs(place - round(place)) > 1e-6:
            raise ValueError(f"the {other} lies in none of eight directions from the {one}")
        return _NAMES[round(place) % 8]

    def way(self, direction: str) -> NDArray[np.int_]:
        """The step in columns and rows."""
        ways: dict[str, NDArray[np.int_]] = {"north": self.north, "east": self.east}
        ways |= {"south": -ways["north"], "west": -ways["east"]}
        return ways[direction]

    def at(self, cell: Iterable[int]) -> str | None:
        """The place in a cell."""
        return next((name for name, home in self.places.items() if tuple(home) == tuple(cell)), None)


def _is_water(cell: Mark) -> bool:
    hue, saturation, _ = colorsys.rgb_to_hsv(*(v / 255 for v in rgb(cell.color)))
    return _BLUE[0] < hue * 360 < _BLUE[1] and saturation > _SATURATED


def _north(scene: Scene) -> NDArray[np.int_]:
    (needle,), (tip,), (letter,) = scene.all("needle"), scene.all("needle tip"), scene.all("north")
    tail, neck = np.array(needle.points)
    way = neck - tail
    if letter.text != "N" or (np.array(tip.center) - neck) @ way <= 0 or (np.array(letter.center) - neck) @ way <= 0:
        raise ValueError("the compass contradicts itself")
    north: NDArray[np.int_] = np.round(way / np.linalg.norm(way)).astype(int)
    return north


def solve(scene: Scene, question: str, choices: Sequence[str]) -> str:
    """The answer. ValueError: another question, or places that are not on the map."""
    seen = _Map(scene)
    if "which place do you come to first" in question:
        return _first(seen, question)
    if question.startswith("In which direction"):
        one, other = _two(seen, question)
        answer = seen.bearing(one, other)
        if answer not in choices:
            raise ValueError(f"{answer} is none of {list(choices)}")
        return answer
    if "least number of steps" in question:
        return str(_steps(seen, *_two(seen, question), land_only="water" in question))
    if question.startswith("How far"):
        start, end = (seen.places[name] for name in _two(seen, question))
        return f"{float(np.linalg.norm(start - end)) * seen.scale:.0f} m"
    if question.startswith("Start at"):
        return _walk(seen, question)
    if cell := re.search(r"in cell ([A-Z])(\d+)\?$", question):
        place = seen.at((seen.letters[cell[1]], seen.numbers[cell[2]]))
        if place is None:
            raise ValueError(f"the cell {cell[1]}{cell[2]} is empty")
        return place
    if question.startswith("In which cell"):
        column, row = seen.places[_one(seen, question)]
        letter = next(t for t, c in seen.letters.items() if c == column)
        return letter + next(t for t, r in seen.numbers.items() if r == row)
    raise ValueError(f"{question!r} is no question about a map")


def _one(seen: _Map, question: str) -> str:
    named = seen.named(question)
    if len(named) != 1:
        raise ValueError(f"{question!r} names {named}, not one place")
    return named[0]


def _two(seen: _Map, question: str) -> tuple[str, str]:
    named = seen.named(question)
    if len(named) != 2:
        raise ValueError(f"{question!r} names {named}, not two places")
    return named[0], named[1]


def _first(seen: _Map, question: str) -> str:
    start = seen.places[_one(seen, question)]
    direction = re.search(r"going straight (\w+)", question)
    if not direction:
        raise ValueError(f"{question!r} names no direction")
    way = seen.way(direction[1])
    ahead = {name: int((home - start) @ way) for name, home in seen.places.items()}
    aside = {name: int(np.abs((home - start) - ahead[name] * way).sum()) for name, home in seen.places.items()}
    found = [name for name in seen.places if ahead[name] > 0 and aside[name] == 0]
    if not found:
        raise ValueError(f"nothing lies {direction[1]} of there")
    return min(found, key=lambda name: ahead[name])


def _walk(seen: _Map, question: str) -> str:
    cell = seen.places[_one(seen, question)]
    for count, direction in re.findall(r"(\d+) cells? (\w+)", question):
        cell = cell + int(count) * seen.way(direction)
    place = seen.at(cell)
    if place is None:
        raise ValueError("nothing is there")
    return place


def _steps(seen: _Map, one: str, other: str, *, land_only: bool) -> int:
    """By a flood that grows by one cell at a time."""
    free = seen.land if land_only else np.ones_like(seen.land)
    (x, y), (u, v) = seen.places[one], seen.places[other]
    flood = np.zeros_like(free)
    flood[y, x] = True
    for steps in range(free.size):
        if flood[v, u]:
            return steps
        grown = flood.copy()
        grown[1:] |= flood[:-1]
        grown[:-1] |= flood[1:]
        grown[:, 1:] |= flood[:, :-1]
        grown[:, :-1] |= flood[:, 1:]
        flood = grown & free
    raise ValueError(f"no way leads from the {one} to the {other}")
