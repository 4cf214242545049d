"""Figures whose labels are terms in x."""

import random
from collections.abc import Sequence

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.geometry.angles import three
from dpe_jobs.generation.render.geometry.figure import Figure, on_circle, triangle_of_angles
from dpe_jobs.generation.render.geometry.lengths import rectangle, trapezoid

_FOUR = ["AB", "BC", "CD", "DA"]


def _term(value: int, x: int, rng: random.Random) -> str:
    """A term in x with that value."""
    factors = [a for a in (1, 2, 3, 4, 5) if abs(value - a * x) <= max(12, value // 2)] or [1]
    factor = rng.choice(factors)
    rest = value - factor * x
    text = "x" if factor == 1 else f"{factor}x"
    return text if rest == 0 else f"{text} {'+' if rest > 0 else '-'} {abs(rest)}"


def _labels(values: Sequence[int], terms: str, x: int, degree: str, rng: random.Random) -> list[str]:
    """One of the values as a term, or all of them."""
    chosen = {rng.randrange(len(values))} if terms == "one" else set(range(len(values)))
    found = []
    for place, value in enumerate(values):
        term = _term(value, x, rng) if place in chosen else str(value)
        found.append(f"({term}){degree}" if degree and " " in term else f"{term}{degree}")
    return found


def _asked(question: str, x: int) -> Written:
    return Written(question, str(x), AnswerType.NUMBER)


def triangle(terms: str, rng: random.Random) -> Figure:
    """Angles that sum up to 180 degrees."""
    x, values = rng.randint(8, 40), three(rng)
    texts = _labels(values, terms, x, "°", rng)
    return Figure(
        triangle_of_angles(values[0], values[1], 10),
        _asked("What is the value of x in triangle {A}{B}{C}?", x),
        sides=["AB", "BC", "CA"],
        angles=dict(zip(("BAC", "CBA", "ACB"), texts, strict=True)),
    )


def line(terms: str, rng: random.Random) -> Figure:
    """Angles along a line."""
    while True:
        values = [rng.randint(32, 130) for _ in range(rng.choice((1, 2)))]
        if 32 <= 180 - sum(values) <= 140:
            break
    values.append(180 - sum(values))
    x = rng.randint(8, 40)
    ends = ["A", "B", "C", "D"][: len(values) + 1]
    points = {"O": (0.0, 0.0)}
    turned = 0
    for name, value in zip(ends, [0, *values], strict=True):
        turned += value
        points[name] = on_circle(10, turned)
    texts = _labels(values, terms, x, "°", rng)
    return Figure(
        points,
        _asked(f"{{{ends[0]}}}, {{O}} and {{{ends[-1]}}} lie on one line. What is the value of x?", x),
        sides=[f"{ends[0]}O", f"O{ends[-1]}"],
        helps=[f"O{name}" for name in ends[1:-1]],
        angles={f"{a}O{b}": text for a, b, text in zip(ends, ends[1:], texts, strict=False)},
    )


def parallels(terms: str, rng: random.Random) -> Figure:
    """Angles between parallels sum up to 180 degrees."""
    alpha, beta = rng.randint(50, 80), rng.randint(50, 80)
    height = 5.0
    left, right = (height / on_circle(1, d)[1] * on_circle(1, d)[0] for d in (alpha, beta))
    top = rng.uniform(4, 8)
    x = rng.randint(8, 40)
    texts = _labels((alpha, 180 - alpha), terms, x, "°", rng)
    return Figure(
        trapezoid(left + top + right, top, height, left),
        _asked("{A}{B} is parallel to {D}{C}. What is the value of x?", x),
        sides=_FOUR,
        angles={"DAB": texts[0], "CDA": texts[1]},
    )


def perimeter(terms: str, rng: random.Random) -> Figure:
    """Sides of a rectangle."""
    width, height = rng.randint(9, 24), rng.randint(5, 14)
    x = rng.randint(2, 12)
    texts = _labels((width, height), terms, x, "", rng)
    question = (
        f"The sides are given in cm. The perimeter of rectangle {{A}}{{B}}{{C}}{{D}} is {2 * (width + height)} cm. "
        f"What is the value of x?"
    )
    return Figure(
        rectangle(width, height),
        _asked(question, x),
        sides=_FOUR,
        lengths={"AB": texts[0], "BC": texts[1]},
        rights=["DAB"],
    )
