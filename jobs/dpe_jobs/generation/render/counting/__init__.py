"""Coloured things strewn over a table, some hiding parts of others: how many are there?"""

import random
from collections.abc import Mapping, Sequence

from dpe_jobs.generation.render import Drawn
from dpe_jobs.generation.render.counting.asking import ask
from dpe_jobs.generation.render.counting.drawing import HIDDEN, RADII, paint, strew
from dpe_jobs.generation.render.counting.reader import solve
from dpe_jobs.generation.render.scene import Scene

ASKS = ("kind", "color", "both", "size", "total", "compare")
NUMBERS = {"few": (3, 6), "some": (7, 12), "many": (13, 20)}
OCCLUSIONS = ("none", "some", "heavy")
TABLES = ("plain", "paper", "wood", "cloth")
_ANY = {"asks": ASKS, "number": tuple(NUMBERS), "occlusion": OCCLUSIONS, "ground": TABLES}
_KNOBS = {"counting": _ANY, "everyday_object": _ANY}
_TRIES = 20


def _number(count: int) -> str:
    return next((name for name, (low, high) in NUMBERS.items() if low <= count <= high), "none")


def _occlusion(hidden: float) -> str:
    """By the share of the most hidden thing."""
    return next(name for name, (_, most) in HIDDEN.items() if hidden <= most)


class Counting:
    """The program `counting`."""

    name = "counting"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """Its own name, and that of the DPE paper for things of the household."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """By what to count, how many things there are, how much they hide of each other, and what they lie on."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs."""
        return _KNOBS[category]

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 360 to 520 pixels a side."""
        width, height = rng.randrange(400, 521, 8), rng.randrange(360, 481, 8)
        low, high = NUMBERS[knobs["number"]]
        for _ in range(_TRIES):
            things, hidden = strew(rng.randint(low, high), knobs["occlusion"], width, height, rng)
            facts = {**knobs, "number": _number(len(things)), "occlusion": _occlusion(hidden)}
            # a full table may have no room for the next thing, or none on top of another
            if facts == knobs and len({thing.size for thing in things}) == len(RADII):
                break
        image, scene = paint(things, knobs["ground"], width, height, rng)
        return Drawn(image, facts, scene, ask(knobs["asks"], things, rng))

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The number, counted in the display list: see `reader`."""
        if choices:
            raise ValueError("no question of this program has options")
        return solve(scene, question)
