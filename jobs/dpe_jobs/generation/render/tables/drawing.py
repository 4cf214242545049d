"""Sets a table as documents do: ruled, striped, or by space alone."""

import random
from dataclasses import dataclass

from PIL import Image

from dpe_jobs.generation.render.pen import Pen, text_size, tinted
from dpe_jobs.generation.render.scene import Scene
from dpe_jobs.generation.render.tables.asking import Unsuitable
from dpe_jobs.generation.render.tabular import Table

RULINGS = ("grid", "stripes", "none")
LARGEST = (800, 560)  # pixels
_MARGIN = 24
_LOOKS = (
    # page, band of the head, its ink, stripe, ink, line
    ("#ffffff", "#2f4b6e", "#ffffff", "#e6edf5", "#1c1c1c", "#8a99ab"),
    ("#fbf7ee", "#ddd0b4", "#33291a", "#f1e8d5", "#33291a", "#a8987a"),
    ("#f2f6f2", "#3f6b4f", "#ffffff", "#dfeae1", "#1d2b21", "#8aa894"),
    ("#ffffff", "#e3e3e3", "#111111", "#f0f0f0", "#111111", "#9a9a9a"),
    ("#f6f1f8", "#5f3f78", "#ffffff", "#e8deee", "#2a1f33", "#a493b0"),
    ("#fdf0ea", "#b5532f", "#ffffff", "#f8ddcf", "#33201a", "#cf9e89"),
    ("#22272e", "#3c4654", "#f2f4f7", "#2d343e", "#e8ebef", "#5b6675"),
    ("#dfe8ee", "#1f5f73", "#ffffff", "#cddbe4", "#14242c", "#7f9dab"),
)
_FONTS = (("sans", "bold"), ("serif", "serif bold"), ("mono", "mono bold"))


@dataclass(frozen=True, slots=True)
class _Look:
    page: str
    band: str
    band_ink: str
    stripe: str
    ink: str
    line: str
    font: str
    bold: str
    size: float  # pixels of the em
    row: float  # pixels from row to row
    gap: float  # pixels between columns


def draw(table: Table, ruling: str, rng: random.Random) -> tuple[Image.Image, Scene]:
    """Picture and display list. Unsuitable: it is too wide."""
    font, bold = rng.choice(_FONTS)
    size = rng.choice((13.0, 14.0, 15.0, 16.0))
    page, band, band_ink, stripe, ink, line = rng.choice(_LOOKS)
    page, band = tinted(page, rng), tinted(band, rng)
    look = _Look(
        page, band, band_ink, stripe, ink, line, font, bold, size, size * rng.uniform(1.7, 2.1), rng.uniform(22, 40)
    )
    head = [table.index.capitalize(), *table.columns]
    cells = [[name, *(table.shown(v) for v in row)] for name, row in zip(table.rows, table.values, strict=True)]
    widths = [
        max(text_size(head[i], size, bold)[0], *(text_size(row[i], size, font)[0] for row in cells)) + look.gap
        for i in range(len(head))
    ]
    title = f"{table.title} ({table.unit})"
    left, top = _MARGIN + rng.randrange(0, 17), _MARGIN + rng.randrange(0, 13)
    wide = max(sum(widths), text_size(title, size + 3, bold)[0])
    width, height = round(left + wide + _MARGIN), round(top + 40 + look.row * (len(cells) + 1) + _MARGIN)
    if width > LARGEST[0] or height > LARGEST[1]:
        raise Unsuitable
    pen = Pen(look.page, max(width, 240), max(height, 200))
    pen.text((left, top), title, size + 3, look.ink, "title", font=bold, anchor="lt")
    _body(pen, [head, *cells], widths, left, top + 36, look, ruling)
    return pen.finish()


def _body(
    pen: Pen, cells: list[list[str]], widths: list[float], left: float, top: float, look: _Look, ruling: str
) -> None:
    right = left + sum(widths)
    for number, row in enumerate(cells):
        y = top + look.row * number
        if number == 0:
            pen.rect((left, y, right, y + look.row), look.band, "band")
        elif ruling == "stripes" and number % 2 == 0:
            pen.rect((left, y, right, y + look.row), look.stripe, "stripe")
        x = left
        for place, (text, width) in enumerate(zip(row, widths, strict=True)):
            ink, font = (look.band_ink, look.bold) if number == 0 else (look.ink, look.font)
            # names begin at the left, figures end at the right
            at, anchor = (x + 8, "lm") if place == 0 else (x + width - 8, "rm")
            pen.text((at, y + look.row / 2), text, look.size, ink, "cell", font=font, anchor=anchor)
            x += width
    if ruling == "grid":
        _rules(pen, len(cells), widths, left, top, look)


def _rules(pen: Pen, rows: int, widths: list[float], left: float, top: float, look: _Look) -> None:
    bottom, right = top + look.row * rows, left + sum(widths)
    for number in range(rows + 1):
        y = top + look.row * number
        pen.line([(left, y), (right, y)], look.line, 1, "rule")
    x = left
    for width in [0.0, *widths]:
        x += width
        pen.line([(x, top), (x, bottom)], look.line, 1, "rule")
