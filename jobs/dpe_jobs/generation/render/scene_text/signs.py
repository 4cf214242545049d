"""Signposts at a road."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.pen import Pen, text_size
from dpe_jobs.generation.render.scene_text.words import TOWNS, NoRoom

_COLORS = {
    # of the board, and of its letters
    "green": ("#1f6f43", "#ffffff"),
    "blue": ("#1d5fa8", "#ffffff"),
    "brown": ("#6e4423", "#ffffff"),
    "white": ("#f6f6f2", "#161616"),
    "yellow": ("#f2c530", "#161616"),
}
_POST = "#8b9096"


@dataclass(frozen=True, slots=True)
class Sign:
    """One board of a signpost."""

    town: str
    km: int
    side: str
    color: str


def draw(pen: Pen, knobs: Mapping[str, str], rng: random.Random) -> Written:
    """Paint signposts and ask about them."""
    much = knobs["clutter"] == "much"
    count = rng.randint(6, 8) if much else rng.randint(3, 4)
    towns, distances = rng.sample(TOWNS, count), rng.sample(range(1, 96), count)
    signs = [
        Sign(town, km, rng.choice(("left", "right")), rng.choice(list(_COLORS)))
        for town, km in zip(towns, distances, strict=True)
    ]
    posts = [signs[: count // 2], signs[count // 2 :]] if much else [signs]
    size = float(rng.choice((18, 19, 20, 21)) if knobs["letters"] == "large" else rng.choice((11, 12, 13)))
    for number, boards in enumerate(posts):
        _post(pen, boards, pen.width * (number + 0.5) / len(posts), pen.width / len(posts), size, rng)
    return _ask(knobs["asks"], signs, rng)


def _post(pen: Pen, boards: list[Sign], x: float, room: float, size: float, rng: random.Random) -> None:
    high = size * 2.0
    top = rng.uniform(0.08, 0.16) * pen.height
    if top + high * 1.25 * len(boards) > pen.height - 60:
        raise NoRoom
    pen.rect((x - 5, top - 12, x + 5, pen.height - 24), _POST, "post")
    for number, sign in enumerate(boards):
        distance = f"{sign.km} km"
        wide = text_size(sign.town, size, "bold")[0] + text_size(distance, size, "bold")[0] + 2.2 * size
        tip = high * 0.45
        # the longer part of a board is on the side that it points to
        left = x - 0.36 * (wide + tip) if sign.side == "right" else x - 0.64 * (wide + tip)
        if wide + tip > room - 8 or left < 6 or left + wide + tip > pen.width - 6:
            raise NoRoom
        _board(pen, sign, left, top + high * 1.25 * number, wide, high, size, distance)


def _board(pen: Pen, sign: Sign, left: float, top: float, wide: float, high: float, size: float, distance: str) -> None:
    tip = high * 0.45
    middle, bottom = top + high / 2, top + high
    color, ink = _COLORS[sign.color]
    if sign.side == "right":
        points = [(left, top), (left + wide, top), (left + wide + tip, middle), (left + wide, bottom), (left, bottom)]
        begin = left
    else:
        right = left + wide + tip
        points = [(right, top), (left + tip, top), (left, middle), (left + tip, bottom), (right, bottom)]
        begin = left + tip
    pen.polygon([(x + 3, y + 3) for x, y in points], "#3a3f44", "shadow")
    pen.polygon(points, color, "sign")
    pen.text((begin + 0.6 * size, middle), sign.town, size, ink, "text", font="bold", anchor="lm")
    pen.text((begin + wide - 0.6 * size, middle), distance, size, ink, "text", font="bold", anchor="rm")


def _ask(asks: str, signs: list[Sign], rng: random.Random) -> Written:
    sign, other = rng.sample(signs, 2)
    if asks == "compare":
        word, nearer = rng.choice((("nearer", True), ("farther away", False)))
        chosen = sign if (sign.km < other.km) == nearer else other
        question = f"According to the signs, which place is {word}, {sign.town} or {other.town}?"
        return Written(question, chosen.town, AnswerType.CHOICE, (sign.town, other.town))
    if asks == "count":
        bound, side = rng.choice((10, 20, 30, 40, 50)), rng.choice(("left", "right"))
        question, count = rng.choice(
            (
                (f"How many signs point to the {side}?", sum(s.side == side for s in signs)),
                (f"How many signs are {sign.color}?", sum(s.color == sign.color for s in signs)),
                (f"How many of the places are more than {bound} km away?", sum(s.km > bound for s in signs)),
            )
        )
        return Written(question, str(count), AnswerType.NUMBER)
    alone = [s for s in signs if sum(t.color == s.color for t in signs) == 1]
    if alone and rng.random() < 0.3:
        sign = rng.choice(alone)
        return Written(f"Which place does the {sign.color} sign name?", sign.town, AnswerType.EXACT)
    if rng.random() < 0.35:
        question = f"Does the sign to {sign.town} point to the left or to the right?"
        return Written(question, sign.side, AnswerType.CHOICE, ("left", "right"))
    return Written(f"How far is it to {sign.town}?", f"{sign.km} km", AnswerType.NUMBER)
