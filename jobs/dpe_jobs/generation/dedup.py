"""Same and nearly the same: pictures by their pixels and by a coarse thumbnail, questions by their words.

Why no pHash: it looks at the low frequencies of the grey picture. Of 800 drawings of one coloured shape 190 lie within
4 bits of an earlier one, 252 of those 284 pairs with another shape or another colour. The mean difference of 16x16 RGB
thumbnails tells them apart (no pair below 2 grey levels) and still knows a picture again that was scaled (0.1-0.2),
saved as JPEG of quality 75 (1.1, 95% below 1.8) or moved by one pixel (1.6).
"""

import hashlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.quality.texts import NEAR as NEARLY
from dpe_jobs.generation.quality.texts import similarity
from dpe_jobs.graders import normalise

Thumbnail = NDArray[np.int16]

NEAR = 2.0  # grey levels of 256, mean over the thumbnail
_SIDE = 16  # pixels


def pixel_digest(image: Image.Image) -> str:
    """sha256 of size and RGB pixels: equal pictures have equal digests, however they are encoded."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def thumbnail(image: Image.Image) -> Thumbnail:
    """The picture's 16x16 RGB averages, flat."""
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.int16).reshape(-1)


class NearIndex:
    """Thumbnails, found again when they differ by less than NEAR on average.

    Sorted into bins by mean brightness: two that are near differ by less than NEAR in it, so that the bin of one and
    its neighbours hold all that can be near.
    """

    def __init__(self) -> None:
        self._bins: dict[int, list[tuple[int, Thumbnail]]] = defaultdict(list)

    @staticmethod
    def _bin(picture: Thumbnail) -> int:
        return int(picture.mean() // NEAR)

    def __contains__(self, picture: Thumbnail) -> bool:
        return self.holds(picture)

    def holds(self, picture: Thumbnail, below: int | None = None) -> bool:
        """Whether one is near; `below`: among those that were added with a lower number."""
        middle = self._bin(picture)
        near = [
            other
            for b in (middle - 1, middle, middle + 1)
            for number, other in self._bins.get(b, ())
            if below is None or number < below
        ]
        return bool(near) and bool((np.abs(np.stack(near) - picture).mean(axis=1) < NEAR).any())

    def add(self, picture: Thumbnail, number: int = 0) -> None:
        """Remember one."""
        self._bins[self._bin(picture)].append((number, picture))


class Questions:
    """Picture and question of one category's candidates, by their numbers, which may come in any order.

    A candidate repeats another one when that has a lower number, whatever became of it: whoever comes first, the same
    ones are called repeated once all are known. The same picture may be asked about twice, in other words.
    Samples of earlier rounds have numbers below 0.
    """

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], int] = {}
        self._asked: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._near: dict[str, NearIndex] = defaultdict(NearIndex)

    def add(self, number: int, question: str, digest: str, picture: Thumbnail) -> None:
        """Remember one."""
        text = normalise(question)
        self._exact[text, digest] = min(number, self._exact.get((text, digest), number))
        self._asked[digest].append((number, text))
        self._near[text].add(picture, number)

    def repeats(self, number: int, question: str, digest: str, picture: Thumbnail) -> str | None:
        """`Duplicate` or `NearDuplicate` of one with a lower number; None when it is new."""
        text = normalise(question)
        if self._exact.get((text, digest), number) < number:
            return "Duplicate"
        if any(other < number and similarity(text, known) >= NEARLY for other, known in self._asked.get(digest, ())):
            return "NearDuplicate"
        return "NearDuplicate" if text in self._near and self._near[text].holds(picture, number) else None
