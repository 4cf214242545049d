"""Draws a figure to scale, and its labels where they touch nothing."""

import math
import random

from PIL import Image

from dpe_jobs.generation.render.geometry.figure import Figure
from dpe_jobs.generation.render.pen import Pen, text_size, tinted
from dpe_jobs.generation.render.scene import Box, Point, Scene

_MARGIN = 62.0  # pixels for labels around the figure
_TEXT = 16.0  # pixels of the em
_SPAN = 30.0  # pixels between a side and the line that shows its length
_PAPERS = (
    # paper, inside, ink, thin lines, labels
    ("#ffffff", "#e8f0fa", "#1f2d3d", "#5b7089", "#b03020"),
    ("#fdf9ef", "#f5e6c4", "#3a2f1b", "#7d6d4f", "#1f5f8b"),
    ("#f1f6f1", "#d6ead8", "#1f3326", "#56735f", "#8a2a5b"),
    ("#f7f2fa", "#e6d9ef", "#2e2140", "#76648a", "#0f6b5c"),
    ("#20262e", "#34414f", "#eef2f6", "#a8b6c5", "#ffd166"),
    ("#fdf1ec", "#f9d9cb", "#3c221a", "#8a6355", "#1d4e89"),
    ("#e8eef2", "#cfdfe8", "#16242e", "#55707f", "#a3341f"),
)


class Crowded(Exception):
    """The labels touch each other or a line."""


def draw(figure: Figure, letters: dict[str, str], turned: bool, rng: random.Random) -> tuple[Image.Image, Scene]:
    """Picture and display list. Crowded: draw another figure."""
    width, height = rng.randrange(420, 561, 20), rng.randrange(380, 481, 20)
    at = _placed(figure, width, height, turned, rng)
    paper, inside, ink, thin, label = rng.choice(_PAPERS)
    paper, inside = tinted(paper, rng), tinted(inside, rng)
    pen = Pen(paper, width, height)
    for middle, radius in figure.circles:
        r = radius * at.scale
        x, y = at.points[middle]
        pen.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), ink, "rim")
        fill = paper if radius < figure.circles[0][1] else inside
        pen.ellipse((x - r + 1, y - r + 1, x + r - 1, y + r - 1), fill, "disc")
    corners = _outline(figure)
    if corners:
        pen.polygon([at.points[name] for name in corners], inside, "inside")
    for text in figure.angles:
        _arc(pen, at, text, label)
    for text in figure.rights:
        _square(pen, at, text, thin)
    lines = [(pair, "help", thin, 1.6) for pair in figure.helps] + [(pair, "side", ink, 2.4) for pair in figure.sides]
    for pair, role, color, wide in lines:
        pen.line([at.points[pair[0]], at.points[pair[1]]], color, wide, role)
    for pair in figure.spans:
        _span(pen, at, pair, thin)
    boxes = _label(pen, figure, at, letters, ink, label)
    for name, (x, y) in at.points.items():
        if name not in figure.hidden:
            pen.ellipse((x - 3.5, y - 3.5, x + 3.5, y + 3.5), ink, "point")
    _check(boxes, figure, at, width, height)
    return pen.finish()


class _Placed:
    """Where the points lie in the picture."""

    def __init__(self, points: dict[str, Point], scale: float) -> None:
        self.points, self.scale = points, scale
        xs, ys = [x for x, _ in points.values()], [y for _, y in points.values()]
        self.middle = sum(xs) / len(xs), sum(ys) / len(ys)

    def way(self, start: str, end: str) -> Point:
        """Of length 1."""
        (x, y), (u, v) = self.points[start], self.points[end]
        length = math.hypot(u - x, v - y)
        return (u - x) / length, (v - y) / length


