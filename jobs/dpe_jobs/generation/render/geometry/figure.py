"""A labelled figure: points in the plane, what joins them, and what is written where."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.scene import Point


@dataclass(slots=True)
class Figure:
    """Coordinates are lengths as they are labelled, y upwards. Points are called by the letters of NAMES."""

    points: dict[str, Point]
    written: Written
    """Question and answer; points in braces: "the side {A}{B}"."""
    sides: list[str] = field(default_factory=list)
    """Pairs of points that are joined: "AB"."""
    helps: list[str] = field(default_factory=list)
    """Pairs that are joined by a thinner line: heights, diagonals."""
    circles: list[tuple[str, float]] = field(default_factory=list)
    """Middle and radius, the largest first."""
    lengths: dict[str, str] = field(default_factory=dict)
    """What is written beside a pair of joined points."""
    spans: dict[str, str] = field(default_factory=dict)
    """The same, for a side on which another point lies: a line of its own shows what is meant."""
    angles: dict[str, str] = field(default_factory=dict)
    """What is written in an angle: "ABC" is the one at B."""
    rights: list[str] = field(default_factory=list)
    """Angles that are marked as right ones."""
    hidden: str = ""
    """Points whose letters are not shown."""

    def named(self, letters: Mapping[str, str]) -> Written:
        """The question in the letters of the picture."""
        return Written(self.written.question.format_map(letters), self.written.answer, self.written.answer_type)


NAMES: tuple[dict[str, str], ...] = (
    {},
    dict(zip("ABCD", "PQRS", strict=True)),
    dict(zip("ABCD", "EFGK", strict=True)),
    dict(zip("ABCD", "TUVW", strict=True)),
)
TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 12, 15), (6, 8, 10), (12, 16, 20))
"""Pythagorean: the last one is the hypotenuse."""


def letters(rng: random.Random) -> dict[str, str]:
    """A letter for each point."""
    chosen = rng.choice(NAMES)
    return {name: chosen.get(name, name) for name in "ABCDHMO"}


def triangle(a: float, b: float, c: float) -> dict[str, Point]:
    """A, B, C from the sides opposite to them."""
    x = (b * b + c * c - a * a) / (2 * c)
    return {"A": (0, 0), "B": (c, 0), "C": (x, math.sqrt(b * b - x * x))}


def triangle_of_angles(alpha: float, beta: float, base: float) -> dict[str, Point]:
    """A, B, C from the angles at A and B, in degrees, and the side between them."""
    gamma = math.radians(180 - alpha - beta)
    b = base * math.sin(math.radians(beta)) / math.sin(gamma)
    return {"A": (0, 0), "B": (base, 0), "C": on_circle(b, alpha)}


def on_circle(radius: float, degrees: float) -> Point:
    """The point in a direction, anticlockwise from the right."""
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


def legs(rng: random.Random) -> tuple[int, int, int]:
    """Sides of a right triangle, the hypotenuse last; not too flat to be labelled."""
    short, long, hypotenuse = rng.choice([t for t in TRIPLES if t[0] / t[1] > 0.4])
    factor = rng.choice((1, 1, 2, 3))
    if rng.random() < 0.5:
        short, long = long, short
    return short * factor, long * factor, hypotenuse * factor
