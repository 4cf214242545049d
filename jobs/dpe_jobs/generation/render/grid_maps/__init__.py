"""Maps on a grid: places, water in the way, a compass and a scale."""

import random
from collections.abc import Mapping, Sequence

from dpe_jobs.generation.render import Drawn
from dpe_jobs.generation.render.grid_maps.asking import ASKS, Unsuitable, ask
from dpe_jobs.generation.render.grid_maps.drawing import draw
from dpe_jobs.generation.render.grid_maps.reader import solve
from dpe_jobs.generation.render.grid_maps.town import SIZES, WATER, build
from dpe_jobs.generation.render.scene import Scene

_KNOBS = {"map": {"asks": ASKS, "size": tuple(SIZES), "water": tuple(WATER), "north": ("up", "turned")}}
_TRIES = 200


class GridMaps:
    """The program `grid-maps`."""

    name = "grid-maps"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """The DPE paper's maps."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What is asked, how many cells there are, how much water, and whether north is up."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs."""
        return _KNOBS[category]

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 420 to 620 pixels a side."""
        for _ in range(_TRIES):
            try:
                town = build(knobs["size"], knobs["water"], knobs["north"], rng)
                written = ask(knobs["asks"], town, rng)
            except Unsuitable:
                continue
            image, scene = draw(town, rng)
            return Drawn(image, dict(knobs), scene, written)
        raise ValueError(f"no town suits {dict(knobs)}")

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer, found on the map of the display list: see `reader`."""
        return solve(scene, question, choices)