def _placed(figure: Figure, width: int, height: int, turned: bool, rng: random.Random) -> _Placed:
    angle = rng.uniform(0.3, math.tau - 0.3) if turned else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    c, s = math.cos(angle), math.sin(angle)
    spots = {name: (mirror * (c * x - s * y), -(s * x + c * y)) for name, (x, y) in figure.points.items()}
    edges = list(spots.values())
    for middle, radius in figure.circles:
        x, y = spots[middle]
        edges += [(x - radius, y - radius), (x + radius, y + radius)]
    left, right = min(x for x, _ in edges), max(x for x, _ in edges)
    top, bottom = min(y for _, y in edges), max(y for _, y in edges)
    scale = min((width - 2 * _MARGIN) / (right - left), (height - 2 * _MARGIN) / (bottom - top or 1e-9))
    dx = (width - scale * (right + left)) / 2
    dy = (height - scale * (bottom + top)) / 2
    return _Placed({name: (dx + scale * x, dy + scale * y) for name, (x, y) in spots.items()}, scale)


def _outline(figure: Figure) -> str:
    """Corners of the polygon that the sides enclose, if they do."""
    if figure.circles or len(figure.sides) < 3:
        return ""
    first = figure.sides[0][0]
    corners = "".join(pair[0] for pair in figure.sides if pair[1] in figure.points)
    closed = [pair[1] for pair in figure.sides].count(first) == 1
    return corners[: [pair[1] for pair in figure.sides].index(first) + 1] if closed else ""


def _directions(at: _Placed, angle: str) -> tuple[float, float]:
    """Where an angle begins, and how far it turns, in radians on the page; less than half a turn."""
    begin, end = (math.atan2(*reversed(at.way(angle[1], side))) for side in (angle[0], angle[2]))
    turn = (end - begin + math.pi) % math.tau - math.pi
    return begin, turn


def _arc(pen: Pen, at: _Placed, angle: str, color: str) -> None:
    begin, turn = _directions(at, angle)
    x, y = at.points[angle[1]]
    points = [(x + 24 * math.cos(begin + turn * i / 16), y + 24 * math.sin(begin + turn * i / 16)) for i in range(17)]
    pen.line(points, color, 1.8, "arc")


def _square(pen: Pen, at: _Placed, angle: str, color: str) -> None:
    (x, y), a, b = at.points[angle[1]], at.way(angle[1], angle[0]), at.way(angle[1], angle[2])
    points = [
        (x + 14 * a[0], y + 14 * a[1]),
        (x + 14 * (a[0] + b[0]), y + 14 * (a[1] + b[1])),
        (x + 14 * b[0], y + 14 * b[1]),
    ]
    pen.line(points, color, 1.6, "right angle")


def _label(pen: Pen, figure: Figure, at: _Placed, letters: dict[str, str], ink: str, color: str) -> list[Box]:
    """Letters, lengths and angles; returns their boxes."""
    boxes: list[Box] = []
    for name in figure.points:
        if name not in figure.hidden:
            spot = _beside_point(figure, at, name)
            boxes.append(pen.text(spot, letters[name], _TEXT + 1, ink, "letter", font="bold"))
    for pair, text in figure.lengths.items():
        boxes.append(pen.text(_beside_line(at, pair, text, 0), text, _TEXT, color, "length"))
    for pair, text in figure.spans.items():
        boxes.append(pen.text(_beside_line(at, pair, text, _SPAN), text, _TEXT, color, "length"))
    for angle, text in figure.angles.items():
        begin, turn = _directions(at, angle)
        # a sharp angle has room for its label only far from its corner
        wide, high = text_size(text, _TEXT - 1)
        middle = begin + turn / 2
        extent = abs(wide / 2 * math.sin(middle)) + abs(high / 2 * math.cos(middle))
        along = abs(wide / 2 * math.cos(middle)) + abs(high / 2 * math.sin(middle))
        away = max(30 + along, (extent + 4) / math.tan(abs(turn) / 2) + along)
        x, y = at.points[angle[1]]
        spot = x + away * math.cos(middle), y + away * math.sin(middle)
        boxes.append(pen.text(spot, text, _TEXT - 1, color, "angle"))
    return boxes


def _outward(at: _Placed, pair: str) -> Point:
    """The way from a line's middle that leads away from the figure's middle, of length 1."""
    (x, y), (u, v) = at.points[pair[0]], at.points[pair[1]]
    dx, dy = at.way(pair[0], pair[1])
    inward = ((x + u) / 2 - at.middle[0]) * -dy + ((y + v) / 2 - at.middle[1]) * dx < -1e-6
    return (dy, -dx) if inward else (-dy, dx)


