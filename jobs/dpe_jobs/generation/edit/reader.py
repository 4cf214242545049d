"""Reads edited pictures and answers the questions about the edit itself, from pixels and text alone.

It shares nothing with the edits but the words of their questions, so that a mistake there does not repeat itself here:
pictures beside each other are compared position by position, covers and blur are measured, copies are counted as
connected regions, and words are recognised by the outline of their ink.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dpe_jobs.generation.render.shapes_reader import read_facts

Levels = NDArray[np.float64]
"""[height, width, 3], 0 to 255."""

_QUARTERS = ("top left", "top right", "bottom left", "bottom right")
_GAP = 8  # pixels, white, between two pictures
_CLEARLY = 0.6  # the best match must be this much nearer than the second best
_COLORS = {"magenta": (255, 0, 255), "orange": (255, 140, 0), "cyan": (0, 255, 255), "white": (255, 255, 255)}
_WORDS = (
    "apple", "bridge", "candle", "dolphin", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle",
    "lemon", "market", "needle", "orange", "pencil", "quartz", "river", "saddle", "tunnel", "umbrella", "velvet",
    "window", "yellow",
)  # fmt: skip
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf")
_ENOUGH = 0.6  # correlation from which ink is a known word
_AHEAD = 0.05  # of the second best
_SOFT = 0.06  # of the ink's height: standard deviation of the blur before it is compared
_PROPORTIONS = 0.15  # logarithm: how much wider or narrower than a word its ink may be


def _halves(pixels: Levels) -> tuple[Levels, Levels]:
    """Two square pictures with a white gap between them."""
    side = pixels.shape[0]
    if pixels.shape[1] != 2 * side + _GAP or (pixels[:, side : side + _GAP] < 250).any():
        raise ValueError("these are not two square pictures beside each other")
    return pixels[:, :side], pixels[:, side + _GAP :]


def _nearest(seen: Levels, looks: dict[str, Levels]) -> str:
    """The look that is plainly nearest. ValueError: two are about as near."""
    distances = {name: float(np.abs(look - seen).mean()) for name, look in looks.items()}
    first, second = sorted(distances, key=distances.__getitem__)[:2]
    if distances[first] >= _CLEARLY * distances[second]:
        raise ValueError(f"{first!r} and {second!r} look about as near")
    return first


def _mirrored(pixels: Levels, _question: str) -> str:
    left, right = _halves(pixels)
    return _nearest(right, {"horizontally": left[:, ::-1], "vertically": left[::-1]})


def _turned(pixels: Levels, _question: str) -> str:
    left, right = _halves(pixels)
    return _nearest(right, {str(90 * k): np.rot90(left, -k) for k in (1, 2, 3)})


def _part(pixels: Levels, _question: str) -> str:
    """The right picture scaled down to half, laid over the left one."""
    left, right = _halves(pixels)
    side = left.shape[0]
    half, quarter = side // 2, int(side * 0.25)
    small = np.asarray(
        Image.fromarray(right.astype(np.uint8)).resize((half, half), Image.Resampling.BOX), dtype=np.float64
    )
    corners = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
    places = {name: (row * (side // 2), column * (side // 2)) for name, (row, column) in corners.items()}
    places["center"] = (quarter, quarter)
    return _nearest(small, {name: left[y : y + half, x : x + half] for name, (y, x) in places.items()})


def _quarters(plane: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    y, x = plane.shape[0] // 2, plane.shape[1] // 2
    return dict(zip(_QUARTERS, (plane[:y, :x], plane[:y, x:], plane[y:, :x], plane[y:, x:]), strict=True))


def _covered(pixels: Levels, question: str) -> str:
    named = [color for color in _COLORS if color in question.split()]
    if len(named) != 1:
        raise ValueError(f"{question!r} names {len(named)} colours of boxes")
    like = (np.abs(pixels - np.array(_COLORS[named[0]])).max(axis=-1) < 20).astype(np.float64)
    shares = {name: float(quarter.mean()) for name, quarter in _quarters(like).items()}
    full = [name for name, share in shares.items() if share > 0.9]
    if len(full) != 1:
        raise ValueError(f"{len(full)} quarters are {named[0]}")
    return full[0]


def _blurred(pixels: Levels, _question: str) -> str:
    """The quarter whose second differences are plainly the smallest, each without its rim."""
    grey = pixels.mean(axis=-1)
    second = np.abs(ndimage.laplace(grey))
    rim = max(4, min(grey.shape) // 16)
    sharp = {name: float(q[rim:-rim, rim:-rim].mean()) for name, q in _quarters(second).items()}
    first, next_one = sorted(sharp, key=sharp.__getitem__)[:2]
    if sharp[first] >= _CLEARLY * sharp[next_one]:
        raise ValueError(f"{first} and {next_one} are about as sharp")
    return first


def _regions(pixels: Levels) -> list[tuple[slice, slice]]:
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    away = np.linalg.norm(pixels - ground, axis=-1) > 60
    labels, _ = ndimage.label(away)
    return [box for number, box in enumerate(ndimage.find_objects(labels), 1) if (labels[box] == number).sum() >= 12]


def _count(pixels: Levels, question: str) -> str:
    """Connected regions; what the question calls them must be so."""
    boxes = _regions(pixels)
    if not boxes:
        raise ValueError("there is nothing in the picture")
    named = re.search(r"how many (?:copies of the (?P<shape>\w+)|(?P<color>\w+) shapes) are there", question)
    for rows, columns in boxes if named else []:
        around = (slice(max(0, rows.start - 2), rows.stop + 2), slice(max(0, columns.start - 2), columns.stop + 2))
        seen = read_facts(_on_more_ground(pixels, around))
        for fact in ("shape", "color"):
            if named[fact] and seen[fact] != named[fact]:  # type: ignore[index]
                raise ValueError(f"{question!r} supposes {named[fact]}, and there is {seen[fact]}")  # type: ignore[index]
    return str(len(boxes))


def _on_more_ground(pixels: Levels, box: tuple[slice, slice]) -> Image.Image:
    """One region on so much ground that it covers less than half."""
    part = pixels[box].astype(np.uint8)
    ground = tuple(int(v) for v in np.median(pixels.reshape(-1, 3), axis=0))
    canvas = Image.new("RGB", (2 * part.shape[1], 2 * part.shape[0]), ground)
    canvas.paste(Image.fromarray(part), (part.shape[1] // 2, part.shape[0] // 2))
    return canvas


def _where(pixels: Levels, question: str) -> str:
    """Colour or shape on one side."""
    side = re.search(r"on the (left|right|top|bottom)", question)
    assert side is not None, "the pattern in _READERS says so"
    height, width = pixels.shape[:2]
    part = {
        "left": pixels[:, : width // 2],
        "right": pixels[:, width // 2 :],
        "top": pixels[: height // 2],
        "bottom": pixels[height // 2 :],
    }[side[1]]
    seen = read_facts(Image.fromarray(part.astype(np.uint8)))
    return seen["color"] if "color" in question.split() else seen["shape"]


@functools.lru_cache(maxsize=256)
def _ink_of(word: str, font: str) -> Image.Image:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    face = ImageFont.truetype(str(path), 64, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = (int(v) for v in face.getbbox(word))
    page = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(page).text((-left, -top), word, fill=255, font=face)
    return page


def _fit(seen: Levels, word: str, font: str) -> float:
    """Correlation of ink with a word in a font; 0 where it is much too wide or too narrow for it."""
    ink, (height, width) = _ink_of(word, font), seen.shape
    if abs(np.log(ink.width / ink.height * height / width)) > _PROPORTIONS:
        return 0.0
    plane = np.asarray(ink.resize((width, height), Image.Resampling.BOX), dtype=np.float64)
    # a little out of focus: the ends of the ink are known to a pixel only
    soft = [ndimage.gaussian_filter(p, height * _SOFT).ravel() for p in (seen, plane)]
    return float(np.corrcoef(*soft)[0, 1])


def _written(pixels: Levels, _question: str) -> str:
    """The word whose ink fits that on the label best."""
    yellow = np.abs(pixels - np.array((255, 214, 0))).max(axis=-1) < 30
    labels, _ = ndimage.label(ndimage.binary_closing(np.pad(yellow, 3), iterations=3)[3:-3, 3:-3])
    boxes = ndimage.find_objects(labels)
    if not boxes:
        raise ValueError("there is no yellow label")
    box = max(boxes, key=lambda b: (b[0].stop - b[0].start) * (b[1].stop - b[1].start))
    ink = np.clip(1 - pixels[box][..., 1] / 214, 0, 1)  # the label is as green as 214, the ink is black
    rows, columns = np.nonzero(ink.max(axis=1) > 0.4)[0], np.nonzero(ink.max(axis=0) > 0.4)[0]
    if not len(rows):
        raise ValueError("nothing is written on the label")
    inside = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fits = {word: max(_fit(inside, word, font) for font in _FONTS) for word in _WORDS}
    first, second = sorted(fits, key=fits.__getitem__, reverse=True)[:2]
    if fits[first] < _ENOUGH or fits[first] - fits[second] < _AHEAD:
        raise ValueError(f"what is written reads like {first} or {second}")
    return first


_READERS: tuple[tuple[str, Callable[[Levels, str], str]], ...] = (
    (r"mirrored horizontally or vertically", _mirrored),
    (r"how many degrees clockwise", _turned),
    (r"which part of the left picture", _part),
    (r"which quarter of the picture is covered", _covered),
    (r"which quarter of the picture is out of focus", _blurred),
    (r"how many", _count),
    (r"(color|shape) .*on the (left|right|top|bottom)", _where),
    (r"yellow label", _written),
)


def is_about_edit(question: str) -> bool:
    """Whether a question asks for the edit itself."""
    return any(re.search(pattern, question) for pattern, _ in _READERS)


def answer(image: Image.Image, question: str) -> str:
    """The answer. ValueError: the question is not understood, or the picture gives no certain answer."""
    pixels: Levels = np.asarray(image.convert("RGB"), dtype=np.float64)
    for pattern, read in _READERS:
        if re.search(pattern, question):
            return read(pixels, question)
    raise ValueError(f"{question!r} asks for none of the edits")
