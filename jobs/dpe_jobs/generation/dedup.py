"""Same and nearly the same: pictures by their pixels and by a coarse thumbnail, questions by their words.

Why no pHash: it looks at the low frequencies of the grey picture. Of 800 drawings of one coloured shape 190 lie within
4 bits of an earlier one, 252 of those 284 pairs with another shape or another colour. The mean difference of 16x16 RGB
thumbnails tells them apart (no pair below 2 grey levels) and still knows a picture again that was scaled (0.1-0.2),
saved as JPEG of quality 75 (1.1, 95% below 1.8) or moved by one pixel (1.6).
"""

import hashlib
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.quality.texts import NEAR as NEARLY
from dpe_jobs.generation.quality.texts import similarity
from dpe_jobs.graders import normalise
from dpe_jobs.scratch import Tables

Thumbnail = NDArray[np.int16]

NEAR = 2.0  # grey levels of 256, mean over the thumbnail
_SIDE = 16  # pixels
_COMPARED = 512  # thumbnails in memory at a time


def pixel_digest(image: Image.Image) -> str:
    """sha256 of size and RGB pixels: equal pictures have equal digests, however they are encoded."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def thumbnail(image: Image.Image) -> Thumbnail:
    """The picture's 16x16 RGB averages, flat."""
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.int16).reshape(-1)


class Seen:
    """Picture and question of every candidate, by category and number, which may come in any order.

    A candidate repeats another one of its category when that has a lower number, whatever became of it: whoever comes
    first, the same ones are called repeated once all are known. The same picture may be asked about twice, in other
    words. Samples of earlier rounds have numbers below 0. They are in a table on disk, about 1.2 kB each.
    """

    def __init__(self) -> None:
        self._tables = Tables(
            "CREATE TABLE seen (category TEXT, number INTEGER, words INTEGER, question TEXT, digest BLOB, "
            "brightness REAL, picture BLOB)",
            "CREATE INDEX by_picture ON seen (digest)",
            "CREATE INDEX by_question ON seen (words, brightness)",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables.close()

    def add(self, category: str, number: int, question: str, digest: str, picture: Thumbnail) -> None:
        """Remember one."""
        text, values = normalise(question), picture.astype(np.uint8)
        row = (category, number, _words(category, text), text, bytes.fromhex(digest), picture.mean(), values.tobytes())
        self._tables.change("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def repeats(self, category: str, number: int, question: str, digest: str, picture: Thumbnail) -> str | None:
        """`Duplicate` or `NearDuplicate` of one with a lower number; None when it is new."""
        text = normalise(question)
        same = "SELECT question FROM seen WHERE digest = ? AND category = ? AND number < ?"
        asked = {known for (known,) in self._tables.rows(same, (bytes.fromhex(digest), category, number))}
        if text in asked:
            return "Duplicate"
        if any(similarity(text, known) >= NEARLY for known in asked):
            return "NearDuplicate"
        return "NearDuplicate" if self._is_near(category, number, text, picture) else None

    def _is_near(self, category: str, number: int, text: str, picture: Thumbnail) -> bool:
        """Whether the same was asked of nearly the same picture.

        Two that are near differ by less than NEAR in their mean brightness.
        """
        mean = picture.mean()
        found = self._tables.pages(
            "SELECT picture FROM seen WHERE words = ? AND brightness BETWEEN ? AND ? "
            "AND category = ? AND question = ? AND number < ?",
            (_words(category, text), mean - NEAR, mean + NEAR, category, text, number),
            _COMPARED,
        )
        for some in found:
            others = np.frombuffer(b"".join(values for (values,) in some), np.uint8).reshape(len(some), -1)
            if (np.abs(others.astype(np.int16) - picture).mean(axis=1) < NEAR).any():
                return True
        return False


def _words(category: str, text: str) -> int:
    """64 bits for a question of a category: what is looked up is short, however long the question."""
    named = hashlib.sha256(f"{category}\x1f{text}".encode()).digest()
    return int.from_bytes(named[:8], "big", signed=True)
