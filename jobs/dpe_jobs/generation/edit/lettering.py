"""A word written on a picture."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dpe_jobs.generation.edit import reader
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form
from dpe_jobs.generation.render.pen import Pen, text_size

WORDS = (
    "apple", "bridge", "candle", "dolphin", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle",
    "lemon", "market", "needle", "orange", "pencil", "quartz", "river", "saddle", "tunnel", "umbrella", "velvet",
    "window", "yellow",
)  # fmt: skip
LABEL = (255, 214, 0)
_SIMILAR = 40  # levels of 256, in every channel
_MOST_SIMILAR = 0.005  # of the picture may have nearly the label's colour before
_SMALLEST = 128  # pixels a side: letters need room
_TEXT_SHARE = 8  # the text is the shorter side divided by this tall
_FONTS = ("sans", "bold", "mono", "serif")


class OverlayText:
    """The program `overlay-text`."""

    name = "overlay-text"
    vocabulary: Mapping[str, tuple[str, ...]] = {"written": WORDS}

    def categories(self) -> tuple[str, ...]:
        return ("reading",)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return {"written": WORDS}

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return ({},)

    def forms(self, category: str) -> tuple[Form, ...]:
        return (
            Form("what word is written on the yellow label?", "written"),
            Form("what does the yellow label in the picture say?", "written"),
        )

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A yellow label with the word, wholly inside the picture, which is enlarged when it is small."""
        (picture,) = pictures
        image = picture.image
        if min(image.size) < _SMALLEST:
            times = -(-_SMALLEST // min(image.size))
            image = image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, dtype=np.int16)
        if (np.abs(pixels - np.array(LABEL)).max(axis=-1) <= _SIMILAR).mean() > _MOST_SIMILAR:
            raise NoImage("the picture has the label's yellow of its own")
        font, size = rng.choice(_FONTS), min(image.size) / _TEXT_SHARE
        wide, tall = text_size(knobs["written"], size, font)
        width, height = round(wide + size), round(tall + size)
        if width > image.width or height > image.height:
            raise NoImage("the word does not fit into the picture")
        label = Pen("#{:02x}{:02x}{:02x}".format(*LABEL), width, height)
        label.text((width / 2, height / 2), knobs["written"], size, "#000000", "word", font=font)
        image = image.copy()
        image.paste(label.finish()[0], (rng.randint(0, image.width - width), rng.randint(0, image.height - height)))
        return Drawn(image, {"written": knobs["written"]})

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question)
