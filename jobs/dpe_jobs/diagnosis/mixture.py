"""From a diagnosis to quotas. Pure functions on numpy arrays, one entry per category; docs/mixture.md has the reasons.

1. The policy gives each category a weight: the weaker, the heavier.
2. A category whose last round of samples brought no gain loses a part of its weight.
3. No category that can be trained on weighs less than the retention floor.
4. A category out of reach, or never asked, gets the exploration floor; the rest share what is left by weight, none less
   than the exploration floor.
5. The shares of the categories trained on are smoothed with those of the previous round.
6. Shares become quotas by largest remainder, none above what the sources can supply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, erf

from dpe_api.artifacts import CategoryReport, InputRef, Interval, Quota
from dpe_api.diagnosis_spec import Mixture, MixturePolicy
from dpe_jobs.diagnosis.intervals import quantile
from dpe_jobs.diagnosis.quotas import quotas_of
from dpe_jobs.seeds import derive

MIXTURE = "mixture.json"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# DPE release, weights by accuracy band: below .70, .75, .85, .90, and above
BANDS = np.array([0.70, 0.75, 0.85, 0.90])
BAND_WEIGHTS = np.array([2.0, 1.5, 1.0, 0.8, 0.5])

LEAST_GAIN = 0.02  # of accuracy: a smaller change is no gain


@dataclass(frozen=True, slots=True)
class Past:
    """What the previous round did about one category, and what came of it."""

    share: float | None = None
    """Its weight in that round's mixture; None when it was not asked then, or not there."""
    kept: int = 0
    """Samples that were trained on."""
    change: Interval | None = None
    """Of its accuracy on the probe, before and after that training on the same rows."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The previous round, by category."""

    categories: Mapping[str, Past]
    confidence: float = 0.95
    """Of the intervals of change."""
    inputs: tuple[InputRef, ...] = field(default=())
    """Artifacts that it was read from."""


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


def certainty_of_no_gain(change: Floats, low: Floats, high: Floats, confidence: float) -> Floats:
    """How sure it is that accuracy rose by less than LEAST_GAIN: max(0, 2 P(gain < LEAST_GAIN) - 1), in [0, 1].

    P is read from the change's interval at this confidence: normal around `change` with a standard error of
    (high - change) / z above it and (change - low) / z below, z the interval's normal quantile. So it is 0 where a gain
    is as likely as none, as with few rows, and 1 where the whole interval lies well below.
    """
    above = change <= LEAST_GAIN
    error = np.where(above, high - change, change - low) / quantile(confidence)
    distance = (LEAST_GAIN - change) / np.maximum(error, np.finfo(float).tiny)
    sure: Floats = erf(np.clip(distance, 0.0, 40.0) / np.sqrt(2))  # 2 P - 1 of the normal distribution
    return sure


def tried(kept: Floats, floor: float) -> Floats:
    """How far a category's samples tell whether samples help it, in [0, 1], from the samples kept of each.

    (kept share - floor) / (1/C - floor), clipped: nothing for one that had only the exploration floor, in full for one
    with an equal share of the C or more.
    """
    total, equal = kept.sum(), 1.0 / max(len(kept), 1)
    if total <= 0 or floor >= equal:  # with such a floor all categories get the same, whatever their weights
        return np.zeros(len(kept))
    effort: Floats = np.clip((kept / total - floor) / (equal - floor), 0.0, 1.0)
    return effort


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
        left = 1.0 - floor * pinned.sum()
        heaviest = weights[free].max()
        # weights of zero, all of them: nothing to tell the free categories apart by
        parts = weights[free] / heaviest if heaviest > 0 else np.ones(free.sum())
        shares[free] = left * (parts / parts.sum())
        below = free & (shares < floor)
        if not below.any() or not (free & ~below).any():
            normal: Floats = shares / shares.sum()
            return normal
        shares[below] = floor
        pinned |= below


