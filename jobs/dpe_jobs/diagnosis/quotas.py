"""From shares to whole numbers of samples. Pure functions on numpy arrays, one entry per category."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_DUST = 1e-9  # of a sample: what float sums are off by


def fill(wanted: Floats, caps: Floats, total: float) -> Floats:
    """Amounts that sum to min(total, sum of caps): in proportion to `wanted`, none above its cap (water-filling).

    min(level * wanted_i, cap_i), with the level that makes the sum. Where only categories that want nothing have room
    left, they get the same each.
    """
    amounts = np.zeros(len(wanted))
    free = caps > 0
    left = total
    while free.any() and left > 0:
        asked = np.where(free, wanted, 0.0)
        if asked.sum() <= 0:
            asked = free.astype(float)
        asked /= asked.max()  # before the sum: it may be too large for a float, or too small
        amounts = np.where(free, left * (asked / asked.sum()), amounts)
        full = free & (amounts > caps)
        if not full.any():
            break
        amounts = np.where(full, caps, amounts)
        left -= float(caps[full].sum())
        free = free & ~full
        amounts[free] = 0.0
    return amounts


def capped(shares: Floats, last: Bools, caps: Floats, target: int) -> Floats:
    """Shares of the target, none above its cap; what a cap leaves over goes to the others by share.

    `last` categories get more than their share only when all others are at their caps. Sums to min(target, sum of
    caps).
    """
    amounts = np.zeros(len(shares))
    kept_back = float(np.minimum(shares[last] * target, caps[last]).sum())
    amounts[~last] = fill(shares[~last], caps[~last], target - kept_back)
    amounts[last] = fill(shares[last], caps[last], target - float(amounts[~last].sum()))
    return amounts


def largest_remainder(amounts: Floats, total: int, names: Sequence[str]) -> Ints:
    """Whole numbers that sum to `total`, each within one of its amount (Hamilton 1792); ties go by name.

    `amounts` sum to `total`. One that is a whole number, as a cap is, stays what it is.
    """
    quotas = np.floor(amounts + _DUST).astype(np.int64)
    order = sorted(range(len(names)), key=lambda i: (-round(float(amounts[i] - quotas[i]), 9), names[i]))
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def quotas_of(
    shares: Floats, last: Bools, target: int, names: Sequence[str], supply: Sequence[int | None] | None = None
) -> Ints:
    """Quotas that sum to `target` exactly, or to the total supply where that is less.

    `supply` is the most samples that can be had of each category, None for no limit; see `capped` for `last`.
    """
    limits = [None] * len(names) if supply is None else supply
    caps = np.array([np.inf if limit is None else max(limit, 0) for limit in limits], dtype=float)
    total = int(min(target, caps.sum()))
    return largest_remainder(capped(shares, last, caps, total), total, names)
