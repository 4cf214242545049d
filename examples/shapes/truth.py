"""The answer to a question, read from the picture's pixels alone: it shares no code with what draws samples.

It understands easy-vqa's pictures (one shape of one colour on a light ground) and its kinds of questions.
"""

import io

import numpy as np
from examples.shapes.data import facets_of
from PIL import Image

PALETTE = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
_NEAR = 40.0  # distance in RGB below which a pixel has a colour of the palette
_LIGHT = 225  # least channel of a pixel of the ground


def see(picture: bytes) -> tuple[str, str]:
    """Shape and colour in a picture; ValueError when it shows none that easy-vqa knows.

    A triangle has a quarter of its area in its upper half, the others half; of width x height a circle fills pi/4, a
    rectangle all. Pixels on the edge count by how far they are on the way from the ground's colour to the shape's.
    """
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    ground = pixels[pixels.min(axis=2) >= _LIGHT].mean(axis=0)
    counts = {
        name: int((np.linalg.norm(pixels - np.array(rgb), axis=2) < _NEAR).sum()) for name, rgb in PALETTE.items()
    }
    color = max(counts, key=lambda name: counts[name])
    if counts[color] == 0:
        raise ValueError("the picture shows no colour of the palette")
    toward = np.array(PALETTE[color]) - ground
    cover = np.clip(((pixels - ground) @ toward) / (toward @ toward), 0.0, 1.0)
    cover[cover < 0.1] = 0.0  # the ground's own noise
    lines = cover.sum(axis=1)
    lines = lines[np.flatnonzero(lines >= 0.5)[0] : np.flatnonzero(lines >= 0.5)[-1] + 1]
    half = len(lines) // 2
    upper = lines[:half].sum() + (len(lines) % 2) * lines[half] / 2
    if upper < 0.38 * lines.sum():
        return "triangle", color
    fill = lines.sum() / (cover.sum(axis=0).max() * lines.max())
    return "circle" if fill < 0.89 else "rectangle", color


def answer(question: str, shape: str, color: str) -> str:
    """The right answer to a question about a picture with this shape in this colour."""
    if question.startswith("what"):
        return color if "color" in question else shape
    facets = facets_of(question)
    there = facets.get("color", color) == color and facets.get("shape", shape) == shape
    return "yes" if there != (facets["negated"] == "yes") else "no"
