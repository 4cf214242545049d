"""Questions on how many things there are."""

import random

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.counting.drawing import COLORS, KINDS, RADII, Thing

PLURALS = {"box": "boxes"}
_HOW_MANY = (
    "How many {what} are there?",
    "How many {what} are in the picture?",
    "How many {what} do you see?",
    "What is the number of {what} in the image?",
)
_MORE = ("Are there more {one} than {other}?", "Does the picture show more {one} than {other}?")
_ABSENT = 0.06  # of the questions ask about something that is not there


def plural(kind: str) -> str:
    """balls, boxes."""
    return PLURALS.get(kind, f"{kind}s")


def ask(asks: str, things: list[Thing], rng: random.Random) -> Written:
    """A question, and the answer counted in what was strewn."""
    if asks == "compare":
        return _compare(things, rng)
    present = rng.choice(things)
    there = rng.random() >= _ABSENT
    kind = present.kind if there else rng.choice(KINDS)
    color = present.color if there else rng.choice(list(COLORS))
    size = rng.choice(list(RADII))
    what, count = {
        "kind": (plural(kind), sum(t.kind == kind for t in things)),
        "color": (f"{color} objects", sum(t.color == color for t in things)),
        "both": (f"{color} {plural(kind)}", sum((t.kind, t.color) == (kind, color) for t in things)),
        "size": (f"{size} objects", sum(t.size == size for t in things)),
        "total": ("objects", len(things)),
    }[asks]
    return Written(rng.choice(_HOW_MANY).format(what=what), str(count), AnswerType.NUMBER)


def _compare(things: list[Thing], rng: random.Random) -> Written:
    """More of one colour or kind than of another; never a tie."""
    options: list[tuple[str, int]] = [(f"{c} objects", sum(t.color == c for t in things)) for c in COLORS]
    options += [(plural(k), sum(t.kind == k for t in things)) for k in KINDS]
    by = options[: len(COLORS)] if rng.random() < 0.5 else options[len(COLORS) :]
    present = [option for option in by if option[1]] or by
    one = rng.choice(present)
    others = [option for option in present if option[1] != one[1]] or [option for option in by if option[1] != one[1]]
    pair = [one, rng.choice(others)]
    rng.shuffle(pair)
    (first, many), (second, few) = pair
    question = rng.choice(_MORE).format(one=first, other=second)
    return Written(question, "yes" if many > few else "no", AnswerType.YES_NO)
