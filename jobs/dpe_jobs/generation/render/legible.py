"""Does a picture show what its display list says, and can a person read it? Looks at the pixels."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from dpe_jobs.generation.render.scene import Mark, Scene

SMALLEST_TEXT = 10.0  # pixels of the em
LEAST_CONTRAST = 3.0  # WCAG 2.2, 1.4.3 and 1.4.11: large text and graphics
MOST_PIXELS = 1_003_520  # diagnosis.maxPixels' default: a drawn picture is never scaled down before it is asked about
_SAME = 48  # levels of a channel: what smoothing and rounding may change inside a mark
_MOST_OTHER = 0.15  # of a mark's inner pixels
_FEWEST = 6  # inner pixels by which a mark is judged; thinner ones are all edge
_LEAST_INK = 0.02  # of a text's box
_STROKE, _BESIDE = 0.5, 0.2  # of the way from the ground's colour to the ink's: a stroke's pixel, and the ground's
_OVERLAP = 1.0  # pixels

Pixels = NDArray[np.int16]


def trouble(image: Image.Image, scene: Scene) -> tuple[str, str] | None:
    """`Misdrawn` or `Illegible` with what is wrong, or None."""
    pixels: Pixels = np.asarray(image.convert("RGB"), dtype=np.int16)  # [height, width, 3]
    if image.size != (scene.width, scene.height):
        return "Misdrawn", f"the picture has {image.size}, its display list {(scene.width, scene.height)}"
    if scene.width * scene.height > MOST_PIXELS:
        return "Illegible", f"{scene.width}x{scene.height} pixels, more than {MOST_PIXELS}"
    if detail := _misdrawn(pixels, scene):
        return "Misdrawn", detail
    texts = list(scene.texts())
    for text in texts:
        if detail := _unreadable(pixels, text):
            return "Illegible", f"the text {text.text!r} {detail}"
    if detail := _overlap(texts):
        return "Illegible", detail
    return None


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, 0 to 255."""
    found = ImageColor.getrgb(color)
    return found[0], found[1], found[2]


def contrast(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """WCAG contrast ratio of colours [..., 3] in 0 to 255: 1 for equal ones, 21 for black on white."""
    light, dark = _luminance(one), _luminance(other)
    result: NDArray[np.float64] = (np.maximum(light, dark) + 0.05) / (np.minimum(light, dark) + 0.05)
    return result


def _luminance(color: NDArray[np.float64]) -> NDArray[np.float64]:
    share = color / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    result: NDArray[np.float64] = linear @ np.array([0.2126, 0.7152, 0.0722])
    return result


def paint(scene: Scene) -> NDArray[np.int32]:
    """The number, from 1, of the mark that is on top at each pixel, [height, width]; 0: none, -1: a text."""
    canvas = Image.new("I", (scene.width, scene.height), 0)
    draw = ImageDraw.Draw(canvas)
    for number, mark in enumerate(scene.marks, start=1):
        left, top, right, bottom = mark.box
        box = (left, top, max(left, right - 1), max(top, bottom - 1))
        match mark.kind:
            case "rect":
                draw.rectangle(box, fill=number)
            case "ellipse":
                draw.ellipse(box, fill=number)
            case "polygon":
                draw.polygon(mark.points, fill=number)
            case "line":
                draw.line(mark.points, fill=number, width=max(1, round(mark.size)))
            case "text":
                draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=-1)
    return np.asarray(canvas, dtype=np.int32)


def _misdrawn(pixels: Pixels, scene: Scene) -> str | None:
    """The first mark whose inside has another colour than the display list says."""
    number = paint(scene)
    # every second pixel is enough, and only those with nothing else beside them: edges are smoothed
    middle = number[2:-2:2, 2:-2:2]
    inner = middle > 0
    for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (1, 1), (-1, 1), (1, -1)):
        inner &= middle == number[2 + dy : number.shape[0] - 2 + dy : 2, 2 + dx : number.shape[1] - 2 + dx : 2]
    of = middle[inner]
    colors = np.array([(0, 0, 0), *(rgb(mark.color) for mark in scene.marks)], dtype=np.int16)
    other = (np.abs(pixels[2:-2:2, 2:-2:2][inner] - colors[of]) > _SAME).any(axis=-1)
    count = np.bincount(of, minlength=len(colors))
    wrong = np.bincount(of, weights=other, minlength=len(colors))
    bad = np.flatnonzero((count >= _FEWEST) & (wrong > _MOST_OTHER * count))
    if not len(bad):
        return None
    mark = scene.marks[int(bad[0]) - 1]
    x, y = mark.center
    return f"the {mark.role} at ({x:.0f}, {y:.0f}) is not {mark.color} inside"


def _unreadable(pixels: Pixels, text: Mark) -> str | None:
    if not text.text.strip():
        return "is empty"
    if text.size < SMALLEST_TEXT:
        return f"is {text.size:.1f} pixels high, below {SMALLEST_TEXT:.0f}"
    height, width, _ = pixels.shape
    left, top, right, bottom = text.box
    if left < 1 or top < 1 or right > width - 1 or bottom > height - 1:
        return "leaves the picture"
    x0, y0, x1, y1 = int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))
    around = pixels[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1]
    ink = np.array(rgb(text.color), dtype=np.int16)
    ring = np.concatenate([around[0], around[-1], around[:, 0], around[:, -1]])
    ground = np.median(ring, axis=0)
    # how far each pixel is on the way from the ground's colour to the ink's: thin strokes get half-way only
    way = ink - ground
    share = (around - ground) @ way / max(1.0, float(way @ way))
    if (share > _STROKE).mean() < _LEAST_INK:
        return "is covered, or not there"
    behind = contrast(around[share <= _BESIDE].astype(np.float64), ink.astype(np.float64))
    # the worst quarter may be a line that a table or a border draws beside the letters
    found = float(np.percentile(behind, 25)) if len(behind) else 1.0
    return f"has contrast {found:.1f}, below {LEAST_CONTRAST}" if found < LEAST_CONTRAST else None


def _overlap(texts: list[Mark]) -> str | None:
    if len(texts) < 2:
        return None
    boxes = np.array([text.box for text in texts])  # [texts, 4]
    left = np.maximum(boxes[:, None, 0], boxes[None, :, 0])
    right = np.minimum(boxes[:, None, 2], boxes[None, :, 2])
    top = np.maximum(boxes[:, None, 1], boxes[None, :, 1])
    bottom = np.minimum(boxes[:, None, 3], boxes[None, :, 3])
    both = np.triu((right - left > _OVERLAP) & (bottom - top > _OVERLAP), k=1)
    if not both.any():
        return None
    one, other = (int(i) for i in np.argwhere(both)[0])
    return f"the texts {texts[one].text!r} and {texts[other].text!r} overlap"
