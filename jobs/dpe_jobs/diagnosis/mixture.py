"""From a diagnosis to quotas. Pure functions on numpy arrays, one entry per category; docs/mixture.md has the reasons.

1. The policy gives each category a weight: the weaker, the heavier.
2. No category that can be trained on weighs less than the retention floor.
3. A category out of reach, or never asked, gets the exploration floor; the rest share what is left by weight, none less
   than the exploration floor.
4. Shares become quotas by largest remainder.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from dpe_api.artifacts import CategoryReport, Quota
from dpe_api.diagnosis_spec import Mixture, MixturePolicy
from dpe_jobs.seeds import derive

MIXTURE = "mixture.json"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# DPE release, weights by accuracy band: below .70, .75, .85, .90, and above
BANDS = np.array([0.70, 0.75, 0.85, 0.90])
BAND_WEIGHTS = np.array([2.0, 1.5, 1.0, 0.8, 0.5])


def threshold_weights(accuracy: Floats) -> Floats:
    """The paper's bands: accuracy < .70 weighs 2.0, < .75 1.5, < .85 1.0, < .90 0.8, else 0.5."""
    weights: Floats = BAND_WEIGHTS[np.searchsorted(BANDS, accuracy, side="right")]
    return weights


def gap_weights(low: Floats, target: float) -> Floats:
    """max(target - low, 0) with the lower end of the accuracy's interval: what is little known counts as weak."""
    return np.maximum(target - low, 0.0)


def thompson_weights(correct: Floats, n: Floats, uniforms: Floats, target: float) -> Floats:
    """max(target - p, 0) with p drawn from the posterior Beta(correct + 1/2, n - correct + 1/2) (Jeffreys prior).

    `uniforms` in (0, 1) are the quantiles drawn, so that for the same draw a weaker category weighs more.
    """
    drawn: Floats = betaincinv(correct + 0.5, n - correct + 0.5, uniforms)
    return np.maximum(target - drawn, 0.0)


def shares_of(weights: Floats, floor_only: Bools, floor: float) -> Floats:
    """Shares that sum to 1. `floor_only` categories get `floor` exactly, the others by weight, none below `floor`.

    A floor that does not fit (floor * C > 1) is lowered to 1/C. When every category is `floor_only`, all get 1/C: there
    is nothing better to give the data to.
    """
    count = len(weights)
    floor = min(floor, 1.0 / count)
    if floor_only.all():
        return np.full(count, 1.0 / count)
    pinned = floor_only.copy()
    shares = np.full(count, floor)
    while True:
        free = ~pinned
        total = weights[free].sum()
        left = 1.0 - floor * pinned.sum()
        # weights of zero, all of them: nothing to tell the free categories apart by
        shares[free] = left * (weights[free] / total) if total > 0 else left / free.sum()
        below = free & (shares < floor)
        if not below.any() or not (free & ~below).any():
            normal: Floats = shares / shares.sum()
            return normal
        shares[below] = floor
        pinned |= below


def largest_remainder(shares: Floats, target: int, names: Sequence[str]) -> Ints:
    """Whole numbers that sum to `target`, each within one of share * target (Hamilton); ties go by name."""
    exact = shares * target
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    order = sorted(range(len(names)), key=lambda i: (-round(float(exact[i] - quotas[i]), 9), names[i]))
    for i in order[: target - int(quotas.sum())]:
        quotas[i] += 1
    return quotas


def policy_weights(categories: Sequence[CategoryReport], mixture: Mixture, seed: int, round_number: int) -> Floats:
    """Weights of the policy before any correction, in the order of the categories."""
    match mixture.policy:
        case MixturePolicy.THRESHOLDS:
            return threshold_weights(np.array([c.accuracy.value for c in categories]))
        case MixturePolicy.GAP:
            return gap_weights(np.array([c.accuracy.low for c in categories]), mixture.target_accuracy)
        case MixturePolicy.THOMPSON:
            # drawn by name: a category's draw does not depend on which others there are
            draws = [derive(seed, "mixture", round_number, c.name) for c in categories]
            uniforms = (np.array(draws, dtype=float) + 0.5) / 2**31
            correct = np.array([c.correct for c in categories], dtype=float)
            n = np.array([c.n for c in categories], dtype=float)
            return thompson_weights(correct, n, uniforms, mixture.target_accuracy)
        case MixturePolicy.UNIFORM:
            return np.ones(len(categories))


def mix(
    categories: Sequence[CategoryReport], mixture: Mixture, target_samples: int, *, seed: int, round_number: int
) -> list[Quota]:
    """Quotas that sum to `target_samples`, by name.

    A category is strong when its accuracy is at least targetAccuracy: its samples bypass the difficulty filter. It is
    out of reach when its pass rate's interval lies wholly below `reach`.
    """
    ordered = sorted(categories, key=lambda c: c.name)
    if not ordered:
        raise ValueError("no category to give a quota to")
    asked = np.array([c.n > 0 for c in ordered])
    reachable = np.array([c.pass_rate is None or c.pass_rate.high >= mixture.reach for c in ordered])
    strong = asked & reachable & np.array([c.accuracy.value >= mixture.target_accuracy for c in ordered])
    weights = np.maximum(policy_weights(ordered, mixture, seed, round_number), mixture.retention_floor)
    shares = shares_of(weights, ~asked | ~reachable, mixture.exploration_floor)
    quotas = largest_remainder(shares, target_samples, [c.name for c in ordered])
    return [
        Quota(
            name=c.name,
            weight=float(shares[i]),
            quota=int(quotas[i]),
            reachable=bool(reachable[i]),
            retention=bool(strong[i]),
        )
        for i, c in enumerate(ordered)
    ]
