"""Of slices that are significantly worse than the rest, those that tell something which the others do not."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from dpe_jobs.diagnosis import exact
from dpe_jobs.diagnosis.exact import Bools, Ints
from dpe_jobs.diagnosis.grid import CATEGORY, Condition, Grid

MAX_REPORTED = 50  # below 63: memberships are the bits of an int64, beside the category


def not_redundant(
    grid: Grid,
    conditions: Sequence[Condition],
    levels: Sequence[float],
    tested: Sequence[Condition],
    significance: float,
) -> list[int]:
    """Places of the slices worth reporting, in order.

    `conditions` are the significant slices, most certain first, `levels` the p-value up to which each would have been
    called, `tested` all slices that were tested.

    1. A slice with a significant ancestor (the same with a category or facet less) must be worse than the ancestor and
       the added condition together predict: else the ancestor says it all. Bonferroni over the ancestor's descendants.
    2. Any slice must still be called among rows that are alike in the other reported slices: else those say it all, as
       where two facets mark the same rows, or where one combination weighs its ancestors down.
    """
    masks = [grid.mask(condition) for condition in conditions]
    descendants = _descendants(conditions, tested)
    own = [
        i
        for i, condition in enumerate(conditions)
        if all(
            _interaction(grid, condition, ancestor) * descendants[ancestor] <= significance
            for ancestor in conditions
            if ancestor < condition
        )
    ]
    kept: list[int] = []
    for i in own:
        if len(kept) < MAX_REPORTED and _given(grid, i, kept, conditions, masks) <= levels[i]:
            kept.append(i)
    # what was kept first has not yet been compared with what came later
    for i in reversed(kept.copy()):
        others = [j for j in kept if j != i]
        if _given(grid, i, others, conditions, masks) > levels[i]:
            kept = others
    return kept


def _descendants(conditions: Sequence[Condition], tested: Sequence[Condition]) -> dict[Condition, int]:
    """How many of the tested slices are narrower versions of each."""
    holders: dict[tuple[int, int], set[int]] = {item: set() for condition in conditions for item in condition}
    for place, condition in enumerate(tested):
        for item in condition & holders.keys():
            holders[item].add(place)
    return {c: len(set.intersection(*(holders[item] for item in c))) - 1 for c in conditions}


def _interaction(grid: Grid, condition: Condition, ancestor: Condition) -> float:
    """One-sided p-value: is the slice worse than its ancestor and the added condition predict together?

    Woolf's test of the log odds ratio of rows with both conditions, one, the other, or none (Woolf 1955, with 1/2 added
    to each count as by Haldane and Gart). 1 where the ancestor is the very scope in which the slice was tested.
    """
    facets = any(key != CATEGORY for key, _ in ancestor)
    if not facets:
        return 0.0  # against its category, a slice was tested already
    scope = grid.mask(frozenset(item for item in ancestor if item[0] == CATEGORY))
    first, second = grid.mask(ancestor)[scope], grid.mask(condition - ancestor)[scope]
    cell, correct = 2 * first + second, grid.correct[scope]
    n = np.bincount(cell, minlength=4)
    right = np.bincount(cell, weights=correct, minlength=4)
    log_odds, variance = np.log((right + 0.5) / (n - right + 0.5)), 1 / (right + 0.5) + 1 / (n - right + 0.5)
    if n[0] == 0 or n[1] == 0:  # no row without the ancestor tells what the added condition does
        return float(ndtr((log_odds[3] - log_odds[2]) / np.sqrt(variance[2:].sum())))
    contrast = log_odds[3] - log_odds[2] - log_odds[1] + log_odds[0]
    return float(ndtr(contrast / np.sqrt(variance.sum())))


def _given(grid: Grid, i: int, others: Sequence[int], conditions: Sequence[Condition], masks: Sequence[Bools]) -> float:
    """One-sided p-value of a slice among rows that are alike in all slices that share rows with it, ancestors apart.

    0 where there is no such slice: the slice's own test says all.
    """
    sharing = [j for j in others if not conditions[j] < conditions[i] and bool((masks[i] & masks[j]).any())]
    if not sharing:
        return 0.0
    strata: Ints = grid.strata(conditions[i]).copy()
    for place, j in enumerate(sharing):
        strata += masks[j].astype(np.int64) * (len(grid.categories) << place)
    s = exact.Strata.of(masks[i], strata, grid.correct)
    if not len(s.n):
        return 1.0
    mean, variance = exact.moments(s.n, s.right, s.total)
    return float(exact.normal_tail(s.k.sum(), mean.sum(), variance.sum()))
