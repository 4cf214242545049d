"""Text where people meet it: signs at a road, jars on a shelf, receipts, notices."""

import random
from collections.abc import Callable, Mapping, Sequence

from dpe_jobs.generation.render import Drawn, Written
from dpe_jobs.generation.render.grounds import ground
from dpe_jobs.generation.render.pen import Pen
from dpe_jobs.generation.render.scene import Scene
from dpe_jobs.generation.render.scene_text import notice, receipt, shelf, signs
from dpe_jobs.generation.render.scene_text.reader import solve
from dpe_jobs.generation.render.scene_text.words import NoRoom

ASKS = ("read", "count", "compare")
_SCENES: Mapping[str, Callable[[Pen, Mapping[str, str], random.Random], Written]] = {
    "signs": signs.draw,
    "shelf": shelf.draw,
    "receipt": receipt.draw,
    "notice": notice.draw,
}
_GROUNDS = {
    "signs": ("grass", "street"),
    "shelf": ("wall", "plain"),
    "receipt": ("wood", "cloth", "paper"),
    "notice": ("wall", "wood", "street"),
}
_MORE: Mapping[str, tuple[str, ...]] = {"asks": ASKS, "letters": ("large", "small"), "clutter": ("little", "much")}
_KNOBS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "text_dense": {"scene": ("receipt", "notice"), **_MORE},
    "mixed": {"scene": ("signs", "shelf"), **_MORE},
}
_ANY_GROUND = tuple(dict.fromkeys(name for names in _GROUNDS.values() for name in names))
_TRIES = 200


class SceneText:
    """The program `scene-text`."""

    name = "scene-text"
    licence = "Apache-2.0"

    def categories(self) -> tuple[str, ...]:
        """Two of the DPE paper's: papers full of text, and things with text on them."""
        return tuple(_KNOBS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """Where the text stands, what is asked, how large it is written, and how much of it there is."""
        return _KNOBS[category]

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The knobs, and what is behind it all."""
        return {**_KNOBS[category], "ground": _ANY_GROUND}

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 480 to 640 by 400 to 520 pixels."""
        for _ in range(_TRIES):
            behind = rng.choice(_GROUNDS[knobs["scene"]])
            pen = Pen(ground(behind, rng), rng.randrange(500, 641, 20), rng.randrange(420, 521, 20))
            try:
                written = _SCENES[knobs["scene"]](pen, knobs, rng)
            except NoRoom:
                continue
            image, scene = pen.finish()
            return Drawn(image, {**knobs, "ground": behind}, scene, written)
        raise ValueError(f"no scene has room for {dict(knobs)}")

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer, read from the texts of the display list: see `reader`."""
        return solve(scene, question, choices)
