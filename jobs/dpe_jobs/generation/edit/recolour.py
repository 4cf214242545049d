"""Another colour for the one shape of a picture."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dpe_jobs.generation.edit import figure, kept
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form
from dpe_jobs.generation.render.shapes import COLORS

_SEEN = 40.0  # levels of 256: a smaller change is none that anybody sees


class Recolour:
    """The program `recolour`: its knob `color` is the new one, `shape` is that of the original."""

    name = "recolour"
    vocabulary: Mapping[str, tuple[str, ...]] = kept.VOCABULARY

    def categories(self) -> tuple[str, ...]:
        return kept.CATEGORIES

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return kept.knobs(category)

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return kept.originals(knobs, "shape")

    def forms(self, category: str) -> tuple[Form, ...]:
        return kept.forms(category)

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """Each pixel moves by the share of it that the shape covers, so that smooth edges stay smooth."""
        (picture,) = pictures
        found = figure.find(picture.image)
        color = np.array(COLORS[knobs["color"]], dtype=np.float64)
        if np.abs(color - found.color).max() < _SEEN:
            raise NoImage(f"the shape is {knobs['color']} already")
        painted = found.pixels + found.cover[..., None] * (color - found.color)
        return Drawn(figure.as_image(painted), {"shape": picture.facts["shape"], "color": knobs["color"]})

    def answer(self, image: Image.Image, question: str) -> str:
        return kept.answer(image, question)
