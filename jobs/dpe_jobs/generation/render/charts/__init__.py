"""Charts of real tables, drawn by matplotlib."""

import random
from collections.abc import Mapping, Sequence

from dpe_jobs.generation.render import Drawn
from dpe_jobs.generation.render.charts.asking import ASKS, ask
from dpe_jobs.generation.render.charts.drawing import draw
from dpe_jobs.generation.render.charts.figure import Style
from dpe_jobs.generation.render.charts.plan import Unsuitable
from dpe_jobs.generation.render.charts.planning import DENSITIES, plan_chart
from dpe_jobs.generation.render.charts.reader import solve
from dpe_jobs.generation.render.records import NAMES, POINT_SETS
from dpe_jobs.generation.render.scene import Scene

CHARTS = ("bar", "line", "pie", "scatter")
VALUES = ("printed", "drawn")
_KNOBS = {"chart_graph": {"chart": CHARTS, "asks": ASKS, "values": VALUES, "density": DENSITIES}}
_FACETS = {"chart_graph": _KNOBS["chart_graph"] | {"table": (*NAMES, *POINT_SETS)}}
_TRIES = 300  # of figures; most fail before anything is drawn


class Charts:
    """The program `charts`."""

    name = "charts"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """The DPE paper's charts and graphs."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """Kind of chart, what is asked, whether values are printed, and how much there is to see."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs, and the table that is shown."""
        return _FACETS[category]

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 520 to 680 by 380 to 480 pixels."""
        for _ in range(_TRIES):
            try:
                plan = plan_chart(knobs, rng)
                written = ask(knobs["asks"], plan, rng)
                image, scene = draw(plan, Style.drawn(rng))
            except Unsuitable:
                continue
            return Drawn(image, {**knobs, "table": plan.source}, scene, written)
        raise ValueError(f"no table suits {dict(knobs)}")

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer, measured in the display list: see `reader`."""
        return solve(scene, question, choices)
