"""Draws with Pillow and keeps the display list. The fonts are matplotlib's: every machine has the same ones."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from dpe_jobs.generation.render.scene import Box, Mark, Point, Scene

_SCALE = 2  # drawn larger and scaled down: smooth edges
FONTS = {
    "sans": "DejaVuSans.ttf",
    "bold": "DejaVuSans-Bold.ttf",
    "oblique": "DejaVuSans-Oblique.ttf",
    "mono": "DejaVuSansMono.ttf",
    "mono bold": "DejaVuSansMono-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
}


@functools.lru_cache(maxsize=512)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[name]
    # Raqm's shaping differs from machine to machine
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def text_size(text: str, size: float, font: str = "sans") -> tuple[float, float]:
    """Width and height of a text's ink, in pixels."""
    left, top, right, bottom = _font(font, round(size * _SCALE)).getbbox(text, anchor="ls")
    return (right - left) / _SCALE, (bottom - top) / _SCALE


def tinted(color: str, rng: random.Random, spread: int = 12) -> str:
    """A colour much like another one: no two pictures have quite the same ground."""
    return "#" + "".join(f"{min(255, max(0, v + rng.randint(-spread, spread))):02x}" for v in ImageColor.getrgb(color))


class Pen:
    """A picture in the making. Coordinates are pixels of the finished picture, and may be fractions."""

    def __init__(self, ground: Image.Image | str, width: int, height: int) -> None:
        """`ground`: a colour, or a picture that is stretched over the canvas."""
        size = (width * _SCALE, height * _SCALE)
        if isinstance(ground, str):
            self._image = Image.new("RGB", size, ground)
        else:
            self._image = ground.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        self._draw = ImageDraw.Draw(self._image)
        self.width, self.height = width, height
        self._marks: list[Mark] = []

    def _keep(self, mark: Mark) -> None:
        self._marks.append(mark)

    def rect(self, box: Box, color: str, role: str, radius: float = 0.0) -> None:
        """A filled rectangle, its corners rounded by `radius`."""
        self._draw.rounded_rectangle(_corners(box), radius=radius * _SCALE, fill=color)
        self._keep(Mark("rect", role, ((box[0], box[1]), (box[2], box[3])), color))

    def ellipse(self, box: Box, color: str, role: str) -> None:
        """A filled ellipse."""
        self._draw.ellipse(_corners(box), fill=color)
        self._keep(Mark("ellipse", role, ((box[0], box[1]), (box[2], box[3])), color))

    def polygon(self, points: Sequence[Point], color: str, role: str) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=color)
        self._keep(Mark("polygon", role, tuple(points), color))

    def line(self, points: Sequence[Point], color: str, width: float, role: str) -> None:
        """A line through points, `width` pixels wide."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=max(1, round(width * _SCALE)), joint="curve")
        self._keep(Mark("line", role, tuple(points), color, size=width))

    def text(
        self,
        at: Point,
        text: str,
        size: float,
        color: str,
        role: str,
        *,
        font: str = "sans",
        anchor: str = "mm",
    ) -> Box:
        """A text at a point of its, named as Pillow names anchors. Returns the box of its ink."""
        face = _font(font, round(size * _SCALE))
        place = (at[0] * _SCALE, at[1] * _SCALE)
        self._draw.text(place, text, fill=color, font=face, anchor=anchor)
        left, top, right, bottom = (v / _SCALE for v in self._draw.textbbox(place, text, font=face, anchor=anchor))
        self._keep(Mark("text", role, ((left, top), (right, bottom)), color, text, round(size * _SCALE) / _SCALE))
        return left, top, right, bottom

    def finish(self) -> tuple[Image.Image, Scene]:
        """The picture and its display list."""
        return self._image.reduce(_SCALE), Scene(self.width, self.height, tuple(self._marks))


def _corners(box: Box) -> tuple[float, float, float, float]:
    # Pillow paints the pixel of the right lower corner too
    left, top, right, bottom = (v * _SCALE for v in box)
    return left, top, max(left, right - 1), max(top, bottom - 1)


def noise(rng: random.Random, width: int, height: int, cells: Sequence[int]) -> NDArray[np.float32]:
    """Smooth noise in [-1, 1], [height, width]: a sum of random grids, each half as strong as the one before.

    `cells`: how many cells each grid has on a side.
    """
    total = np.zeros((height, width), dtype=np.float32)
    strength, sum_of_strengths = 1.0, 0.0
    for count in cells:
        # bytes of Python's generator: NumPy promises no equal streams over its versions
        grid = Image.frombytes("L", (count, count), rng.randbytes(count * count))
        smooth = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        total += strength * (smooth / 127.5 - 1)
        sum_of_strengths += strength
        strength /= 2
    return total / np.float32(sum_of_strengths)
