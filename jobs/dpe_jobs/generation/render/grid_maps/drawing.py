"""Draws a town from above."""

import random

from PIL import Image

from dpe_jobs.generation.render.grid_maps.town import Town
from dpe_jobs.generation.render.pen import Pen, text_size, tinted
from dpe_jobs.generation.render.scene import Point, Scene

_CELLS = {5: 84, 6: 72, 7: 68, 8: 62, 9: 60}  # pixels a side, by the number of columns
_LEFT, _TOP, _RIGHT, _BOTTOM = 34, 34, 92, 46  # pixels: letters and numbers, compass, scale
_GAP = 2.0  # pixels between cells
_PAPERS = (
    # paper, land, other land, ink
    ("#f4efe4", "#e4dcc8", "#dce3c8", "#2b2b2b"),
    ("#eef2f5", "#d9e0e4", "#d3e2d0", "#1d2733"),
    ("#ffffff", "#ececec", "#dfeeda", "#222222"),
    ("#faf3f0", "#eedfd6", "#e0e6cf", "#33241d"),
    ("#e9eee4", "#cfdcc2", "#e2dcc0", "#22301b"),
    ("#fffbe9", "#f3e6b8", "#e2ecc4", "#3a3117"),
)
_WATER = ("#5b9bd5", "#4a8fcb", "#6aa9dc", "#4f86c6")
_PINS = ("#c0392b", "#8e44ad", "#d35400", "#16734f", "#7a4b2a", "#ad1457", "#37474f")


def draw(town: Town, rng: random.Random) -> tuple[Image.Image, Scene]:
    """Picture and display list."""
    side = _CELLS[max(town.columns, town.rows)]
    paper, land, other, ink = rng.choice(_PAPERS)
    paper, land, other = (tinted(color, rng, 8) for color in (paper, land, other))
    water = rng.choice(_WATER)
    width, height = _LEFT + side * town.columns + _RIGHT, _TOP + side * town.rows + _BOTTOM
    pen = Pen(paper, width, height)

    def middle(x: float, y: float) -> Point:
        return _LEFT + side * (x + 0.5), _TOP + side * (y + 0.5)

    for x in range(town.columns):
        pen.text((middle(x, 0)[0], _TOP - 15), chr(ord("A") + x), 15, ink, "letter", font="bold")
        for y in range(town.rows):
            wet = (x, y) in town.water
            color = water if wet else other if rng.random() < 0.3 else land
            left, top = _LEFT + side * x + _GAP / 2, _TOP + side * y + _GAP / 2
            pen.rect((left, top, left + side - _GAP, top + side - _GAP), color, "cell", radius=4)
            if wet:
                _waves(pen, middle(x, y), side)
    for y in range(town.rows):
        pen.text((_LEFT - 16, middle(0, y)[1]), str(y + 1), 15, ink, "number", font="bold")
    for name, cell in town.places.items():
        _place(pen, name, middle(*cell), side, rng.choice(_PINS), ink)
    _compass(pen, town, (width - _RIGHT / 2, _TOP + 52), ink)
    _scale(pen, town, side, height, ink)
    return pen.finish()


def _waves(pen: Pen, at: Point, side: float) -> None:
    for dy in (-0.16, 0.16):
        points = [(at[0] + side * dx / 10, at[1] + side * (dy + (0.05 if dx % 2 else -0.02))) for dx in range(-2, 3)]
        pen.line(points, "#d9ecfa", 1.5, "wave")


def _place(pen: Pen, name: str, at: Point, side: float, color: str, ink: str) -> None:
    """A pin, and the name under it."""
    x, y, r = at[0], at[1] - side * 0.14, side * 0.15
    pen.polygon([(x - r * 0.8, y + r * 0.45), (x + r * 0.8, y + r * 0.45), (x, y + r * 1.9)], color, "pin")
    pen.ellipse((x - r, y - r, x + r, y + r), color, "pin")
    pen.ellipse((x - r * 0.4, y - r * 0.4, x + r * 0.4, y + r * 0.4), "#ffffff", "pin hole")
    size = next(s for s in (13.0, 12.5, 12.0, 11.5, 11.0, 10.5, 10.0) if text_size(name, s)[0] <= side - 4)
    pen.text((x, at[1] + side * 0.33), name, size, ink, "place")


def _compass(pen: Pen, town: Town, at: Point, ink: str) -> None:
    """An arrow to the north with an N beyond its tip."""
    dx, dy = town.north
    tail, neck = (at[0] - 22 * dx, at[1] - 22 * dy), (at[0] + 6 * dx, at[1] + 6 * dy)
    tip = (at[0] + 22 * dx, at[1] + 22 * dy)
    pen.line([tail, neck], ink, 4, "needle")
    pen.polygon([tip, (neck[0] - 9 * dy, neck[1] + 9 * dx), (neck[0] + 9 * dy, neck[1] - 9 * dx)], ink, "needle tip")
    pen.text((at[0] + 34 * dx, at[1] + 34 * dy), "N", 17, ink, "north", font="bold")


def _scale(pen: Pen, town: Town, side: float, height: int, ink: str) -> None:
    """A bar as long as a cell, and what it means."""
    y = height - 20
    pen.line([(_LEFT, y), (_LEFT + side, y)], ink, 3, "scale")
    for x in (_LEFT, _LEFT + side):
        pen.line([(x, y - 6), (x, y + 6)], ink, 2, "scale end")
    pen.text((_LEFT + side + 12, y), f"{town.metres} m", 14, ink, "scale text", anchor="lm")
