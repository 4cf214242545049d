"""Pictures that must not come again: probe and benchmarks, however they were resized, saved, turned or retouched.

A picture is looked up in two steps. A descriptor of 96 numbers (brightness of 8x8 cells and colour of 4x4 about their
median, the former clipped, so that neither brightness nor a patch changes much of it) finds the few that could be it,
in any of the eight ways to turn and to flip a square. Those are compared cell by cell, as they are and, where there is
enough detail to align by, laid over each other first (registration.py). Small pictures of different sizes are let
differ by more: one of 32 pixels that was made of one of 64 without a filter is moved by half a pixel and lacks three
quarters of the others. docs/quality.md says how often it is right.
"""

import os
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.quality.registration import LUMA, SIDE, Array, agreement, align, coarser, detail, warp

SAME = 0.9  # share of what a reserved picture shows: from here on a candidate shows the same
ALIGNED = 0.93  # the same, after they were laid over each other: there are more ways to agree by chance
_BACK = 0.25  # and that share of what the candidate shows is in the reserved one: a pasted label may be most of it
_PLAIN = 2.0  # grey levels, mean over cells: pictures that differ less are the same, even if they show next to nothing
_PLAIN_RESAMPLED = 4.0  # the same, of small pictures of two sizes
_LOOKED_AT = 32  # pairs that are compared cell by cell, at most
_LAID_OVER = 16  # and of them those that are laid over each other first
_GREY = 64  # numbers of a descriptor
_LONG = _GREY + 32
_ALIKE = 0.35  # cosine of two descriptors, below which they are not
_VERY_ALIKE = 0.8  # and below which there are no more than a few to be looked at
_DETAILED = 10  # of 16 fields with an edge: a picture with fewer, moved or cropped, is another one of its kind
_SMALL = 64  # pixels of the shorter side, up to which resampling changes the thumbnail, too
_RESAMPLED = 0.8  # agreement both ways from which one of two sizes is the other, resampled
_ALMOST = 0.4  # agreement of the two before they are laid over each other
_SHAPE = 0.05  # shorter by longer side: sizes are whole pixels
_PIXEL = 0.06  # of half a side: 1 pixel of 32; without a filter a picture is moved by up to half of one
_INSIDE = 0.7  # part of the frame that must lie inside the reserved picture
_TINT = 0.5  # of brightness: a copy that lost its colours is to be found, too
_TINT_NOISE = 16.0  # grey levels, of all cells together: what saving makes of a picture without colours
_CLIP = 1.5  # mean deviations
_COLOURLESS = 4.0  # grey levels between channels
_NAME_BYTES = 152
_SIZE_BYTES = 8
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
    """(K, 96): 8x8 of brightness, of length 1, and 4x4 of colour, of length _TINT or less; of plain pictures 0."""
    small = coarser(pictures, SIDE // 8)
    grey = small @ LUMA
    tint = coarser(small - grey[..., None], 2)[..., ::2]
    cells, tints = grey.reshape(len(grey), -1), tint.reshape(len(tint), -1, 2)
    cells = cells - np.median(cells, axis=1, keepdims=True)
    cells = np.clip(cells / (np.abs(cells).mean(1, keepdims=True) + 2), -_CLIP, _CLIP)
    tints = (tints - np.median(tints, axis=1, keepdims=True)).reshape(len(tints), -1)
    unit = cells / (np.linalg.norm(cells, axis=1, keepdims=True) + 1e-3)
    hues = tints / (np.linalg.norm(tints, axis=1, keepdims=True) + _TINT_NOISE)
    whole: Array = np.concatenate([unit, _TINT * hues], axis=1).astype(np.float32)
    return whole


@dataclass(frozen=True, slots=True)
class Match:
    """A picture that shows the same."""

    name: str
    agreement: float
    """Share of what it shows that the candidate shows as well."""


class _Known(NamedTuple):
    name: str
    size: tuple[int, int]
    pixels: Thumbnail


def _size(image: Image.Image) -> tuple[int, int]:
    """Shorter and longer side, in pixels."""
    return min(image.size), max(image.size)


def _may_be_resized(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether small pictures of these sizes may be one, made smaller or larger."""
    shape = abs(first[0] / first[1] - second[0] / second[1])
    return first != second and min(first[0], second[0]) <= _SMALL and shape <= _SHAPE


class NearPictures:
    """Pictures by name. Each takes 384 bytes of memory, and 3.2 KB in a file that goes with the process."""

    def __init__(self) -> None:
        self._descriptors: Array = np.empty((0, _LONG), np.float32)
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

    def add(self, name: str, image: Image.Image) -> None:
        """Remember one."""
        picture = thumbnail(image)
        if self._count == len(self._descriptors):
            more = np.empty((max(_BLOCK, self._count // 2), _LONG), np.float32)
            self._descriptors = np.concatenate([self._descriptors, more])
        self._descriptors[self._count] = descriptors(picture[None].astype(np.float32))[0]
        label = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self._file.write(picture.tobytes() + np.array(_size(image), np.uint32).tobytes() + label)
        self._count += 1

    def _read(self, place: int) -> _Known:
        length = _PIXEL_BYTES + _SIZE_BYTES + _NAME_BYTES
        record = os.pread(self._file.fileno(), length, place * length)
        pixels = np.frombuffer(record, np.uint8, _PIXEL_BYTES).reshape(SIDE, SIDE, 3)
        short, long = np.frombuffer(record, np.uint32, 2, _PIXEL_BYTES).tolist()
        name = record[_PIXEL_BYTES + _SIZE_BYTES :].rstrip(b"\0").decode(errors="ignore")
        return _Known(name, (short, long), pixels)

    def find(self, image: Image.Image) -> Match | None:
        """The one that shows most nearly the same, if any does."""
        if not self._count:
            return None
        self._file.flush()
        views, size = turned(thumbnail(image)), _size(image)
        places, ways = self._likely(descriptors(views))
        if not len(places):
            return None
        known = [self._read(int(place)) for place in places]
        resized = np.array([_may_be_resized(size, one.size) for one in known])
        scores = _compare(views[ways], np.stack([one.pixels for one in known]).astype(np.float32), resized)
        best = int(np.argmax(scores))
        return Match(known[best].name, round(float(scores[best]), 2)) if scores[best] else None

    def _likely(self, asked: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Places of the most like, and which of the eight views is like it; the most like first."""
        alike = self._descriptors[: self._count] @ asked.T
        flat = alike.reshape(-1)
        most = min(_LOOKED_AT, len(flat))
        likely = np.argpartition(-flat, most - 1)[:most]
        likely = likely[np.lexsort((likely, -flat[likely]))]
        places, ways = np.unravel_index(likely, alike.shape)
        grey = (self._descriptors[places, :_GREY] * asked[ways, :_GREY]).sum(1)
        # a plain picture has no descriptor: whatever it is compared with is unlike it
        near = (grey >= _ALIKE) | (np.abs(grey) < 1e-6)
        near[_LAID_OVER:] &= grey[_LAID_OVER:] >= _VERY_ALIKE
        return places[near], ways[near]


def _compare(ours: Array, theirs: Array, resized: NDArray[np.bool_]) -> Array:
    """How far ours show what theirs show, (K,): as they are, or laid over each other; 0 where they show another.

    The first pairs are the likeliest. `resized` (K,): small pictures of different sizes, of which one may be made of
    the other by resampling.
    """
    spread = (ours.max(-1) - ours.min(-1)).reshape(len(ours), -1)
    grey = np.percentile(spread, 98, axis=1) < _COLOURLESS
    theirs[grey] = (theirs[grey] @ LUMA)[..., None]  # a copy that lost its colours has its brightness left
    differs = np.abs(coarser(ours, 2) - coarser(theirs, 2)).reshape(len(ours), -1).mean(1)
    everywhere = np.ones(ours.shape[:3], np.bool_)
    there = agreement(ours, theirs, everywhere)
    plain = differs < np.where(resized, _PLAIN_RESAMPLED, _PLAIN)
    scores = np.where(plain, 1, _mutual(there, ours, theirs, everywhere, SAME)).astype(np.float32)
    if scores.any():
        return scores
    almost = np.flatnonzero(resized & (there >= _ALMOST))
    if len(almost):
        scores[almost] = _resampled(ours[almost], theirs[almost])
    rich = np.flatnonzero(detail(theirs[:_LAID_OVER]) >= _DETAILED)
    if scores.any() or not len(rich):
        return scores
    seen, inside = warp(theirs[rich], align(ours[rich], theirs[rich]))
    there = np.where(inside.mean((1, 2)) >= _INSIDE, agreement(ours[rich], seen, inside), 0)
    scores[rich] = _mutual(there, ours[rich], seen, inside, ALIGNED)
    return scores


def _resampled(ours: Array, theirs: Array) -> Array:
    """Agreement (K,) both ways, moved by a pixel at most, from _RESAMPLED on; else 0."""
    seen, _ = warp(theirs, align(ours, theirs, _PIXEL, steps=(3, 2)))
    everywhere = np.ones(ours.shape[:3], np.bool_)
    there = np.minimum(agreement(ours, seen, everywhere), agreement(seen, ours, everywhere))
    return np.where(there >= _RESAMPLED, there, 0)


def _mutual(there: Array, ours: Array, theirs: Array, inside: NDArray[np.bool_], least: float) -> Array:
    """Agreement `there` (K,) from `least` on, else 0; and 0 where the candidate shows mostly other things."""
    likely = np.flatnonzero(there >= least)
    scores = np.zeros_like(there)
    if len(likely):
        back = agreement(theirs[likely], ours[likely], inside[likely])
        scores[likely] = np.where(back >= _BACK, there[likely], 0)
    return scores
