"""A figure of matplotlib that keeps its display list.

The list is taken from matplotlib's own artists after they were drawn, where its transforms put them, and not from the
numbers that they were made of.
"""

import functools
import random
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from dpe_jobs.generation.render.scene import Box, Mark, Point, Scene

_DPI = 100
_POINT = _DPI / 72  # pixels
_PALETTES = (
    ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#9a55b8", "#937860", "#da8bc3", "#64b5cd"),
    ("#1b6ca8", "#e4572e", "#17806d", "#f2a541", "#7a3e9d", "#6b705c", "#d1495b", "#3aa6b9"),
    ("#1d3440", "#2a9d8f", "#e9c46a", "#e76f51", "#8ab17d", "#7d4f8c", "#b56576", "#457b9d"),
    ("#d62828", "#003049", "#f77f00", "#588157", "#9d4edd", "#0096c7", "#7f5539", "#ef6fa8"),
)
_GROUNDS = ("#ffffff", "#ffffff", "#faf6ee", "#eef3f8", "#f3eef6", "#edf5ee", "#f4f4f4", "#fdf1ec", "#e4e9ee")
_PLOTS = ("#ffffff", "same", "#f0f2f5", "#fbf8f1")
_FONTS = ("DejaVu Sans", "DejaVu Sans", "DejaVu Serif")
INK = "#222222"


@dataclass(frozen=True, slots=True)
class Style:
    """What changes nothing about the answer."""

    width: int
    height: int
    palette: tuple[str, ...]
    ground: str
    plot: str
    font: str
    grid: bool
    text: float
    """Pixels of the em."""

    @classmethod
    def drawn(cls, rng: random.Random) -> "Style":
        """Any."""
        palette = list(rng.choice(_PALETTES))
        rng.shuffle(palette)
        ground, plot = rng.choice(_GROUNDS), rng.choice(_PLOTS)
        return cls(
            width=rng.randrange(520, 681, 20),
            height=rng.randrange(380, 481, 20),
            palette=tuple(palette),
            ground=ground,
            plot=ground if plot == "same" else plot,
            font=rng.choice(_FONTS),
            grid=rng.random() < 0.6,
            text=rng.choice((12.0, 13.0, 14.0)),
        )


@functools.lru_cache(maxsize=1)
def _settings() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "dpe", "path.simplify": False, "axes.unicode_minus": False})


class Sheet:
    """One figure. Positions of texts and boxes are in pixels from its left upper corner."""

    def __init__(self, style: Style) -> None:
        _settings()
        self.style = style
        self.figure = Figure(figsize=(style.width / _DPI, style.height / _DPI), dpi=_DPI, facecolor=style.ground)
        self._canvas = FigureCanvasAgg(self.figure)
        self._kept: list[tuple[str, str, Any]] = []

    def axes(self, box: Box, *, framed: bool = True) -> Any:
        """Axes that fill a box; without a frame their ground is the figure's."""
        w, h = self.style.width, self.style.height
        left, top, right, bottom = box
        axes = self.figure.add_axes((left / w, 1 - bottom / h, (right - left) / w, (bottom - top) / h))
        axes.set_frame_on(framed)
        if framed:
            axes.set_facecolor(self.style.plot)
            self.keep("patch", "plot", axes.patch)
        return axes

    def keep(self, kind: str, role: str, artist: Any) -> None:
        """Note an artist for the display list: "patch", "line", "dots" or "text"."""
        self._kept.append((kind, role, artist))

    def text(self, at: Point, text: str, role: str, *, size: float | None = None, **options: Any) -> Any:
        """A text at a point, aligned as matplotlib names alignments."""
        artist = self.figure.text(
            at[0] / self.style.width,
            1 - at[1] / self.style.height,
            text,
            fontsize=(size or self.style.text) / _POINT,
            fontfamily=self.style.font,
            **{"color": INK, "ha": "center", "va": "center"} | options,
        )
        self.keep("text", role, artist)
        return artist

    def swatch(self, box: Box, color: str, role: str) -> None:
        """A small filled rectangle."""
        from matplotlib.patches import Rectangle

        w, h = self.style.width, self.style.height
        patch = Rectangle(
            (box[0] / w, 1 - box[3] / h),
            (box[2] - box[0]) / w,
            (box[3] - box[1]) / h,
            transform=self.figure.transFigure,
            facecolor=color,
            linewidth=0,
        )
        self.figure.add_artist(patch)
        self.keep("patch", role, patch)

    def finish(self) -> tuple[Image.Image, Scene]:
        """The picture and its display list."""
        self._canvas.draw()
        width, height = self.style.width, self.style.height
        pixels = np.asarray(self._canvas.buffer_rgba())
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        marks = [mark for kept in self._kept for mark in self._marks(*kept)]
        return image, Scene(width, height, tuple(marks))

    def _marks(self, kind: str, role: str, artist: Any) -> list[Mark]:
        if kind == "text":
            return [self._text(role, artist)]
        if kind == "patch":
            return [self._patch(role, artist)]
        points = self._flip(artist.get_transform().transform(artist.get_xydata()))
        color = to_hex(artist.get_color())
        if kind == "line":
            return [Mark("line", role, points, color, size=artist.get_linewidth() * _POINT)]
        half = artist.get_markersize() * _POINT / 2
        return [
            Mark("ellipse", role, ((x - half, y - half), (x + half, y + half)), to_hex(artist.get_markerfacecolor()))
            for x, y in points
        ]

    def _flip(self, points: Any) -> tuple[Point, ...]:
        return tuple((float(x), self.style.height - float(y)) for x, y in points)

    def _text(self, role: str, artist: Any) -> Mark:
        found = artist.get_window_extent(self._canvas.get_renderer())
        corners = self._flip([(found.x0, found.y1), (found.x1, found.y0)])
        size = artist.get_fontsize() * _POINT
        return Mark("text", role, corners, to_hex(artist.get_color()), artist.get_text(), size)

    def _patch(self, role: str, artist: Any) -> Mark:
        path = artist.get_path().transformed(artist.get_transform())
        points = self._flip(path.to_polygons(closed_only=False)[0])
        kind: Literal["rect", "polygon"] = "polygon"
        if len(points) <= 5:
            xs, ys = [x for x, _ in points], [y for _, y in points]
            kind, points = "rect", ((min(xs), min(ys)), (max(xs), max(ys)))
        return Mark(kind, role, points, to_hex(artist.get_facecolor()))
