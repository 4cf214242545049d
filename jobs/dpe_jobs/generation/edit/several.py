"""More than one: two pictures beside each other, or copies of one shape."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dpe_jobs.generation.edit import figure, kept, reader
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form

_SIDES = ("left", "right", "top", "bottom")
_COPIES = ("1", "2", "3", "4", "5", "6")
_TRIES = 400  # of a place for a copy
_APART = 3  # pixels between copies, and to the rim


class Compose:
    """The program `compose`: two pictures of one shape each, and a question about one of them."""

    name = "compose"
    vocabulary: Mapping[str, tuple[str, ...]] = {
        "asked_color": kept.VOCABULARY["color"],
        "asked_shape": kept.VOCABULARY["shape"],
        "side": _SIDES,
    }

    def categories(self) -> tuple[str, ...]:
        return ("color_where", "shape_where")

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        colors, shapes = kept.VOCABULARY["color"], kept.VOCABULARY["shape"]
        return {
            "side": _SIDES,
            "asked_color": colors,
            "asked_shape": shapes,
            "other_color": colors,
            "other_shape": shapes,
        }

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return tuple({name: knobs[f"{which}_{name}"] for name in kept.FACTS} for which in ("asked", "other"))

    def forms(self, category: str) -> tuple[Form, ...]:
        if category == "color_where":
            return (
                Form("what color is the shape on the {side}?", "asked_color"),
                Form("what is the color of the shape on the {side}?", "asked_color"),
            )
        return (
            Form("what shape is on the {side}?", "asked_shape"),
            Form("what is the shape on the {side}?", "asked_shape"),
        )

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        asked, other = (picture.image for picture in pictures)
        if abs(asked.width * other.height - other.width * asked.height) > 0.02 * asked.width * other.height:
            raise NoImage("the two pictures have different proportions: one would be stretched")
        other = other.resize(asked.size, Image.Resampling.LANCZOS)
        side = knobs["side"]
        first, second = (asked, other) if side in ("left", "top") else (other, asked)
        upright = side in ("top", "bottom")
        width, height = asked.size
        image = Image.new("RGB", (width, 2 * height) if upright else (2 * width, height))
        image.paste(first, (0, 0))
        image.paste(second, (0, height) if upright else (width, 0))
        facts = {"side": side}
        for which, picture in zip(("asked", "other"), pictures, strict=True):
            facts |= {f"{which}_{name}": picture.facts[name] for name in kept.FACTS}
        return Drawn(image, facts)

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question)


class Duplicate:
    """The program `duplicate`: copies of one shape, none touching another."""

    name = "duplicate"
    vocabulary: Mapping[str, tuple[str, ...]] = {**kept.VOCABULARY, "copies": _COPIES}

    def categories(self) -> tuple[str, ...]:
        return ("counting",)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return {"copies": _COPIES, **kept.VOCABULARY}

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return kept.originals(knobs, *kept.FACTS)

    def forms(self, category: str) -> tuple[Form, ...]:
        return (
            Form("how many shapes are in the picture?", "copies"),
            Form("how many {color} shapes are there?", "copies"),
            Form("how many copies of the {shape} are there?", "copies"),
        )

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        (picture,) = pictures
        found = figure.find(picture.image)
        left, top, right, bottom = found.box
        cover, count = found.cover[top:bottom, left:right], int(knobs["copies"])
        height, width = found.pixels.shape[:2]
        # a larger ground where the copies need it; they keep their size
        while (places := _places(rng, count, cover.shape, (height, width))) is None:
            height, width = height * 3 // 2, width * 3 // 2
        pixels = np.tile(found.ground, (height, width, 1))
        for y, x in places:
            there = pixels[y : y + cover.shape[0], x : x + cover.shape[1]]
            there += cover[..., None] * (found.color - found.ground)
        facts = {name: picture.facts[name] for name in kept.FACTS} | {"copies": knobs["copies"]}
        return Drawn(figure.as_image(pixels), facts)

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question)


def _places(
    rng: random.Random, count: int, size: tuple[int, ...], canvas: tuple[int, int]
) -> list[tuple[int, int]] | None:
    """Top and left of each copy; None when they do not fit."""
    rows, columns = (canvas[i] - size[i] - 2 * _APART for i in (0, 1))
    if rows < 0 or columns < 0:
        return None
    places: list[tuple[int, int]] = []
    for _ in range(_TRIES):
        if len(places) == count:
            break
        y, x = _APART + rng.randint(0, rows), _APART + rng.randint(0, columns)
        if all(abs(y - v) >= size[0] + _APART or abs(x - u) >= size[1] + _APART for v, u in places):
            places.append((y, x))
    return places if len(places) == count else None
