"""Confidence intervals of shares. Pure functions on numpy arrays; every share is in [0, 1]."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # scipy.stats has them too, and takes seconds to import

from dpe_api.artifacts import Interval

Floats = NDArray[np.float64]


def quantile(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 0.95."""
    return float(ndtri(0.5 + confidence / 2))


def wilson(successes: ArrayLike, n: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Low and high of the score interval (Wilson 1927), elementwise; [0, 1] where n is 0.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = successes / n. `n` may be an effective sample size.
    """
    k, trials = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    z = quantile(confidence)
    safe = np.where(trials > 0, trials, 1.0)
    p = k / safe
    centre = (p + z * z / (2 * safe)) / (1 + z * z / safe)
    half = z / (1 + z * z / safe) * np.sqrt(p * (1 - p) / safe + z * z / (4 * safe * safe))
    low = np.where(p <= 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(p >= 1, 1.0, np.minimum(centre + half, 1.0))
    return np.where(trials > 0, low, 0.0), np.where(trials > 0, high, 1.0)


def accuracy(correct: int, n: int, confidence: float) -> Interval:
    """Share of right answers with its Wilson interval; 0 in [0, 1] when nothing was answered."""
    low, high = wilson(correct, n, confidence)
    return Interval(value=correct / n if n else 0.0, low=float(low), high=float(high))


def pass_rate(rates: ArrayLike, rollouts: int, confidence: float) -> Interval:
    """Mean pass rate over items, robust to the likeness of an item's rollouts.

    `rates` is the pass rate of each of k items, `rollouts` the number of all rollouts. The items are clusters: the
    variance of the mean is s²/k over items. The interval is Wilson's at the effective sample size
    n* = p(1-p) / (s²/k), between k (an item's rollouts all alike) and `rollouts` (independent), times (z/t)² for the
    k-1 degrees of freedom (Korn and Graubard 1998). Where no item differs, n* is k: the safe end.

    Where no rollout is right, or all are, nothing is estimated from the items: the interval is that of k items. A few
    right ones hardly tell how alike an item's rollouts are: no high end is below that of none right, and no low end
    above that of all right.
    """
    values = np.asarray(rates, dtype=float)
    k = len(values)
    if k == 0:
        raise ValueError("no item was sampled")
    p = float(values.mean())
    effective = float(k)
    if k > 1 and 0 < p < 1:
        variance = float(values.var(ddof=1)) / k
        if variance > 0:
            effective = min(max(p * (1 - p) / variance, float(k)), float(rollouts))
        effective *= (quantile(confidence) / float(stdtrit(k - 1, 0.5 + confidence / 2))) ** 2
    low, high = wilson(p * effective, effective, confidence)
    ends_low, ends_high = wilson([0, k], [k, k], confidence)
    return Interval(value=p, low=min(float(low), float(ends_low[1]), p), high=max(float(high), float(ends_high[0]), p))


def macro(parts: Sequence[Interval], least: float = 0.0) -> Interval:
    """Mean of independent shares, or of their changes, of which `least` is -1: variance estimates recovered from their
    intervals (MOVER, Zou and Donner 2008).

    low = mean - sqrt(sum (value_i - low_i)²) / C, high likewise. Unlike the normal interval it is not empty when every
    category is all right or all wrong.
    """
    if not parts:
        return Interval(value=0.0, low=0.0, high=1.0)
    value, low, high = np.array([[i.value, i.low, i.high] for i in parts]).T
    mean, count = float(value.mean()), len(parts)
    return Interval(
        value=mean,
        low=max(mean - float(np.sqrt(((value - low) ** 2).sum())) / count, least),
        high=min(mean + float(np.sqrt(((high - value) ** 2).sum())) / count, 1.0),
    )
