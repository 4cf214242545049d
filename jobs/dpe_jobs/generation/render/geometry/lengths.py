"""Figures whose sides are asked for."""

import random

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.geometry.figure import Figure, legs, triangle

_TRIANGLE = ["AB", "BC", "CA"]
_FOUR = ["AB", "BC", "CD", "DA"]


def ask(question: str, length: float, unit: str) -> Written:
    """A question whose answer is a length with its unit."""
    return Written(question, f"{length:g} {unit}", AnswerType.NUMBER)


def label(length: float, unit: str) -> str:
    """What is written beside a side."""
    return f"{length:g} {unit}"


def sides_of_triangle(rng: random.Random) -> tuple[int, int, int]:
    """Whole numbers, and no flat triangle."""
    while True:
        a, b, c = (rng.randint(5, 24) for _ in range(3))
        if 1.25 * max(a, b, c) < a + b + c - max(a, b, c) and min(a, b, c) > 0.45 * max(a, b, c):
            return a, b, c


def triangle_one(unit: str, rng: random.Random) -> Figure:
    """The perimeter, or the side that is missing from it."""
    a, b, c = sides_of_triangle(rng)
    given = {"BC": label(a, unit), "CA": label(b, unit), "AB": label(c, unit)}
    if rng.random() < 0.4:
        written = ask("What is the perimeter of triangle {A}{B}{C}?", a + b + c, unit)
    else:
        question = f"The perimeter of triangle {{A}}{{B}}{{C}} is {a + b + c} {unit}. How long is the side {{C}}{{A}}?"
        written = ask(question, b, unit)
        del given["CA"]
    return Figure(triangle(a, b, c), written, sides=_TRIANGLE, lengths=given)


def triangle_two(unit: str, rng: random.Random) -> Figure:
    """Pythagoras."""
    b, c, a = legs(rng)  # the right angle is at A
    lengths = {"AB": c, "CA": b, "BC": a}
    asked = rng.choice(list(lengths))
    return Figure(
        triangle(a, b, c),
        ask(f"How long is the side {{{asked[0]}}}{{{asked[1]}}}?", lengths[asked], unit),
        sides=_TRIANGLE,
        lengths={side: label(length, unit) for side, length in lengths.items() if side != asked},
        rights=["CAB"],
    )


def rectangle(width: float, height: float) -> dict[str, tuple[float, float]]:
    """A, B, C, D anticlockwise."""
    return {"A": (0, 0), "B": (width, 0), "C": (width, height), "D": (0, height)}


def rectangle_one(unit: str, rng: random.Random) -> Figure:
    """A side from the area, or the perimeter."""
    width, height = rng.randint(8, 20), rng.randint(4, 13)
    given = {"AB": label(width, unit), "BC": label(height, unit)}
    if rng.random() < 0.4:
        written = ask("What is the perimeter of rectangle {A}{B}{C}{D}?", 2 * (width + height), unit)
    else:
        area = f"{width * height} {unit}²"
        question = f"The area of rectangle {{A}}{{B}}{{C}}{{D}} is {area}. How long is the side {{B}}{{C}}?"
        written = ask(question, height, unit)
        del given["BC"]
    return Figure(rectangle(width, height), written, sides=_FOUR, lengths=given, rights=["DAB"])


def rectangle_two(unit: str, rng: random.Random) -> Figure:
    """A side, or the perimeter, from the diagonal."""
    height, width, diagonal = legs(rng)
    if rng.random() < 0.5:
        written = ask("How long is the side {B}{C} of rectangle {A}{B}{C}{D}?", height, unit)
    else:
        written = ask("What is the perimeter of rectangle {A}{B}{C}{D}?", 2 * (width + height), unit)
    return Figure(
        rectangle(width, height),
        written,
        sides=_FOUR,
        helps=["AC"],
        lengths={"AB": label(width, unit), "AC": label(diagonal, unit)},
        rights=["DAB"],
    )


