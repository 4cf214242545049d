"""Figures whose angles are asked for."""

import random

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.geometry.figure import Figure, on_circle, triangle_of_angles
from dpe_jobs.generation.render.geometry.lengths import rectangle, trapezoid

_TRIANGLE = ["AB", "BC", "CA"]
_FOUR = ["AB", "BC", "CD", "DA"]
_LEAST = 32  # degrees: room for a label


def ask(question: str, degrees: float) -> Written:
    """A question whose answer is an angle."""
    return Written(question, f"{degrees:g}°", AnswerType.NUMBER)


def three(rng: random.Random) -> tuple[int, int, int]:
    """Angles of a triangle."""
    while True:
        alpha, beta = rng.randint(_LEAST, 110), rng.randint(_LEAST, 110)
        if 180 - alpha - beta >= _LEAST:
            return alpha, beta, 180 - alpha - beta


def triangle_one(_: str, rng: random.Random) -> Figure:
    """They sum up to 180 degrees."""
    alpha, beta, gamma = three(rng)
    written = ask("What is the size of the angle {A}{C}{B}?", gamma)
    angles = {"BAC": f"{alpha}°", "CBA": f"{beta}°"}
    return Figure(triangle_of_angles(alpha, beta, 10), written, sides=_TRIANGLE, angles=angles)


def triangle_two(_: str, rng: random.Random) -> Figure:
    """With an outer angle."""
    alpha, beta, gamma = three(rng)
    points = triangle_of_angles(alpha, beta, 10)
    points["D"] = (15.0, 0.0)
    outer = {"DBC": f"{180 - beta}°"}
    if rng.random() < 0.5:
        written = ask("{D} lies on the line through {A} and {B}. What is the size of the angle {A}{C}{B}?", gamma)
        angles = {"BAC": f"{alpha}°"} | outer
    else:
        written = ask("{D} lies on the line through {A} and {B}. What is the size of the angle {B}{A}{C}?", alpha)
        angles = {"ACB": f"{gamma}°"} | outer
    return Figure(points, written, sides=[*_TRIANGLE, "BD"], angles=angles)


def _rectangle(rng: random.Random) -> tuple[int, dict[str, tuple[float, float]]]:
    """A rectangle by the angle of its diagonal, in degrees."""
    degrees = rng.randint(_LEAST, 90 - _LEAST)
    x, y = on_circle(10, degrees)
    return degrees, rectangle(x, y)


def rectangle_one(_: str, rng: random.Random) -> Figure:
    """The diagonal divides a right angle."""
    degrees, points = _rectangle(rng)
    written = ask("What is the size of the angle {C}{A}{D} in rectangle {A}{B}{C}{D}?", 90 - degrees)
    return Figure(points, written, sides=_FOUR, helps=["AC"], angles={"BAC": f"{degrees}°"}, rights=["ABC"])


def rectangle_two(_: str, rng: random.Random) -> Figure:
    """Both diagonals make isosceles triangles."""
    degrees, points = _rectangle(rng)
    points["M"] = points["C"][0] / 2, points["C"][1] / 2
    question, size = rng.choice((("{A}{M}{B}", 180 - 2 * degrees), ("{B}{M}{C}", 2 * degrees)))
    written = ask(f"In rectangle {{A}}{{B}}{{C}}{{D}}, what is the size of the angle {question}?", size)
    return Figure(
        points,
        written,
        sides=_FOUR,
        helps=["AM", "MC", "BM", "MD"],
        angles={"BAM": f"{degrees}°"},
        rights=["BCD"],
    )


def circle_one(_: str, rng: random.Random) -> Figure:
    """Angles around a point sum up to 360 degrees."""
    while True:
        first, second = rng.randint(50, 170), rng.randint(50, 170)
        if 50 <= 360 - first - second <= 170:
            break
    points = {"O": (0.0, 0.0), "A": on_circle(10, 0), "B": on_circle(10, first), "C": on_circle(10, first + second)}
    written = ask("What is the size of the angle {C}{O}{A}, the one without a label?", 360 - first - second)
    angles = {"AOB": f"{first}°", "BOC": f"{second}°"}
    return Figure(points, written, helps=["OA", "OB", "OC"], circles=[("O", 10)], angles=angles)


def circle_two(_: str, rng: random.Random) -> Figure:
    """The angle at the rim is half of that in the middle; or the base angle of an isosceles triangle."""
    center = 2 * rng.randint(32, 60)
    points = {"O": (0.0, 0.0), "A": on_circle(10, 270 - center / 2), "B": on_circle(10, 270 + center / 2)}
    if rng.random() < 0.5:
        points["C"] = on_circle(10, rng.randint(70, 110))
        written = ask(
            "{A}, {B} and {C} lie on the circle around {O}. What is the size of the angle {A}{C}{B}?", center / 2
        )
        return Figure(
            points,
            written,
            sides=["CA", "CB"],
            helps=["OA", "OB"],
            circles=[("O", 10)],
            angles={"AOB": f"{center}°"},
        )
    written = ask("{A} and {B} lie on the circle around {O}. What is the size of the angle {O}{A}{B}?", 90 - center / 2)
    return Figure(points, written, sides=["AB"], helps=["OA", "OB"], circles=[("O", 10)], angles={"AOB": f"{center}°"})


def trapezoid_one(_: str, rng: random.Random) -> Figure:
    """Angles between parallels sum up to 180 degrees."""
    alpha, beta = rng.randint(48, 80), rng.randint(48, 80)
    points = _between(alpha, beta, rng)
    if rng.random() < 0.5:
        question, size, angles = "{C}{D}{A}", 180 - alpha, {"DAB": f"{alpha}°"}
    else:
        question, size, angles = "{A}{B}{C}", beta, {"BCD": f"{180 - beta}°"}
    written = ask(f"{{A}}{{B}} is parallel to {{D}}{{C}}. What is the size of the angle {question}?", size)
    return Figure(points, written, sides=_FOUR, angles=angles)


def trapezoid_two(_: str, rng: random.Random) -> Figure:
    """The same in a symmetric one."""
    alpha = rng.randint(48, 78)
    points = _between(alpha, alpha, rng)
    given, asked, size = rng.choice(
        (("DAB", "{B}{C}{D}", 180 - alpha), ("ABC", "{C}{D}{A}", 180 - alpha), ("CDA", "{A}{B}{C}", alpha))
    )
    label = f"{180 - alpha}°" if given == "CDA" else f"{alpha}°"
    written = ask(
        f"{{A}}{{B}} is parallel to {{D}}{{C}}, and {{A}}{{D}} is as long as {{B}}{{C}}. "
        f"What is the size of the angle {asked}?",
        size,
    )
    return Figure(points, written, sides=_FOUR, angles={given: label})


def _between(alpha: int, beta: int, rng: random.Random) -> dict[str, tuple[float, float]]:
    height = rng.uniform(4, 6)
    left, right = (height / on_circle(1, d)[1] * on_circle(1, d)[0] for d in (alpha, beta))
    top = rng.uniform(4, 8)
    return trapezoid(left + top + right, top, height, left)
