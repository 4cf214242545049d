"""One coloured shape on a light ground, with questions about it, in the manner and the words of easy-vqa.

No picture of easy-vqa is read: sizes, places and grounds are drawn from ranges like its own.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw

from dpe_jobs.generation.edit import figure
from dpe_jobs.generation.images import NoImage
from dpe_jobs.generation.render import TRUTH, Drawn, Form
from dpe_jobs.generation.render.shapes_reader import answer, read_facts, shrunk

SIDE = 64  # pixels
_OVERSAMPLING = 4  # drawn larger and scaled down: smooth edges
_SMALLEST, _LARGEST = 9.0, 34.0  # pixels
_TRIANGLE_HEIGHT = 0.9  # of its width

SHAPES = ("circle", "rectangle", "triangle")
BASIC = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}
FINE = {"gray": (128, 128, 128), "teal": (0, 128, 128), "brown": (165, 42, 42)}
COLORS = BASIC | FINE


@dataclass(frozen=True, slots=True)
class _Skill:
    knobs: Mapping[str, tuple[str, ...]]
    forms: tuple[Form, ...]


def _existence(named: str, asks: str) -> tuple[Form, ...]:
    texts = (
        f"is there a {named}?",
        f"is there a {named} in the image?",
        f"is a {named} present?",
        f"does the image contain a {named}?",
    )
    return tuple(Form(text, asks, "exists") for text in texts)


def _absence(named: str, asks: str) -> tuple[Form, ...]:
    texts = (
        f"is there not a {named}?",
        f"is there not a {named} in the image?",
        f"is no {named} present?",
        f"does the image not contain a {named}?",
    )
    return tuple(Form(text, asks, "absent") for text in texts)


_COLOR_FORMS = tuple(
    Form(text, "color")
    for text in (
        "what color is the shape?",
        "what color is the {shape}?",
        "what is the color of the shape?",
        "what is the color of the {shape}?",
    )
)
_SHAPE_FORMS = tuple(
    Form(text, "shape")
    for text in ("what shape is in the image?", "what shape is present?", "what shape does the image contain?")
)
_ANY = {"color": tuple(COLORS), "shape": SHAPES}
_YES_NO = {TRUTH: ("yes", "no")}
_SKILLS = {
    "color": _Skill({"color": tuple(BASIC), "shape": SHAPES}, _COLOR_FORMS),
    "color_fine": _Skill({"color": tuple(FINE), "shape": SHAPES}, _COLOR_FORMS),
    "shape": _Skill(_ANY, _SHAPE_FORMS),
    "shape_ref": _Skill(_ANY, (Form("what is the {color} shape?", "shape"),)),
    "exist_color": _Skill(_ANY | _YES_NO, _existence("{named} shape", "color")),
    "exist_shape": _Skill(_ANY | _YES_NO, _existence("{named}", "shape")),
    "negation": _Skill(_ANY | _YES_NO, _absence("{named} shape", "color") + _absence("{named}", "shape")),
}


class Shapes:
    """The program `shapes`."""

    name = "shapes"
    licence = "Apache-2.0"
    vocabulary: Mapping[str, tuple[str, ...]] = _ANY

    def categories(self) -> tuple[str, ...]:
        """The seven skills that the example asks for."""
        return tuple(_SKILLS)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """Colour, shape, and for yes/no questions the truth of what they name."""
        return _SKILLS[category].knobs

    def forms(self, category: str) -> tuple[Form, ...]:
        """Ways to ask in this category, in easy-vqa's words."""
        return _SKILLS[category].forms

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture of 64x64 pixels with one shape, wholly inside it."""
        shape, color = knobs["shape"], knobs["color"]
        ground = tuple(rng.randint(230, 255) for _ in range(3))
        image = Image.new("RGB", (SIDE * _OVERSAMPLING, SIDE * _OVERSAMPLING), ground)
        width = rng.uniform(_SMALLEST, _LARGEST)
        height = width
        if shape == "rectangle":
            height = rng.uniform(_SMALLEST, _LARGEST)
        elif shape == "triangle":
            height = width * _TRIANGLE_HEIGHT
        left, top = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
        x0, y0, x1, y1 = (v * _OVERSAMPLING for v in (left, top, left + width, top + height))
        pen = ImageDraw.Draw(image)
        if shape == "circle":
            pen.ellipse((x0, y0, x1, y1), fill=COLORS[color])
        elif shape == "rectangle":
            pen.rectangle((x0, y0, x1, y1), fill=COLORS[color])
        else:
            pen.polygon([((x0 + x1) / 2, y0), (x0, y1), (x1, y1)], fill=COLORS[color])
        return Drawn(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), {"shape": shape, "color": color})

    def answer(self, image: Image.Image, question: str) -> str:
        """The answer from pixels and text alone: see `shapes_reader`."""
        return answer(image, question)

    def read(self, image: Image.Image) -> Mapping[str, str]:
        """Colour and shape of a picture like easy-vqa's. ValueError: it shows anything but one figure on even ground.

        A photograph would be read as a shape like any other.
        """
        small = shrunk(image, SIDE)  # in which the edges of an enlarged one are no wider than they were drawn
        try:
            figure.find(small)
        except NoImage as error:
            raise ValueError(f"no picture of one shape: {error}") from error
        return read_facts(small)