def _span(pen: Pen, at: _Placed, pair: str, color: str) -> None:
    """A line beside a side, as long as it, with bars at its ends."""
    nx, ny = _outward(at, pair)
    ends = [at.points[name] for name in pair]
    beside = [(x + _SPAN * nx, y + _SPAN * ny) for x, y in ends]
    pen.line(beside, color, 1.4, "span")
    for x, y in beside:
        pen.line([(x - 5 * nx, y - 5 * ny), (x + 5 * nx, y + 5 * ny)], color, 1.4, "span end")


def _beside_point(figure: Figure, at: _Placed, name: str) -> Point:
    """In the middle of the widest gap between the lines that meet at the point."""
    x, y = at.points[name]
    ends = [pair.replace(name, "", 1) for pair in (*figure.sides, *figure.helps) if name in pair]
    ways = sorted(math.atan2(*reversed(at.way(name, end))) % math.tau for end in ends)
    if not ways:
        ways = [math.atan2(y - at.middle[1], x - at.middle[0]) + math.pi]
    # a point on the rim has its letter outside
    for middle, radius in figure.circles:
        u, v = at.points[middle]
        if middle != name and abs(math.hypot(x - u, y - v) - radius * at.scale) < 1:
            return x + 17 * (x - u) / (radius * at.scale), y + 17 * (y - v) / (radius * at.scale)
    gaps = [((b - a) % math.tau or math.tau, a) for a, b in zip(ways, [*ways[1:], ways[0]], strict=True)]
    gap, start = max(gaps)
    middle_way = start + gap / 2
    return x + 17 * math.cos(middle_way), y + 17 * math.sin(middle_way)


def _beside_line(at: _Placed, pair: str, text: str, further: float) -> Point:
    """Beside the middle of a line, on the side away from the figure's middle."""
    (x, y), (u, v) = at.points[pair[0]], at.points[pair[1]]
    nx, ny = _outward(at, pair)
    wide, high = text_size(text, _TEXT)
    away = abs(nx) * wide / 2 + abs(ny) * high / 2 + 7 + further
    return (x + u) / 2 + nx * away, (y + v) / 2 + ny * away


def _check(boxes: list[Box], figure: Figure, at: _Placed, width: int, height: int) -> None:
    """Crowded: a label leaves the picture, touches another, or lies on a line."""
    _check_lengths(boxes[-len(figure.angles) - len(figure.spans) - len(figure.lengths) :], figure, at)
    for place, box in enumerate(boxes):
        left, top, right, bottom = (box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2)
        if left < 2 or top < 2 or right > width - 2 or bottom > height - 2:
            raise Crowded
        for other in boxes[:place]:
            if left < other[2] and other[0] < right and top < other[3] and other[1] < bottom:
                raise Crowded
        for pair in (*figure.sides, *figure.helps):
            (x, y), (u, v) = at.points[pair[0]], at.points[pair[1]]
            steps = max(2, int(math.hypot(u - x, v - y) / 3))
            if any(
                left < x + (u - x) * i / steps < right and top < y + (v - y) * i / steps < bottom
                for i in range(steps + 1)
            ):
                raise Crowded
        for middle, radius in figure.circles:
            x, y = at.points[middle]
            far = [math.hypot(cx - x, cy - y) for cx in (left, right) for cy in (top, bottom)]
            if min(far) < radius * at.scale < max(far):
                raise Crowded


def _check_lengths(boxes: list[Box], figure: Figure, at: _Placed) -> None:
    """Crowded: a length, of which these are the boxes, could be taken for that of another line."""
    for pair, box in zip([*figure.lengths, *figure.spans], boxes, strict=False):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        further = _SPAN if pair in figure.spans else 0.0
        away = {other: _distance((x, y), at, other) for other in (*figure.sides, *figure.helps)}
        mine = away.pop(pair) - further
        if any(other < 1.3 * mine + 4 for other in away.values()):
            raise Crowded


def _distance(point: Point, at: _Placed, pair: str) -> float:
    """Pixels from a point to the middle half of a line."""
    (x, y), (u, v) = at.points[pair[0]], at.points[pair[1]]
    return min(math.dist(point, (x + (u - x) * i / 16, y + (v - y) * i / 16)) for i in range(4, 13))
