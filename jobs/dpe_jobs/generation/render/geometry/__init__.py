"""Labelled figures, drawn to scale: angles, lengths, areas, and labels with an unknown."""

import random
from collections.abc import Callable, Mapping, Sequence

from dpe_jobs.generation.render import Drawn
from dpe_jobs.generation.render.geometry import angles, areas, equations, lengths
from dpe_jobs.generation.render.geometry.drawing import Crowded, draw
from dpe_jobs.generation.render.geometry.figure import Figure, letters
from dpe_jobs.generation.render.geometry.reader import solve
from dpe_jobs.generation.render.scene import Scene

UNITS = ("cm", "mm", "m", "km", "in", "ft")
_ASKS = {"length": lengths, "angle": angles, "area": areas}
_FIGURES = ("triangle", "rectangle", "circle", "trapezoid")
_EQUATIONS: Mapping[str, Callable[[str, random.Random], Figure]] = {
    "triangle": equations.triangle,
    "line": equations.line,
    "parallels": equations.parallels,
    "rectangle": equations.perimeter,
}
_ORIENTATIONS = ("upright", "turned")
_KNOBS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "geometric": {
        "figure": _FIGURES,
        "asks": tuple(_ASKS),
        "steps": ("one", "two"),
        "orientation": _ORIENTATIONS,
    },
    "math_formula": {"equation": tuple(_EQUATIONS), "terms": ("one", "many"), "orientation": _ORIENTATIONS},
}
_TRIES = 400


class Geometry:
    """The program `geometry`."""

    name = "geometry"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """Two of the DPE paper's: figures, and figures labelled with terms in x."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """Which figure, what is asked, in how many steps it is found, and whether the figure stands upright."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs."""
        return _KNOBS[category]

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 420 to 560 by 380 to 480 pixels."""
        for _ in range(_TRIES):
            figure, named = _figure(knobs, rng), letters(rng)
            try:
                image, scene = draw(figure, named, knobs["orientation"] == "turned", rng)
            except Crowded:
                continue
            return Drawn(image, dict(knobs), scene, figure.named(named))
        raise ValueError(f"no figure suits {dict(knobs)}")

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer, measured in the display list: see `reader`."""
        if choices:
            raise ValueError("no question of this program has options")
        return solve(scene, question)


def _figure(knobs: Mapping[str, str], rng: random.Random) -> Figure:
    if "equation" in knobs:
        return _EQUATIONS[knobs["equation"]](knobs["terms"], rng)
    make: Callable[[str, random.Random], Figure] = getattr(_ASKS[knobs["asks"]], f"{knobs['figure']}_{knobs['steps']}")
    return make(rng.choice(UNITS), rng)
