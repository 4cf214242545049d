"""Counts in the display list: an object is what its outline looks like, and a colour is what its hue is called."""

import colorsys
import math
import re

import numpy as np

from dpe_jobs.generation.render.legible import paint, rgb
from dpe_jobs.generation.render.scene import Mark, Scene

LEAST_VISIBLE = 0.3  # of an object, for its kind to be told
# corners of the outline: what bends less than this is round
_CORNER = math.radians(25)
_KINDS = {0: "ball", 1: "heart", 2: "heart", 3: "cone", 4: "box", 8: "bottle", 10: "star"}
# degrees of hue at which one colour ends
_HUES = ((14, "red"), (42, "orange"), (70, "yellow"), (170, "green"), (250, "blue"), (310, "purple"), (361, "red"))
_LARGE = 21.0  # pixels: half of an object's longest extent
_PLURALS = {"balls": "ball", "hearts": "heart", "cones": "cone", "boxes": "box", "bottles": "bottle", "stars": "star"}
_COLORS = {name for _, name in _HUES}
_WHAT = re.compile(r"^(?:(small|large) )?(?:([a-z]+) )?([a-z]+)$")


def _kind(mark: Mark) -> str:
    points = np.array(mark.points)
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    turns = np.abs(np.arctan2(cross, (before * after).sum(axis=1)))
    corners = int((turns > _CORNER).sum())
    if corners not in _KINDS:
        raise ValueError(f"an outline with {corners} corners is no known object")
    return _KINDS[corners]


def _color(mark: Mark) -> str:
    hue = colorsys.rgb_to_hsv(*(v / 255 for v in rgb(mark.color)))[0] * 360
    return next(name for end, name in _HUES if hue < end)


def _size(mark: Mark) -> str:
    points = np.array(mark.points)
    extent = np.linalg.norm(points[:, None] - points[None], axis=-1).max() / 2
    return "large" if extent > _LARGE else "small"


def _check_visible(scene: Scene) -> None:
    """ValueError: an object is nearly hidden by others."""
    owners = np.cumsum([0] + [mark.role == "object" for mark in scene.marks])
    seen = np.bincount(owners[paint(scene).ravel()], minlength=int(owners[-1]) + 1)
    for number, mark in enumerate(scene.all("object"), start=1):
        x, y = np.array(mark.points).T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        if seen[number] < LEAST_VISIBLE * area:
            raise ValueError(f"the object at {mark.center} is nearly hidden")


def _count(scene: Scene, what: str) -> int:
    found = _WHAT.match(what)
    if not found:
        raise ValueError(f"{what!r} names nothing that could be counted")
    size, color, noun = found.groups()
    if (color and color not in _COLORS) or (noun != "objects" and noun not in _PLURALS):
        raise ValueError(f"{what!r} names nothing that could be counted")
    return sum(
        (size is None or _size(mark) == size)
        and (color is None or _color(mark) == color)
        and (noun == "objects" or _kind(mark) == _PLURALS[noun])
        for mark in scene.all("object")
    )


def solve(scene: Scene, question: str) -> str:
    """The count, or yes or no. ValueError: another question, or an object that is nearly hidden."""
    _check_visible(scene)
    text = question.lower().removesuffix("?")
    if more := re.match(r"(?:are there|does the picture show) more (.+) than (.+)$", text):
        return "yes" if _count(scene, more[1]) > _count(scene, more[2]) else "no"
    many = re.match(r"how many (.+?) (?:are|do)\b", text) or re.match(r"what is the number of (.+) in the image$", text)
    if not many:
        raise ValueError(f"{question!r} is no question on how many there are")
    return str(_count(scene, many[1]))
