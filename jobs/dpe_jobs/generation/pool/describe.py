"""What a picture looks like without anybody having looked: words for a text index, a vector, and a perceptual hash.

No model is needed for these. The words name colours, light and proportions, so that "teal" finds pictures with teal in
them though no caption says so. The vector (layout of colours, directions of edges) finds pictures that look like a
given one. Neither knows what a picture shows: captions and an embedding endpoint do.
"""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Basic colour terms (Berlin and Kay 1969) and a few hues between them, as people mix them in sRGB.
_NAMED = {
    "black": (0, 0, 0), "white": (255, 255, 255), "gray": (128, 128, 128), "red": (220, 20, 20),
    "green": (20, 160, 40), "lime": (0, 255, 0), "blue": (30, 60, 220), "yellow": (250, 230, 30),
    "orange": (255, 140, 0), "brown": (140, 70, 30), "purple": (120, 40, 150), "pink": (250, 170, 190),
    "teal": (0, 128, 128), "cyan": (0, 230, 230), "magenta": (235, 20, 235), "beige": (225, 205, 170),
    "navy": (10, 20, 90), "olive": (120, 125, 20), "silver": (195, 195, 200), "turquoise": (64, 200, 190),
}  # fmt: skip
_SEEN = 0.01  # share of the picture from which a colour is named
_MOST_COLORS = 6
_PLAIN = 0.6  # share of one colour
_SIDE = 48  # pixels: what is looked at
_GRID = 4  # cells a side in which colours are averaged
_DIRECTIONS = 8  # of edges, in each of 2x2 cells
VECTOR = _GRID * _GRID * 3 + 4 * _DIRECTIONS


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB levels 0 to 255, [..., 3]; IEC 61966-2-1 and CIE 15."""
    linear = np.where(rgb <= 10.31475, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_NAMES = tuple(_NAMED)
_LEVELS = 32  # of each channel in the table of colours: looking up is 30 times faster than reckoning


@functools.cache
def _table() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Name and CIELAB of every colour of 32 levels a channel, by r * 1024 + g * 32 + b: [32768] and [32768, 3]."""
    levels = (np.arange(_LEVELS) + 0.5) * 256 / _LEVELS
    lab = _lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3))
    named = _lab(np.array(list(_NAMED.values()), dtype=np.float64))
    nearest = np.stack([((lab - color) ** 2).sum(axis=1) for color in named]).argmin(axis=0)
    return nearest.astype(np.uint8), lab.astype(np.float32)


def _look_up(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places in the table of [..., 3] levels."""
    coarse = pixels.astype(np.int64) // (256 // _LEVELS)
    places: NDArray[np.int64] = coarse @ np.array([_LEVELS * _LEVELS, _LEVELS, 1])
    return places


def words(image: Image.Image) -> list[str]:
    """Colours by share, at most six, then light and proportions."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)  # mixes no colours
    names, table = _table()
    places = _look_up(np.asarray(small)).ravel()
    lab = table[places]
    shares = np.bincount(names[places], minlength=len(_NAMES)) / len(places)
    order = np.argsort(-shares, kind="stable")[:_MOST_COLORS]
    found = [_NAMES[i] for i in order if shares[i] >= _SEEN]
    light = float(lab[:, 0].mean())
    found.append("dark" if light < 35 else "bright" if light > 70 else "medium")
    if np.hypot(lab[:, 1], lab[:, 2]).max() < 8:
        found.append("grayscale")
    if shares.max() >= _PLAIN:
        found.append("plain")
    proportion = image.width / image.height
    found.append("wide" if proportion > 1.2 else "tall" if proportion < 1 / 1.2 else "square")
    return found


def vector(image: Image.Image) -> NDArray[np.float32]:
    """[VECTOR]: mean CIELAB of 4x4 cells and edge directions of 2x2 cells, each half of length 1."""
    lab = _table()[1][_look_up(np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX)))].astype(np.float64)
    cell = _SIDE // _GRID
    colors = lab.reshape(_GRID, cell, _GRID, cell, 3).mean(axis=(1, 3)).ravel() - np.tile([50.0, 0, 0], _GRID**2)
    down, across = np.gradient(lab[..., 0])
    strength, bins = np.hypot(down, across), np.floor(np.arctan2(down, across) / np.pi * _DIRECTIONS) % _DIRECTIONS
    half = _SIDE // 2
    edges = np.concatenate(
        [
            np.bincount(bins[y, x].astype(np.int64).ravel(), strength[y, x].ravel(), _DIRECTIONS)
            for y in (slice(0, half), slice(half, None))
            for x in (slice(0, half), slice(half, None))
        ]
    )
    parts = [part / max(float(np.linalg.norm(part)), 1e-6) for part in (colors, edges)]
    whole: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return whole


def look(image: Image.Image) -> str:
    """Perceptual hash: 64 bits of brightness differences (dHash) and the mean colour of the quarters, in hex.

    The colours are there because brightness alone takes a red disc and a green one for the same.
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
    quarters = np.asarray(image.resize((2, 2), Image.Resampling.BOX), dtype=np.int16).ravel() // 16
    return bits.hex() + "".join(f"{v:x}" for v in quarters)
