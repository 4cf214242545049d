"""What was drawn where: a display list, as an SVG file has it.

It holds marks, in the order in which they were painted, and no data: whoever wants to know a bar's value has to measure
the bar against the labels of the axis, as a person does.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom; pixels from the picture's left upper corner."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that was painted."""

    kind: Literal["rect", "ellipse", "polygon", "line", "text"]
    role: str
    """What sort of mark it is ("bar", "axis label"); never what it stands for."""
    points: tuple[Point, ...]
    """Pixels. Two opposite corners of a rectangle, of an ellipse's and of a text's box; else the vertices."""
    color: str
    """#rrggbb of its inside, of the line or of the letters."""
    text: str = ""
    size: float = 0.0
    """Pixels: of the em of a text, of a line's width."""

    @property
    def box(self) -> Box:
        """The smallest box around its points."""
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def center(self) -> Point:
        """The middle of its box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's display list."""

    width: int
    height: int
    marks: tuple[Mark, ...]

    def all(self, role: str) -> list[Mark]:
        """Marks of one role, in the order in which they were painted."""
        return [mark for mark in self.marks if mark.role == role]

    def texts(self) -> Iterator[Mark]:
        """Every text."""
        return (mark for mark in self.marks if mark.kind == "text")

    def dumps(self) -> str:
        """JSON, with coordinates to a ten thousandth of a pixel."""
        rows = [
            [m.kind, m.role, [[round(x, 4), round(y, 4)] for x, y in m.points], m.color, m.text, round(m.size, 4)]
            for m in self.marks
        ]
        return json.dumps({"width": self.width, "height": self.height, "marks": rows})


def loads(text: str) -> Scene:
    """A scene from its JSON."""
    found = json.loads(text)
    marks = tuple(
        Mark(kind, role, tuple((x, y) for x, y in points), color, words, size)
        for kind, role, points, color, words, size in found["marks"]
    )
    return Scene(found["width"], found["height"], marks)
