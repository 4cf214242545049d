"""Real tables, set as tables."""

import random
from collections.abc import Mapping, Sequence

from dpe_jobs.generation.render import Drawn
from dpe_jobs.generation.render.records import NAMES, table
from dpe_jobs.generation.render.scene import Scene
from dpe_jobs.generation.render.tables.asking import ASKS, Unsuitable, ask
from dpe_jobs.generation.render.tables.drawing import RULINGS, draw
from dpe_jobs.generation.render.tables.reader import solve
from dpe_jobs.generation.render.tabular import Table

_SIZES = {"small": ((3, 4), (1, 2)), "medium": ((5, 7), (2, 3)), "large": ((8, 12), (3, 5))}
"""Rows and columns of figures, at least and at most."""
_KNOBS = {"text_dense": {"asks": ASKS, "size": tuple(_SIZES), "ruling": RULINGS}}
_FACETS = {"text_dense": _KNOBS["text_dense"] | {"table": NAMES}}
_TRIES = 300  # of figures; most fail before anything is drawn


class Tables:
    """The program `tables`."""

    name = "tables"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """The DPE paper's pictures that are full of text."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What is asked, how large the table is, and what helps the eye along a row."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs, and the table that is shown."""
        return _FACETS[category]

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture as large as its table: at most 800 by 560 pixels."""
        for _ in range(_TRIES):
            try:
                part = _part(knobs["size"], rng)
                written = ask(knobs["asks"], part, rng)
                image, scene = draw(part, knobs["ruling"], rng)
            except Unsuitable:
                continue
            return Drawn(image, {**knobs, "table": part.name}, scene, written)
        raise ValueError(f"no table suits {dict(knobs)}")

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer, found in the cells of the display list: see `reader`."""
        if choices:
            raise ValueError("no question of this program has options")
        return solve(scene, question)


def _part(size: str, rng: random.Random) -> Table:
    (least, most), (fewest, highest) = _SIZES[size]
    found = table(rng.choice(NAMES))
    if len(found.rows) < least or len(found.columns) < fewest:
        raise Unsuitable
    return found.drawn(rng.randint(least, most), rng.randint(fewest, highest), rng)
