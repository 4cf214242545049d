"""Answered rows as integer codes, and slices of them: what the slice finder computes with."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpe_jobs.diagnosis.exact import Ints

log = logging.getLogger(__name__)

Bools = NDArray[np.bool_]

MAX_KEYS = 16  # facet keys that are looked at: bounds the number of pairs

Condition = frozenset[tuple[int, int]]
"""What the rows of a slice have in common: (key, value) codes, key CATEGORY for the category."""
CATEGORY = -1


@dataclass(frozen=True, slots=True)
class Grid:
    """N rows by category and K facet keys."""

    categories: tuple[str, ...]
    category: Ints
    """(N,)"""
    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    """By key."""
    codes: tuple[Ints, ...]
    """(N,) by key; -1 where the row has no value, or one that too few rows have."""
    correct: Bools
    """(N,)"""

    def mask(self, condition: Condition) -> Bools:
        """(N,) rows that meet a condition."""
        result = np.ones(len(self.correct), dtype=bool)
        for key, value in condition:
            result &= (self.category if key == CATEGORY else self.codes[key]) == value
        return result

    def strata(self, condition: Condition) -> Ints:
        """(N,) what a row must share with a slice's rows to be compared with them: for facets, the category."""
        facets = any(key != CATEGORY for key, _ in condition)
        return self.category if facets else np.zeros_like(self.category)

    def sizes(self) -> tuple[Ints, Ints]:
        """(C,) rows, and right rows, of each category."""
        count = len(self.categories)
        right = np.bincount(self.category, weights=self.correct, minlength=count)
        return np.bincount(self.category, minlength=count), right.astype(np.int64)


def make_grid(category: Sequence[str], facets: Sequence[Mapping[str, str]], correct: Bools, min_rows: int) -> Grid:
    """Code the rows. Values of fewer than `min_rows` rows count as absent; keys beyond MAX_KEYS are left out."""
    columns: dict[str, dict[str, list[int]]] = {}
    for row, found in enumerate(facets):
        for key, value in found.items():
            columns.setdefault(key, {}).setdefault(value, []).append(row)
    kept = {
        key: frequent
        for key, values in columns.items()
        if (frequent := {value: at for value, at in values.items() if len(at) >= min_rows})
    }
    by_rows = sorted(kept, key=lambda key: (-sum(map(len, kept[key].values())), key))
    if by_rows[MAX_KEYS:]:
        log.warning("slices are sought in %d facets; left out: %s", MAX_KEYS, ", ".join(by_rows[MAX_KEYS:]))
    keys = tuple(sorted(by_rows[:MAX_KEYS]))
    codes = []
    for key in keys:
        column = np.full(len(correct), -1, dtype=np.int64)
        for code, value in enumerate(sorted(kept[key])):
            column[kept[key][value]] = code
        codes.append(column)
    names, category_codes = np.unique(np.asarray(category, dtype=object), return_inverse=True)
    return Grid(
        categories=tuple(names),
        category=category_codes.astype(np.int64),
        keys=keys,
        values=tuple(tuple(sorted(kept[key])) for key in keys),
        codes=tuple(codes),
        correct=np.asarray(correct, dtype=bool),
    )
