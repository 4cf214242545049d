"""Pictures beside each other: the original on the left, what was made of it on the right."""

import numpy as np
from PIL import Image

from dpe_jobs.generation.images import NoImage

GAP = 8  # pixels, white
_LARGEST = 384  # pixels a side
_SMALLEST = 32


def square(image: Image.Image) -> Image.Image:
    """The middle of a picture, at most 384 pixels a side. NoImage: it is too small to see anything in it."""
    side = min(image.size)
    if side < _SMALLEST:
        raise NoImage(f"the picture has {image.width}x{image.height} pixels, fewer than {_SMALLEST} a side")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.convert("RGB").crop((left, top, left + side, top + side))
    return middle if side <= _LARGEST else middle.resize((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one size, with a white gap between them."""
    both = Image.new("RGB", (left.width + GAP + right.width, left.height), (255, 255, 255))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def unlike(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures of one size, in levels of 256."""
    return float(np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)).mean())