def smooth(now: Floats, before: Floats, smoothing: float) -> Floats:
    """(1 - smoothing) * now + smoothing * before: exponential smoothing over rounds, with the same sum as `now`.

    `before` is NaN where there was no share, and `now` stays there. The others' earlier shares are scaled to what these
    categories have now: categories come and go.
    """
    known = ~np.isnan(before)
    earlier = before[known].sum()
    if earlier <= 0:
        return now
    blended = now.copy()
    blended[known] = (1 - smoothing) * now[known] + smoothing * (before[known] / earlier) * now[known].sum()
    return blended


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


def damping(names: Sequence[str], mixture: Mixture, memory: Memory | None) -> Floats:
    """The part of its weight that each category loses: memory.damping * certainty of no gain * how far it was tried."""
    lost = np.zeros(len(names))
    if memory is None or mixture.memory.damping == 0:
        return lost
    past = memory.categories
    effort = dict(
        zip(past, tried(np.array([p.kept for p in past.values()], dtype=float), mixture.exploration_floor), strict=True)
    )
    changes = {name: past[name].change for name in names if name in past}
    measured = [i for i, name in enumerate(names) if changes.get(name) is not None]
    rows = [[c.value, c.low, c.high] for i in measured if (c := changes[names[i]]) is not None]
    change, low, high = np.array(rows, dtype=float).reshape(-1, 3).T
    sure = certainty_of_no_gain(change, low, high, memory.confidence)
    lost[measured] = mixture.memory.damping * sure * np.array([effort[names[i]] for i in measured])
    return lost


def earlier_shares(names: Sequence[str], memory: Memory) -> Floats:
    """The previous round's shares, NaN where there was none."""
    shares = [memory.categories.get(name, Past()).share for name in names]
    return np.array([np.nan if share is None else share for share in shares], dtype=float)


def mix(
    categories: Sequence[CategoryReport],
    mixture: Mixture,
    target_samples: int,
    *,
    seed: int,
    round_number: int,
    memory: Memory | None = None,
    supply: Mapping[str, int | None] | None = None,
) -> list[Quota]:
    """Quotas that sum to `target_samples`, by name; to the total supply where that is less.

    A category is strong when its accuracy is at least targetAccuracy: its samples bypass the difficulty filter. It is
    out of reach when its pass rate's interval lies wholly below `reach`. `supply` is the most samples that the sources
    can make of a category, None or absent for no limit; weights are what the diagnosis asks for, whatever the supply.
    """
    ordered = sorted(categories, key=lambda c: c.name)
    if not ordered:
        raise ValueError("no category to give a quota to")
    names = [c.name for c in ordered]
    asked = np.array([c.n > 0 for c in ordered])
    reachable = np.array([c.pass_rate is None or c.pass_rate.high >= mixture.reach for c in ordered])
    strong = asked & reachable & np.array([c.accuracy.value >= mixture.target_accuracy for c in ordered])
    floor_only = ~asked | ~reachable
    damped = damping(names, mixture, memory)
    weights = np.maximum(
        policy_weights(ordered, mixture, seed, round_number) * (1 - damped),
        mixture.retention_floor,
    )
    shares = shares_of(weights, floor_only, mixture.exploration_floor)
    if memory is not None and mixture.memory.smoothing > 0:
        before = np.where(floor_only, np.nan, earlier_shares(names, memory))
        shares = shares_of(smooth(shares, before, mixture.memory.smoothing), floor_only, mixture.exploration_floor)
    limits = [None if supply is None else supply.get(name) for name in names]
    quotas = quotas_of(shares, floor_only, target_samples, names, limits)
    return [
        Quota(
            name=name,
            weight=float(shares[i]),
            quota=int(quotas[i]),
            reachable=bool(reachable[i]),
            retention=bool(strong[i]),
            supply=limits[i],
            damped=float(damped[i]),
        )
        for i, name in enumerate(names)
    ]