def circle_one(unit: str, rng: random.Random) -> Figure:
    """Radius and diameter, or the circumference."""
    radius = rng.randint(2, 30)
    points = {"O": (0.0, 0.0), "A": (-float(radius), 0.0), "B": (float(radius), 0.0)}
    what = rng.choice(("radius", "diameter", "circumference"))
    if what == "radius":
        written = ask("What is the radius of the circle with the diameter {A}{B}?", radius, unit)
        return Figure(
            points, written, helps=["AB"], circles=[("O", radius)], lengths={"AB": label(2 * radius, unit)}, hidden="O"
        )
    if what == "diameter":
        written = ask("What is the diameter of the circle around {O}?", 2 * radius, unit)
    else:
        question = "Taking 3.14 for pi, what is the circumference of the circle around {O}?"
        written = ask(question, round(2 * 3.14 * radius, 2), unit)
    del points["A"]
    return Figure(points, written, helps=["OB"], circles=[("O", radius)], lengths={"OB": label(radius, unit)})


def circle_two(unit: str, rng: random.Random) -> Figure:
    """A chord, its distance from the middle, and the radius."""
    half, away, radius = legs(rng)
    points = {
        "O": (0.0, 0.0),
        "A": (-float(half), -float(away)),
        "B": (float(half), -float(away)),
        "M": (0.0, -float(away)),
    }
    given = {"OB": label(radius, unit), "OM": label(away, unit)}
    written = ask("{M} is the middle of the chord {A}{B}. How long is {A}{B}?", 2 * half, unit)
    if rng.random() < 0.5:
        given = {"AM": label(half, unit), "OM": label(away, unit)}
        written = ask(
            "{M} is the middle of the chord {A}{B}. What is the radius of the circle around {O}?", radius, unit
        )
    return Figure(
        points,
        written,
        sides=["AM", "MB"],
        helps=["OM", "OB"],
        circles=[("O", radius)],
        lengths=given,
        rights=["OMB"],
    )


def trapezoid(base: float, top: float, height: float, shift: float) -> dict[str, tuple[float, float]]:
    """A, B, C, D anticlockwise; D is `shift` to the right of A."""
    return {"A": (0, 0), "B": (base, 0), "C": (shift + top, height), "D": (shift, height)}


def symmetric(rng: random.Random) -> tuple[int, int, int, int, int]:
    """Base, top, height, shift and leg of a symmetric trapezoid of whole numbers."""
    shift, height, leg = legs(rng)
    if shift > 1.3 * height:
        shift, height = height, shift
    top = rng.randint(max(4, height // 2), max(8, 2 * height))
    return top + 2 * shift, top, height, shift, leg


def trapezoid_one(unit: str, rng: random.Random) -> Figure:
    """The side that is missing from the perimeter."""
    base, top, height, shift, leg = symmetric(rng)
    given = {"AB": label(base, unit), "BC": label(leg, unit), "CD": label(top, unit), "DA": label(leg, unit)}
    asked, length = rng.choice((("AB", base), ("CD", top), ("DA", leg)))
    del given[asked]
    question = (
        f"The perimeter of {{A}}{{B}}{{C}}{{D}} is {base + top + 2 * leg} {unit}. "
        f"How long is the side {{{asked[0]}}}{{{asked[1]}}}?"
    )
    return Figure(trapezoid(base, top, height, shift), ask(question, length, unit), sides=_FOUR, lengths=given)


def trapezoid_two(unit: str, rng: random.Random) -> Figure:
    """The slanted side of a trapezoid with two right angles, by Pythagoras."""
    over, height, leg = legs(rng)
    top = rng.randint(max(4, over // 2), 2 * max(over, height))
    points = trapezoid(top + over, top, height, 0)
    given = {"AB": label(top + over, unit), "CD": label(top, unit), "DA": label(height, unit)}
    written = ask("How long is the side {B}{C}?", leg, unit)
    return Figure(points, written, sides=_FOUR, lengths=given, rights=["DAB", "CDA"])
