"""Grounds that look like photographs of surfaces, made of noise: nobody's picture, and no two alike."""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.render.pen import noise

Pixels = NDArray[np.float32]  # [height, width, 3], 0 to 255
_SIZE = 96  # pixels a side before it is stretched: a surface out of focus
_VIGNETTE = 0.12  # how much darker the corners are


def _tint(rng: random.Random, base: tuple[int, int, int], spread: int = 14) -> Pixels:
    return np.array([value + rng.randint(-spread, spread) for value in base], dtype=np.float32)


def _plain(rng: random.Random) -> Pixels:
    base = tuple(rng.randint(205, 250) for _ in range(3))
    return _tint(rng, (base[0], base[1], base[2]), 0) + 3 * noise(rng, _SIZE, _SIZE, (4, 8))[..., None]


def _paper(rng: random.Random) -> Pixels:
    return _tint(rng, (240, 234, 220), 10) + 10 * noise(rng, _SIZE, _SIZE, (5, 24, 60))[..., None]


def _wood(rng: random.Random) -> Pixels:
    rows = np.linspace(0, rng.uniform(5, 9) * np.pi, _SIZE, dtype=np.float32)[:, None]
    grain = np.sin(rows + 2.2 * noise(rng, _SIZE, _SIZE, (3, 6)))
    planks = np.linspace(0, rng.randint(3, 5), _SIZE, dtype=np.float32) % 1 < 0.03
    texture = 9 * grain + 7 * noise(rng, _SIZE, _SIZE, (30, 60)) - 40 * planks[:, None]
    return _tint(rng, (216, 186, 148), 7) + texture[..., None]


def _cloth(rng: random.Random) -> Pixels:
    steps = np.arange(_SIZE, dtype=np.float32)
    weave = np.sin(steps * 1.7)[:, None] * np.sin(steps * 1.7)[None]
    texture: Pixels = 6 * weave + 9 * noise(rng, _SIZE, _SIZE, (3, 9))
    return _tint(rng, (206, 212, 222), 18) + texture[..., None]


def _wall(rng: random.Random) -> Pixels:
    """Brick."""
    brick, course = rng.randint(14, 20), rng.randint(7, 9)
    y, x = np.mgrid[0:_SIZE, 0:_SIZE]
    mortar = (y % course < 1) | ((x + (y // course % 2) * brick // 2) % brick < 1)
    texture = 12 * noise(rng, _SIZE, _SIZE, (12, 48))
    pixels: Pixels = np.where(mortar[..., None], _tint(rng, (205, 198, 190), 8), _tint(rng, (168, 98, 78)))
    return pixels + texture[..., None]


def _grass(rng: random.Random) -> Pixels:
    """A meadow under the sky."""
    horizon = int(_SIZE * rng.uniform(0.35, 0.6))
    depth = np.linspace(0, 1, _SIZE, dtype=np.float32)[:, None, None]
    sky = _tint(rng, (140, 190, 232)) + 55 * depth + 16 * noise(rng, _SIZE, _SIZE, (3, 6, 12))[..., None]
    meadow = _tint(rng, (96, 142, 70)) + 20 * noise(rng, _SIZE, _SIZE, (8, 32, 80))[..., None]
    return np.where(np.arange(_SIZE)[:, None, None] < horizon, sky, meadow)


def _street(rng: random.Random) -> Pixels:
    """Asphalt, and houses far behind."""
    horizon = int(_SIZE * rng.uniform(0.4, 0.6))
    far = _tint(rng, (188, 190, 196), 6) + 22 * noise(rng, _SIZE, _SIZE, (4, 7))[..., None]
    road = _tint(rng, (118, 118, 122), 6) + 14 * noise(rng, _SIZE, _SIZE, (20, 70))[..., None]
    return np.where(np.arange(_SIZE)[:, None, None] < horizon, far, road)


GROUNDS: dict[str, Callable[[random.Random], Pixels]] = {
    "plain": _plain,
    "paper": _paper,
    "wood": _wood,
    "cloth": _cloth,
    "wall": _wall,
    "grass": _grass,
    "street": _street,
}


def ground(name: str, rng: random.Random) -> Image.Image:
    """A surface, small; `Pen` stretches it over its canvas."""
    pixels = GROUNDS[name](rng)
    side = np.linspace(-1, 1, _SIZE, dtype=np.float32)
    corners = 1 - _VIGNETTE * (side[:, None] ** 2 + side[None] ** 2) / 2
    return Image.fromarray(np.clip(pixels * corners[..., None], 0, 255).astype(np.uint8))
