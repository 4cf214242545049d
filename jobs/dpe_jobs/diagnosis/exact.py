"""Are these rows answered worse than those? Exact one-sided tests given the totals, and their correction for many.

Counts throughout: `n` rows of which `k` are right, out of `total` rows of which `right` are right. Pure, vectorised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, ndtr  # scipy.stats has tests too, and takes seconds to import

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Bools = NDArray[np.bool_]

_STEPS = 64  # terms of a tail that are computed at once
_BLOCK = 4096  # tests that are computed at once: bounds the memory
_NEGLIGIBLE = 1e-18  # against the sum so far


@dataclass(frozen=True, slots=True)
class Strata:
    """Counts of a slice in each stratum that has rows of the slice and others to compare them with."""

    n: Ints
    k: Ints
    right: Ints
    total: Ints

    @classmethod
    def of(cls, inside: Bools, strata: Ints, correct: Bools) -> "Strata":
        """Count. `inside` are the slice's rows; only rows of the same stratum are compared."""
        names, place = np.unique(strata[inside], return_inverse=True)
        near = np.minimum(np.searchsorted(names, strata), max(len(names) - 1, 0))
        rows = np.flatnonzero(names[near] == strata) if len(names) else np.zeros(0, dtype=np.int64)
        n, k = np.bincount(place), np.bincount(place, weights=correct[inside]).astype(np.int64)
        total = np.bincount(near[rows], minlength=len(names))
        right = np.bincount(near[rows], weights=correct[rows], minlength=len(names)).astype(np.int64)
        use = n < total
        return cls(n[use], k[use], right[use], total[use])


def _log_pmf(k: Floats, n: Floats, right: Floats, total: Floats) -> Floats:
    """Log of the hypergeometric probability of k right ones among n drawn; elementwise."""

    def log_choose(a: Floats, b: Floats) -> Floats:
        result: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
        return result

    return log_choose(right, k) + log_choose(total - right, n - k) - log_choose(total, n)


def _sum_away(k: Floats, n: Floats, right: Floats, total: Floats, step: int) -> Floats:
    """Sum of the probabilities of k, k + step, k + 2 step ... to the end. Quick where k is beyond the mean already."""
    result = np.zeros(len(k))
    active, at, term = np.arange(len(k)), k.copy(), np.exp(_log_pmf(k, n, right, total))
    while len(active):
        a_n, a_right, wrong = n[active, None], right[active, None], (total - right)[active, None]
        x = at[:, None] + step * np.arange(_STEPS)
        if step < 0:
            ratio = np.maximum(x, 0) * np.maximum(wrong - a_n + x, 0) / ((a_right - x + 1) * (a_n - x + 1))
        else:
            ratio = np.maximum(a_right - x, 0) * np.maximum(a_n - x, 0) / ((x + 1) * np.abs(wrong - a_n + x + 1))
        following = term[:, None] * np.cumprod(ratio, axis=1)
        result[active] += term + following[:, :-1].sum(axis=1)
        keep = following[:, -1] > _NEGLIGIBLE * result[active]
        active, at, term = active[keep], at[keep] + step * _STEPS, following[keep, -1]
    return result


def lower_tail(k: ArrayLike, n: ArrayLike, right: ArrayLike, total: ArrayLike) -> Floats:
    """P(X <= k) of X ~ Hypergeometric(total, right, n), elementwise: the one-sided p-value of Fisher's exact test.

    Fisher 1934. Given how many of all rows are right, each choice of n rows is as likely as any other.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (k, n, right, total)))
    x, drawn, good, rows = (np.atleast_1d(a) for a in arrays)
    result = np.ones(len(x))
    top, low = np.minimum(drawn, good), x < drawn * good / rows
    for begin in range(0, len(x), _BLOCK):
        block = np.arange(begin, min(begin + _BLOCK, len(x)))
        below = block[low[block]]
        result[below] = _sum_away(x[below], drawn[below], good[below], rows[below], -1)
        above = block[~low[block] & (x[block] < top[block])]
        result[above] = 1 - _sum_away(x[above] + 1, drawn[above], good[above], rows[above], 1)
    return np.clip(result, 0, 1)


def log_least(n: ArrayLike, right: ArrayLike, total: ArrayLike) -> Floats:
    """Log of the smallest p-value that `lower_tail` can give with these totals: that of n rows as wrong as possible."""
    drawn, good, rows = (np.asarray(a, dtype=float) for a in (n, right, total))
    fewest = np.maximum(drawn - (rows - good), 0)
    return _log_pmf(fewest, drawn, good, rows)


def stratified_tail(k: int, n: Sequence[int], right: Sequence[int], total: Sequence[int]) -> float:
    """P(X <= k) of a sum of independent hypergeometric counts, one per stratum: the exact Mantel-Haenszel test.

    Each stratum's rows are compared with the other rows of that stratum only (Birch 1964, Mantel and Haenszel 1959).
    """
    distribution, offset = np.ones(1), 0
    for drawn, good, rows in zip(n, right, total, strict=True):
        first, last = max(0, drawn - (rows - good)), min(drawn, good)
        x = np.arange(first, last + 1, dtype=float)
        parts = (np.full_like(x, v) for v in (drawn, good, rows))
        pmf = np.exp(_log_pmf(x, *parts))
        seen = np.flatnonzero(pmf > _NEGLIGIBLE)
        pmf = pmf[seen[0] : seen[-1] + 1]
        distribution, offset = np.convolve(distribution, pmf), offset + first + int(seen[0])
    return float(np.clip(distribution[: max(k - offset + 1, 0)].sum(), 0, 1))


def moments(n: ArrayLike, right: ArrayLike, total: ArrayLike) -> tuple[Floats, Floats]:
    """Mean and variance of the hypergeometric count, elementwise; variance 0 where total is 1."""
    drawn, good, rows = (np.asarray(a, dtype=float) for a in (n, right, total))
    mean = drawn * good / rows
    return mean, mean * (rows - drawn) / rows * (rows - good) / np.maximum(rows - 1, 1)


def normal_tail(k: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Floats:
    """P(X <= k) by the normal distribution with continuity correction; 1 where nothing can vary."""
    spread = np.sqrt(np.asarray(variance, dtype=float))
    z = (np.asarray(k) + 0.5 - np.asarray(mean)) / np.where(spread > 0, spread, 1)
    return np.where(spread > 0, ndtr(z), 1.0)


def scale(families: Ints) -> Floats:
    """What a p-value is multiplied by to be a burden: how many tests would be called wrongly if all up to it were.

    (tests of its family) * (families): each family gets the same part of the errors, however many tests it has, as with
    weighted p-values (Genovese, Roeder and Wasserman 2006).
    """
    _, place, sizes = np.unique(families, return_inverse=True, return_counts=True)
    return np.asarray(sizes[place] * len(sizes), dtype=float)


def adjust(burdens: Floats) -> Floats:
    """q-values: the smallest false discovery rate at which each test is called (Benjamini and Hochberg 1995).

    The r tests of the smallest burdens hold at most burden_r / r wrong ones, expected.
    """
    order = np.argsort(burdens, kind="stable")
    rates = burdens[order] / np.arange(1, len(burdens) + 1)
    result = np.empty(len(burdens))
    result[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return result
