"""Questions that are nearly the same, by MinHash of their words (Broder 1997).

Question sets ask the same of many pictures, so that words alone say little: a question of probe or benchmarks is
reserved by its words only when it is long and asked of a few pictures, as a maths problem is whose text holds it all.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from dpe_jobs.graders import normalise

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

NEAR = 0.8  # Jaccard similarity of word triples
PATTERN = 0.5  # similarity of questions that differ in what they ask for, and are of one making
FEW = 8  # questions of one making are no pattern yet: benchmarks ask a problem of several versions of its picture
LONG = 13  # words: n-grams of that length are what decontamination looks for (Brown et al. 2020, appendix C)
MOST = 200_000  # questions: 3 KB of memory each
_HASHES = 64  # standard error of a similarity of .8: .05
_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[str]:
    """Triples of words in a row; a short text's words together."""
    words = _WORD.findall(normalise(text))
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of word triples."""
    a, b = shingles(first), shingles(second)
    return len(a & b) / max(len(a | b), 1)


def _minhash(parts: Iterable[str]) -> "MinHash":
    from datasketch import MinHash

    found = MinHash(num_perm=_HASHES, seed=1)
    found.update_batch([part.encode() for part in sorted(parts)])
    return found


class ReservedQuestions:
    """Long questions of probe and benchmarks that are asked of a few pictures each."""

    def __init__(self) -> None:
        self._index: MinHashLSH | None = None  # made when needed: the library takes a second to import
        self._texts: list[str] = []
        self._like = np.zeros(0, np.int32)  # how many others are much like it

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, question: str) -> bool:
        """Remember one; False when there is no room for it."""
        if not _is_long(question):
            return True
        parts = shingles(question)
        found = _minhash(parts)
        alike = [key for key, share in self._alike(found, parts) if share >= PATTERN]
        self._like[alike] += 1
        if len(alike) > FEW:  # a pattern, which is known by the others
            return True
        if len(self._texts) >= MOST:
            return False
        place = len(self._texts)
        if place >= len(self._like):
            self._like = np.concatenate([self._like, np.zeros(max(1024, place // 2), np.int32)])
        self._like[place] = len(alike)
        self._opened().insert(str(place), found)
        self._texts.append(question)
        return True

    def _alike(self, found: "MinHash", parts: frozenset[str]) -> list[tuple[int, float]]:
        """Places of questions that may be alike, and how much they are."""
        places = sorted(int(key) for key in self._opened().query(found))
        known = [shingles(self._texts[place]) for place in places]
        return [(p, len(parts & other) / len(parts | other)) for p, other in zip(places, known, strict=True)]

    def _opened(self) -> "MinHashLSH":
        from datasketch import MinHashLSH

        if self._index is None:
            self._index = MinHashLSH(threshold=PATTERN, num_perm=_HASHES)
        return self._index

    def find(self, question: str) -> str | None:
        """The reserved question that a candidate's repeats, or nearly."""
        if not self._texts or not _is_long(question):
            return None
        parts = shingles(question)
        for place, share in self._alike(_minhash(parts), parts):
            if share >= NEAR and self._like[place] < FEW:
                return self._texts[place]
        return None


def _is_long(question: str) -> bool:
    return len(_WORD.findall(question)) >= LONG
