"""Pictures that must not come again: probe and benchmarks, however they were resized, saved, turned or retouched.

A picture is looked up in two steps. A descriptor of 64 numbers (grey values of 8x8 cells about their median, clipped,
so that neither brightness nor a patch changes much of it) finds the few that could be it, in any of the eight ways to
turn and to flip a square. Those are compared cell by cell, as they are and, where there is enough detail to align by,
laid over each other first (registration.py). docs/quality.md says how often it is right.
"""

import os
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.quality.registration import LUMA, SIDE, Array, agreement, align, coarser, detail, warp

SAME = 0.9  # share of what a reserved picture shows: from here on a candidate shows the same
ALIGNED = 0.93  # the same, after they were laid over each other: there are more ways to agree by chance
_BACK = 0.25  # and that share of what the candidate shows is in the reserved one: a pasted label may be most of it
_PLAIN = 2.0  # grey levels, mean over cells: pictures that differ less are the same, even if they show next to nothing
_LOOKED_AT = 16  # pairs that are compared cell by cell, at most
_ALIKE = 0.35  # cosine of two descriptors, below which they are not
_DETAILED = 10  # of 16 fields with an edge: a picture with fewer, moved or cropped, is another one of its kind
_INSIDE = 0.7  # part of the frame that must lie inside the reserved picture
_CLIP = 1.5  # mean deviations
_COLOURLESS = 4.0  # grey levels between channels
_NAME_BYTES = 160
_PIXEL_BYTES = SIDE * SIDE * 3
_BLOCK = 65536  # descriptors for which memory is taken at a time

Thumbnail = NDArray[np.uint8]


def thumbnail(image: Image.Image) -> Thumbnail:
    """A picture as 32x32 RGB."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8)


def turned(picture: Thumbnail) -> Array:
    """The eight ways to turn and to flip it, (8, 32, 32, 3)."""
    views = [view[::y, ::x] for view in (picture, picture.transpose(1, 0, 2)) for x in (1, -1) for y in (1, -1)]
    return np.stack(views).astype(np.float32)


def descriptors(pictures: Array) -> Array:
    """(K, 64), of length 1; of plain pictures 0."""
    cells = coarser(pictures @ LUMA, 4).reshape(len(pictures), -1)
    cells = cells - np.median(cells, axis=1, keepdims=True)
    cells = np.clip(cells / (np.abs(cells).mean(1, keepdims=True) + 2), -_CLIP, _CLIP)
    unit: Array = (cells / (np.linalg.norm(cells, axis=1, keepdims=True) + 1e-3)).astype(np.float32)
    return unit


@dataclass(frozen=True, slots=True)
class Match:
    """A picture that shows the same."""

    name: str
    agreement: float
    """Share of what it shows that the candidate shows as well."""


class NearPictures:
    """Pictures by name. Each takes 256 bytes of memory, and 3.2 KB in a file that goes with the process."""

    def __init__(self) -> None:
        self._descriptors: Array = np.empty((0, 64), np.float32)
        self._count = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add(self, name: str, picture: Thumbnail) -> None:
        """Remember one."""
        if self._count == len(self._descriptors):
            more = np.empty((max(_BLOCK, self._count // 2), 64), np.float32)
            self._descriptors = np.concatenate([self._descriptors, more])
        self._descriptors[self._count] = descriptors(picture[None].astype(np.float32))[0]
        label = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._file.write(picture.tobytes() + label)
        self._count += 1

    def _read(self, place: int) -> tuple[str, Thumbnail]:
        size = _PIXEL_BYTES + _NAME_BYTES
        record = os.pread(self._file.fileno(), size, place * size)
        pixels = np.frombuffer(record, np.uint8, _PIXEL_BYTES).reshape(SIDE, SIDE, 3)
        return record[_PIXEL_BYTES:].rstrip(b"\0").decode(errors="ignore"), pixels

    def find(self, picture: Thumbnail) -> Match | None:
        """The one that shows most nearly the same, if any does."""
        if not self._count:
            return None
        self._file.flush()
        views = turned(picture)
        alike = self._descriptors[: self._count] @ descriptors(views).T
        flat = alike.reshape(-1)
        most = min(_LOOKED_AT, len(flat))
        likely = np.argpartition(-flat, most - 1)[:most]
        # a plain picture has no descriptor: whatever it is compared with is unlike it
        likely = np.sort(likely[(flat[likely] >= _ALIKE) | (np.abs(flat[likely]) < 1e-6)])
        if not len(likely):
            return None
        places, ways = np.unravel_index(likely, alike.shape)
        known = [self._read(int(place)) for place in places]
        scores = _compare(views[ways], np.stack([pixels for _, pixels in known]).astype(np.float32))
        best = int(np.argmax(scores))
        return Match(known[best][0], round(float(scores[best]), 2)) if scores[best] else None


def _compare(ours: Array, theirs: Array) -> Array:
    """How far ours show what theirs show, (K,): as they are, or laid over each other; 0 where they show another."""
    spread = (ours.max(-1) - ours.min(-1)).reshape(len(ours), -1)
    grey = np.percentile(spread, 98, axis=1) < _COLOURLESS
    theirs[grey] = (theirs[grey] @ LUMA)[..., None]  # a copy that lost its colours has its brightness left
    differs = np.abs(coarser(ours, 2) - coarser(theirs, 2)).reshape(len(ours), -1).mean(1)
    everywhere = np.ones(ours.shape[:3], np.bool_)
    scores = np.where(differs < _PLAIN, 1, _mutual(ours, theirs, everywhere, SAME)).astype(np.float32)
    rich = np.flatnonzero(detail(theirs) >= _DETAILED)
    if scores.any() or not len(rich):
        return scores
    frames = align(ours[rich], theirs[rich])
    seen, inside = warp(theirs[rich], frames)
    enough = inside.mean((1, 2)) >= _INSIDE
    scores[rich] = np.where(enough, _mutual(ours[rich], seen, inside, ALIGNED), 0)
    return scores


def _mutual(ours: Array, theirs: Array, inside: NDArray[np.bool_], least: float) -> Array:
    """Agreement from `least` on, else 0; and 0 where the candidate shows mostly other things."""
    there = agreement(ours, theirs, inside)
    there[there < least] = 0
    likely = np.flatnonzero(there)
    if len(likely):
        back = agreement(theirs[likely], ours[likely], inside[likely])
        there[likely] = np.where(back >= _BACK, there[likely], 0)
    return there
