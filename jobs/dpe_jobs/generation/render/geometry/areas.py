"""Figures whose areas are asked for."""

import random

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.geometry.figure import Figure, legs, triangle
from dpe_jobs.generation.render.geometry.lengths import label, rectangle, symmetric, trapezoid

_TRIANGLE = ["AB", "BC", "CA"]
_FOUR = ["AB", "BC", "CD", "DA"]


def ask(question: str, area: float, unit: str) -> Written:
    """A question whose answer is an area with its unit."""
    return Written(question, f"{round(area, 2):g} {unit}²", AnswerType.NUMBER)


def triangle_one(unit: str, rng: random.Random) -> Figure:
    """From base and height."""
    base, height = rng.randint(8, 24), rng.randint(5, 16)
    foot = rng.uniform(0.3, 0.7) * base
    points = {"A": (0.0, 0.0), "B": (float(base), 0.0), "C": (foot, float(height)), "H": (foot, 0.0)}
    return Figure(
        points,
        ask("What is the area of triangle {A}{B}{C}?", base * height / 2, unit),
        sides=_TRIANGLE,
        helps=["CH"],
        lengths={"CH": label(height, unit)},
        spans={"AB": label(base, unit)},
        rights=["CHB"],
    )


def triangle_two(unit: str, rng: random.Random) -> Figure:
    """Of a right one, from one leg and the hypotenuse."""
    b, c, a = legs(rng)
    return Figure(
        triangle(a, b, c),
        ask("What is the area of triangle {A}{B}{C}?", b * c / 2, unit),
        sides=_TRIANGLE,
        lengths={"BC": label(a, unit), "CA": label(b, unit)},
        rights=["CAB"],
    )


def rectangle_one(unit: str, rng: random.Random) -> Figure:
    """From the sides."""
    width, height = rng.randint(6, 24), rng.randint(4, 14)
    return Figure(
        rectangle(width, height),
        ask("What is the area of rectangle {A}{B}{C}{D}?", width * height, unit),
        sides=_FOUR,
        lengths={"AB": label(width, unit), "BC": label(height, unit)},
        rights=["DAB"],
    )


def rectangle_two(unit: str, rng: random.Random) -> Figure:
    """From a side and the diagonal."""
    height, width, diagonal = legs(rng)
    return Figure(
        rectangle(width, height),
        ask("What is the area of rectangle {A}{B}{C}{D}?", width * height, unit),
        sides=_FOUR,
        helps=["AC"],
        lengths={"AB": label(width, unit), "AC": label(diagonal, unit)},
        rights=["DAB"],
    )


def circle_one(unit: str, rng: random.Random) -> Figure:
    """From the radius."""
    radius = rng.randint(2, 30)
    points = {"O": (0.0, 0.0), "B": (float(radius), 0.0)}
    question = "Taking 3.14 for pi, what is the area of the circle around {O}?"
    written = ask(question, 3.14 * radius**2, unit)
    return Figure(points, written, helps=["OB"], circles=[("O", radius)], lengths={"OB": label(radius, unit)})


def circle_two(unit: str, rng: random.Random) -> Figure:
    """Of a ring."""
    outer = rng.randint(6, 30)
    inner = rng.randint(round(0.45 * outer), round(0.75 * outer))
    points = {"O": (0.0, 0.0), "A": (-float(inner), 0.0), "B": (0.0, float(outer))}
    question = "Taking 3.14 for pi, what is the area of the ring between the circles around {O}?"
    return Figure(
        points,
        ask(question, 3.14 * (outer**2 - inner**2), unit),
        helps=["OA", "OB"],
        circles=[("O", outer), ("O", inner)],
        lengths={"OA": label(inner, unit), "OB": label(outer, unit)},
    )


def trapezoid_one(unit: str, rng: random.Random) -> Figure:
    """From the parallel sides and the height."""
    base, top, height, shift, _ = symmetric(rng)
    points = trapezoid(base, top, height, shift) | {"H": (float(shift), 0.0)}
    return Figure(
        points,
        ask("{A}{B} is parallel to {D}{C}. What is the area of {A}{B}{C}{D}?", (base + top) * height / 2, unit),
        sides=_FOUR,
        helps=["DH"],
        lengths={"CD": label(top, unit), "DH": label(height, unit)},
        spans={"AB": label(base, unit)},
        rights=["DHB"],
    )


def trapezoid_two(unit: str, rng: random.Random) -> Figure:
    """From the sides of a symmetric one."""
    base, top, height, shift, leg = symmetric(rng)
    return Figure(
        trapezoid(base, top, height, shift),
        ask(
            "{A}{B} is parallel to {D}{C}, and {A}{D} is as long as {B}{C}. What is the area of {A}{B}{C}{D}?",
            (base + top) * height / 2,
            unit,
        ),
        sides=_FOUR,
        lengths={"AB": label(base, unit), "CD": label(top, unit), "BC": label(leg, unit)},
    )
