"""Something is done to one quarter of a picture: it is covered, or blurred."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from dpe_jobs.generation.edit import figure, kept, reader
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form

QUARTERS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
"""Column and row of each."""
COVERS = {"magenta": (255, 0, 255), "orange": (255, 140, 0), "cyan": (0, 255, 255), "white": (255, 255, 255)}
_CHOICES = "top left, top right, bottom left or bottom right"
_SIMILAR = 40  # levels of 256, in every channel
_MOST_SIMILAR = 0.05  # of the picture may have nearly the cover's colour before
_LEAST_LEFT = 0.5  # of the shape stays visible
_SHARP = 4.0  # levels: mean edge response of a quarter that is plainly in focus
_BLUR = 24  # the radius is the shorter side divided by this
_SMALLEST = 64  # pixels a side


def _box(image: Image.Image, quarter: str) -> tuple[int, int, int, int]:
    column, row = QUARTERS[quarter]
    middle_x, middle_y = image.width // 2, image.height // 2
    return (
        column * middle_x,
        row * middle_y,
        image.width if column else middle_x,
        image.height if row else middle_y,
    )


class Occlude:
    """The program `occlude`: a box over a quarter of any picture, or over a part of a shape, which then has none."""

    name = "occlude"
    vocabulary: Mapping[str, tuple[str, ...]] = {
        **kept.VOCABULARY,
        "covered": tuple(QUARTERS),
        "cover": tuple(COVERS),
    }

    def categories(self) -> tuple[str, ...]:
        return ("color", "color_fine", "covered")

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        if category == "covered":
            return {"covered": tuple(QUARTERS), "cover": tuple(COVERS)}
        return {"color": kept.knobs(category)["color"]}

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return ({},) if category == "covered" else kept.originals(knobs, "color")

    def forms(self, category: str) -> tuple[Form, ...]:
        if category != "covered":
            return kept.forms(category, without="shape")
        return (Form(f"which quarter of the picture is covered by a {{cover}} box: {_CHOICES}?", "covered"),)

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        (picture,) = pictures
        if category != "covered":
            return Drawn(_cut_away(picture.image, rng), {"color": picture.facts["color"]})
        cover = COVERS[knobs["cover"]]
        pixels = np.asarray(picture.image, dtype=np.int16)
        if (np.abs(pixels - np.array(cover)).max(axis=-1) <= _SIMILAR).mean() > _MOST_SIMILAR:
            raise NoImage(f"the picture has much {knobs['cover']} of its own")
        image = picture.image.copy()
        image.paste(cover, _box(image, knobs["covered"]))
        return Drawn(image, {"covered": knobs["covered"], "cover": knobs["cover"]})

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question) if reader.is_about_edit(question) else kept.answer(image, question)


def _cut_away(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with a box of the ground's colour over one side of the shape."""
    found = figure.find(image)
    left, top, right, bottom = found.box
    share = rng.uniform(0.2, 1 - _LEAST_LEFT)
    wide, tall = round((right - left) * share), round((bottom - top) * share)
    box = rng.choice(
        [
            (left, top, left + wide, bottom),
            (right - wide, top, right, bottom),
            (left, top, right, top + tall),
            (left, bottom - tall, right, bottom),
        ]
    )
    hidden = found.cover[box[1] : box[3], box[0] : box[2]].sum()
    if found.area - hidden < max(_LEAST_LEFT * found.area, 40):
        raise NoImage("too little of the shape would be left")
    image = image.copy()
    image.paste((int(found.ground[0]), int(found.ground[1]), int(found.ground[2])), box)
    return image


class Blur:
    """The program `blur`: one quarter of any picture is out of focus."""

    name = "blur"
    vocabulary: Mapping[str, tuple[str, ...]] = {"blurred": tuple(QUARTERS)}

    def categories(self) -> tuple[str, ...]:
        return ("focus",)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return {"blurred": tuple(QUARTERS)}

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return ({},)

    def forms(self, category: str) -> tuple[Form, ...]:
        return (Form(f"which quarter of the picture is out of focus: {_CHOICES}?", "blurred"),)

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        (picture,) = pictures
        image = picture.image.copy()
        if min(image.size) < _SMALLEST:
            raise NoImage(f"{image.width}x{image.height} pixels, fewer than {_SMALLEST} a side")
        edges = np.asarray(image.convert("L").filter(ImageFilter.FIND_EDGES), dtype=np.float64)
        for quarter in QUARTERS:
            left, top, right, bottom = _box(image, quarter)
            # the filter leaves the picture's rim as it was
            if (
                edges[max(top, 1) : min(bottom, image.height - 1), max(left, 1) : min(right, image.width - 1)].mean()
                < _SHARP
            ):
                raise NoImage(f"the {quarter} of the picture is not sharp")
        box = _box(image, knobs["blurred"])
        radius = min(image.size) / _BLUR
        image.paste(image.crop(box).filter(ImageFilter.GaussianBlur(radius)), box)
        return Drawn(image, {"blurred": knobs["blurred"]})

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question)
