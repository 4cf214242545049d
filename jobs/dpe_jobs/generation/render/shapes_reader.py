"""Reads pictures with one shape on a light ground, and answers questions about them, from pixels and text alone.

It shares nothing with the drawing program but the words, so that a mistake there does not repeat itself here. It reads
easy-vqa's own pictures as well.
"""

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# what people call these hues; the nearest one names a pixel
_HUES = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
_SHAPES = ("circle", "rectangle", "triangle")
_FOREGROUND = 60.0  # Euclidean distance in RGB from the ground
_LARGEST = 256  # pixels a side; easy-vqa's have 64
_NOISE = 0.1  # coverage below which a pixel is ground: what smoothing leaves around edges
# Share of its bounding box that a shape covers: rectangle 1, circle pi/4, triangle 1/2; pixels round small ones
# to .77-.87 and .52-.69 (all of easy-vqa, and 3000 drawings of each shape).
_CIRCLE_FROM, _RECTANGLE_FROM = 0.73, 0.93


def shrunk(image: Image.Image, largest: int) -> Image.Image:
    """A picture of at most so many pixels a side: one shape is no harder to tell in it, and memory is finite."""
    small = image.convert("RGB")  # a copy
    small.thumbnail((largest, largest), Image.Resampling.BOX)
    return small


def read_facts(image: Image.Image) -> dict[str, str]:
    """Colour and shape of what is in the picture. ValueError: it is empty."""
    pixels: NDArray[np.float64] = np.asarray(shrunk(image, _LARGEST), dtype=np.float64)  # [height, width, 3]
    ground = np.median(pixels.reshape(-1, 3), axis=0)  # the shape covers less than half
    away = np.linalg.norm(pixels - ground, axis=-1)
    figure = pixels[away > _FOREGROUND]
    if len(figure) == 0:
        raise ValueError("there is nothing in the picture")
    hues = np.array(list(_HUES.values()), dtype=np.float64)
    nearest = np.linalg.norm(figure[:, None, :] - hues[None], axis=-1).argmin(axis=1)
    color = list(_HUES)[int(np.bincount(nearest).argmax())]
    # how much of each pixel the figure covers, along the line from the ground's colour to the figure's
    line = np.array(_HUES[color], dtype=np.float64) - ground
    covered = np.clip(((pixels - ground) @ line) / (line @ line), 0, 1)
    covered[covered < _NOISE] = 0
    # its widest row times its tallest column, to a fraction of a pixel
    share = covered.sum() / (covered.sum(axis=1).max() * covered.sum(axis=0).max())
    shape = "rectangle" if share >= _RECTANGLE_FROM else "circle" if share >= _CIRCLE_FROM else "triangle"
    return {"color": color, "shape": shape}


def answer(image: Image.Image, question: str) -> str:
    """The answer to one of the questions that easy-vqa asks.

    ValueError: the question is not understood, or supposes something that is not in the picture.
    """
    seen = read_facts(image)
    words = re.findall(r"[a-z]+", question.lower())
    named = [word for word in words if word in _HUES or word in _SHAPES]
    if len(named) > 1:
        raise ValueError(f"{question!r} names {' and '.join(named)}")
    if words[:1] == ["what"]:
        absent = [word for word in named if word not in seen.values()]
        if absent:
            raise ValueError(f"{question!r} supposes a {absent[0]} one, and there is none")
        if "color" in words:
            return seen["color"]
        if "shape" in words:
            return seen["shape"]
    elif words[:1] in (["is"], ["does"]) and named:
        present = named[0] in seen.values()
        negated = "not" in words or "no" in words
        return "yes" if present != negated else "no"
    raise ValueError(f"{question!r} is no question about colour, shape or existence")
