"""Parts of pictures: around one shape, or of anything, beside its original."""

import random
from collections.abc import Mapping, Sequence

from PIL import Image

from dpe_jobs.generation.edit import figure, kept, panels, reader
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form

_OWN = "part"
PARTS = {
    "top left": (0.0, 0.0),
    "top right": (0.5, 0.0),
    "bottom left": (0.0, 0.5),
    "bottom right": (0.5, 0.5),
    "center": (0.25, 0.25),
}
"""Left and top of each part, as shares of the side; each is half as wide and as tall as the picture."""
_TEXT = (
    "which part of the left picture does the right one show larger: top left, top right, bottom left, bottom right or "
    "center?"
)
_DIFFERENT = 8.0  # levels of 256, mean
_LARGEST_SHARE = 0.4  # of the part that the shape may cover
_MARGIN = 2  # pixels around the shape


class Crop:
    """The program `crop`."""

    name = "crop"
    vocabulary: Mapping[str, tuple[str, ...]] = {**kept.VOCABULARY, "part": tuple(PARTS)}

    def categories(self) -> tuple[str, ...]:
        return (*kept.CATEGORIES, _OWN)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return {"part": tuple(PARTS)} if category == _OWN else kept.knobs(category)

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return ({},) if category == _OWN else kept.originals(knobs, *kept.FACTS)

    def forms(self, category: str) -> tuple[Form, ...]:
        return (Form(_TEXT, "part"),) if category == _OWN else kept.forms(category)

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        (picture,) = pictures
        if category != _OWN:
            return Drawn(_around(picture.image, rng), {name: picture.facts[name] for name in kept.FACTS})
        whole = panels.square(picture.image)
        shown = {name: _enlarged(whole, place) for name, place in PARTS.items()}
        part = shown.pop(knobs["part"])
        if any(panels.unlike(part, other) < _DIFFERENT for other in shown.values()):
            raise NoImage(f"the {knobs['part']} looks nearly like another part of the picture")
        return Drawn(panels.beside(whole, part), {"part": knobs["part"]})

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question) if reader.is_about_edit(question) else kept.answer(image, question)


def _enlarged(whole: Image.Image, place: tuple[float, float]) -> Image.Image:
    side = whole.width
    left, top = (int(share * side) for share in place)
    return whole.crop((left, top, left + side // 2, top + side // 2)).resize(whole.size, Image.Resampling.BICUBIC)


def _around(image: Image.Image, rng: random.Random) -> Image.Image:
    """A part with the whole shape in it, as large as the picture was. NoImage: the shape leaves no room for one."""
    found = figure.find(image)
    left, top, right, bottom = found.box
    least = max(
        (right - left + 2 * _MARGIN) / image.width,
        (bottom - top + 2 * _MARGIN) / image.height,
        (found.area / _LARGEST_SHARE / (image.width * image.height)) ** 0.5,
    )
    if least > 0.9:
        raise NoImage("the shape is as large as the picture: nothing can be cut off")
    share = rng.uniform(max(least, 0.5), 0.95)
    width, height = round(image.width * share), round(image.height * share)
    x = _place(rng, right, left, width, image.width)
    y = _place(rng, bottom, top, height, image.height)
    return image.crop((x, y, x + width, y + height)).resize(image.size, Image.Resampling.BICUBIC)


def _place(rng: random.Random, end: int, start: int, length: int, whole: int) -> int:
    """Where a stretch of `length` begins that holds [start, end] and lies inside [0, whole]."""
    first, last = max(0, end + _MARGIN - length), min(start - _MARGIN, whole - length)
    return rng.randint(first, last) if first <= last else max(0, min(start, whole - length))
