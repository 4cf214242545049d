"""Jars on a shelf, with price tags under them."""

import random
from collections import Counter
from collections.abc import Mapping

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.pen import Pen, text_size
from dpe_jobs.generation.render.scene_text.words import JARS, NoRoom, money, prices

_GLASS = ("#b5475f", "#d98a2b", "#7a9a3a", "#8c5a9e", "#c9a227", "#3f7f8c", "#a65c3a", "#c45a3c")
_LIDS = ("#d8d8d8", "#2f3640", "#c9b037", "#8f2f2f", "#2e5d34")
_BOARD, _EDGE = "#7b5533", "#5f4026"

Jar = tuple[str, int]
"""What is in it, and its price in cents."""


def draw(pen: Pen, knobs: Mapping[str, str], rng: random.Random) -> Written:
    """Paint a shelf and ask about it."""
    much, large = knobs["clutter"] == "much", knobs["letters"] == "large"
    size = float(rng.choice((16, 17)) if large else rng.choice((11, 12)))
    count = rng.randint(4, 5) * 2 if much else rng.randint(4, 5)
    kinds = rng.sample(JARS, rng.randint(count // 2 + 1, count))
    names = [*kinds, *rng.choices(kinds, k=count - len(kinds))]
    rng.shuffle(names)
    # the same thing costs the same
    price = dict(zip(kinds, prices(len(kinds), rng), strict=True))
    jars = [(name, price[name]) for name in names]
    rows = [jars[: count // 2], jars[count // 2 :]] if much else [jars]
    glass = dict(zip(kinds, rng.choices(_GLASS, k=len(kinds)), strict=True))
    for number, row in enumerate(rows):
        bottom = pen.height * (number + 1) / len(rows) - rng.uniform(44, 52) + (0 if much else -40)
        _row(pen, row, glass, bottom, min(190.0, pen.height / len(rows) - 86), size, rng)
    return _ask(knobs["asks"], jars, rng)


def _row(
    pen: Pen, row: list[Jar], glass: Mapping[str, str], bottom: float, high: float, size: float, rng: random.Random
) -> None:
    pen.rect((0, bottom, pen.width, bottom + 12), _BOARD, "board")
    pen.rect((0, bottom + 12, pen.width, bottom + 38), _EDGE, "edge")
    place = pen.width / len(row)
    lid = rng.choice(_LIDS)
    for number, (name, cents) in enumerate(row):
        x = place * (number + 0.5) + rng.uniform(-4, 4)
        wide = max(64.0, text_size(name, size, "bold")[0] + 14)
        if wide > place - 12:
            raise NoRoom
        left, right, top = x - wide / 2, x + wide / 2, bottom - high * rng.uniform(0.85, 1.0)
        pen.rect((left + 6, top - 12, right - 6, top + 6), lid, "lid", radius=4)
        pen.rect((left, top + 4, right, bottom), glass[name], "jar", radius=9)
        middle = (top + bottom) / 2 + 6
        pen.rect((left + 3, middle - size * 1.1, right - 3, middle + size * 1.1), "#fbf8ee", "label")
        pen.text((x, middle), name, size, "#221c14", "text", font="bold")
        price = money(cents)
        half = text_size(price, size, "sans")[0] / 2 + 7
        pen.rect((x - half, bottom + 13, x + half, bottom + 37), "#ffffff", "tag", radius=2)
        pen.text((x, bottom + 25), price, size, "#1a1a1a", "text")


def _ask(asks: str, jars: list[Jar], rng: random.Random) -> Written:
    price = dict(jars)
    name, other = rng.sample(sorted(price), 2)
    if asks == "compare":
        word, dearer = rng.choice((("more", True), ("less", False)))
        chosen = name if (price[name] > price[other]) == dearer else other
        question = f"Which costs {word}, a jar of {name} or a jar of {other}?"
        return Written(question, chosen, AnswerType.CHOICE, (name, other))
    if asks == "count":
        often = [kind for kind, times in Counter(n for n, _ in jars).items() if times > 1]
        name = rng.choice(often) if often and rng.random() < 0.5 else name
        bound = rng.randrange(200, 1600, 100) + 50  # no price ends so that it is met exactly
        bound = bound if all(cents != bound for cents in price.values()) else bound + 1
        question, count = rng.choice(
            (
                (f"How many jars are labelled {name}?", sum(n == name for n, _ in jars)),
                (f"How many jars cost more than {money(bound)}?", sum(cents > bound for _, cents in jars)),
                ("How many jars are on the shelves?", len(jars)),
            )
        )
        return Written(question, str(count), AnswerType.NUMBER)
    if rng.random() < 0.3:
        word, choose = rng.choice((("most expensive", max), ("cheapest", min)))
        return Written(f"What is in the {word} jar?", choose(price, key=lambda n: price[n]), AnswerType.EXACT)
    return Written(f"What does a jar of {name} cost?", money(price[name]), AnswerType.NUMBER)
