"""Finds the one figure of a picture with an even ground, for edits that move, cut or paint it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dpe_jobs.generation.images import NoImage

Pixels = NDArray[np.float64]

_EVEN = 24.0  # levels of 256: how far the ground's pixels may lie from its median
_APART = 48.0  # levels: what is further from the ground, in any channel, belongs to the figure
_SMALLEST = 24  # pixels
_LARGEST_SHARE = 0.45  # of the picture: a larger one leaves no ground to tell it from
_INNER = 0.9  # coverage from which a pixel shows the figure's colour alone


@dataclass(frozen=True, slots=True)
class Figure:
    """One coloured figure on an even ground."""

    pixels: Pixels
    """[height, width, 3], of the whole picture."""
    ground: Pixels
    """[3]"""
    color: Pixels
    """[3]"""
    cover: Pixels
    """[height, width]: how much of each pixel the figure covers, 0 to 1."""
    box: tuple[int, int, int, int]
    """left, top, right, bottom: all that is covered lies inside."""

    @property
    def area(self) -> float:
        """Pixels that it covers."""
        return float(self.cover.sum())


def as_image(pixels: Pixels) -> Image.Image:
    """The picture of [height, width, 3] levels."""
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def find(image: Image.Image) -> Figure:
    """The figure of a picture. NoImage: the ground is not even, or there is not exactly one figure of one colour."""
    pixels: Pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(rim, axis=0)
    away = np.abs(pixels - ground).max(axis=-1)
    inside = away > _APART
    # what smoothing left around the edge belongs to it as well
    near = ndimage.binary_dilation(inside, iterations=2)
    if (away[~near] > _EVEN).any():
        raise NoImage("the ground is not even: no figure can be told from it")
    _, count = ndimage.label(inside, structure=np.ones((3, 3)))
    if count != 1 or inside.sum() < _SMALLEST:
        raise NoImage(f"{count} figures, not one of at least {_SMALLEST} pixels")
    if inside.mean() > _LARGEST_SHARE:
        raise NoImage(f"the figure covers {inside.mean():.0%} of the picture")
    core = ndimage.binary_erosion(inside)
    color = np.median(pixels[core if core.sum() >= _SMALLEST // 4 else inside], axis=0)
    line = color - ground
    cover = np.clip(((pixels - ground) @ line) / (line @ line), 0, 1) * near
    off = np.abs(pixels - (ground + cover[..., None] * line)).max(axis=-1)
    if (off[cover > _INNER] > _APART).mean() > 0.02:
        raise NoImage("the figure has more than one colour")
    rows, columns = np.nonzero(cover.max(axis=1) > 0.02)[0], np.nonzero(cover.max(axis=0) > 0.02)[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Figure(pixels, ground, color, cover, box)
