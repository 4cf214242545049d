"""Which categories and facet combinations are answered worse than the rest, beyond chance.

A slice is a category, or one or two facets (key and value) within a category or over all categories. Each is tested
once, one-sided:

- a category against all other rows, facets within a category against its other rows: Fisher's exact test;
- facets over all categories against the other rows of the same categories: the exact Mantel-Haenszel test, so that a
  facet is not called weak for occurring in a weak category.

Exact, because slices are small and accuracies near 1, where approximations call too much. The false discovery rate of
what is reported is held over all tests (Benjamini-Hochberg, counting what is left after redundant slices are removed),
a third of it for each kind of slice: categories, one facet, two facets.
docs/diagnosis.md has the reasons, and what simulations say of errors and power.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dpe_api.artifacts import Interval, Slice
from dpe_jobs.diagnosis import exact, intervals
from dpe_jobs.diagnosis.exact import Floats, Ints
from dpe_jobs.diagnosis.grid import CATEGORY, Bools, Condition, Grid, make_grid
from dpe_jobs.diagnosis.redundant import not_redundant

log = logging.getLogger(__name__)

MIN_ROWS = 10  # of a slice: fewer say little, and make many tests
MIN_SHARE = 0.001  # of all rows: at most 1000 values of a key or of a pair of keys are tested
MAX_EXAMINED = 200  # significant slices that are compared with each other

_CLEAR = 2.0  # times the significance: p-values beyond it need not be exact


@dataclass(frozen=True, slots=True)
class Rows:
    """Answered rows, one entry each."""

    category: Sequence[str]
    facets: Sequence[Mapping[str, str]]
    correct: Bools
    """Right greedy answers."""


@dataclass(frozen=True, slots=True)
class Tests:
    """Slices that were tested, and their p-values."""

    conditions: list[Condition]
    p: Floats


def find(rows: Rows, *, confidence: float, significance: float) -> tuple[list[Slice], int]:
    """Slices that are significantly worse than the rest, most certain first, and how many slices were tested.

    `significance` is the false discovery rate, `confidence` that of the intervals. Slices that others explain are left
    out. Work is bounded: O(K² N log N) for N rows and K facet keys, at most 16.
    """
    if not len(rows.correct):
        return [], 0
    least_rows = max(MIN_ROWS, int(np.ceil(MIN_SHARE * len(rows.correct))))
    grid = make_grid(rows.category, rows.facets, rows.correct, least_rows)
    tests = run_tests(grid, least_rows, significance)
    called, burdens = choose(grid, tests, significance)
    q = exact.adjust(burdens)
    slices = [
        _describe(grid, tests.conditions[i], float(tests.p[i]), float(q[place]), confidence)
        for place, i in enumerate(called)
    ]
    return slices, len(tests.p)


def choose(grid: Grid, tests: Tests, significance: float) -> tuple[list[int], Floats]:
    """Places of the tests to report, most certain first, and their burdens.

    Leaving out what is redundant leaves out mostly true findings: the share of false ones among the rest would grow.
    So it is the reported slices that are counted against the burden, not all that are significant (Focused BH,
    Katsevich, Sabatti and Bogomolov 2023). The largest such set is sought from above.
    """
    if not len(tests.p):
        return [], np.zeros(0)
    scale = exact.scale(np.array([_kind(c) for c in tests.conditions], dtype=np.int64))
    burdens = tests.p * scale
    q = exact.adjust(burdens)
    called = [int(i) for i in np.lexsort((tests.p, burdens)) if q[i] <= significance]
    allowed = significance * len(called)
    if len(called) > MAX_EXAMINED:
        log.warning("%d slices are significant: the %d most certain are examined", len(called), MAX_EXAMINED)
        called = called[:MAX_EXAMINED]
    while True:
        levels = [allowed / scale[i] for i in called]
        kept = not_redundant(grid, [tests.conditions[i] for i in called], levels, tests.conditions, significance)
        if significance * len(kept) >= allowed:
            reported = [called[place] for place in kept]
            return reported, burdens[reported]
        allowed = significance * len(kept)
        called = [i for i in called if burdens[i] <= allowed]


def _kind(condition: Condition) -> int:
    """0 a category, 1 one facet, 2 two facets."""
    return sum(key != CATEGORY for key, _ in condition)


def run_tests(grid: Grid, least_rows: int, significance: float) -> Tests:
    """Test every slice that has enough rows and could be significant given the totals."""
    parts = [_test_categories(grid, least_rows, significance)]
    for size in (1, 2):
        for keys in combinations(range(len(grid.keys)), size):
            parts += _test_facets(grid, keys, least_rows, significance)
    return Tests([c for part in parts for c in part.conditions], np.concatenate([part.p for part in parts]))


def _test_categories(grid: Grid, least_rows: int, significance: float) -> Tests:
    n, k = grid.sizes()
    total, right = n.sum(), k.sum()
    able = (n >= least_rows) & (n < total) & (exact.log_least(n, right, total) <= np.log(significance))
    chosen = np.flatnonzero(able)
    conditions = [frozenset({(CATEGORY, int(c))}) for c in chosen]
    return Tests(conditions, exact.lower_tail(k[chosen], n[chosen], right, total))


def _test_facets(grid: Grid, keys: tuple[int, ...], least_rows: int, significance: float) -> list[Tests]:
    """Every value of one key, or pair of values of two: within each category, and over all."""
    codes, count = [grid.codes[key] for key in keys], len(grid.categories)
    shape = tuple(len(grid.values[key]) for key in keys)
    rows = np.flatnonzero(np.all([code >= 0 for code in codes], axis=0))
    value = np.ravel_multi_index(tuple(code[rows] for code in codes), shape)
    cells, place, n = np.unique(value * count + grid.category[rows], return_inverse=True, return_counts=True)
    k = np.bincount(place, weights=grid.correct[rows], minlength=len(cells))
    values, category = np.divmod(cells, count)
    parts = np.unravel_index(values, shape)
    total, right = (size[category] for size in grid.sizes())

    def conditions(chosen: Ints, within: bool) -> list[Condition]:
        pairs = [tuple(zip(keys, (int(part[i]) for part in parts), strict=True)) for i in chosen]
        scopes = [((CATEGORY, int(category[i])),) if within else () for i in chosen]
        return [frozenset(pair + scope) for pair, scope in zip(pairs, scopes, strict=True)]

    # a pair of values with as many rows as one of them alone is but another name for it
    narrower = np.ones(len(cells), dtype=bool)
    for key, part in zip(keys, parts, strict=True):
        narrower &= (n < _rows_of(grid, key, part, category)) | (len(keys) == 1)
    able = narrower & (n >= least_rows) & (n < total) & (exact.log_least(n, right, total) <= np.log(significance))
    chosen = np.flatnonzero(able)
    within = Tests(conditions(chosen, True), exact.lower_tail(k[chosen], n[chosen], right[chosen], total[chosen]))

    # over all: cells are sorted by value. A category that holds nothing else offers nothing to compare with, and a pair
    # that is narrower in no category is another name here too
    use = np.flatnonzero((n < total) & np.isin(values, values[narrower]))
    if not len(use):
        return [within]
    starts = np.flatnonzero(np.diff(values[use], prepend=-1))
    ends = np.append(starts[1:], len(use))
    mean, variance = exact.moments(n[use], right[use], total[use])
    sums = [np.add.reduceat(a, starts) for a in (n[use], k[use], mean, variance)]
    least = np.add.reduceat(exact.log_least(n[use], right[use], total[use]), starts)
    groups = np.flatnonzero((ends - starts > 1) & (sums[0] >= least_rows) & (least <= np.log(significance)))
    p = exact.normal_tail(*(s[groups] for s in sums[1:]))
    for i in np.flatnonzero(p <= _CLEAR * significance):
        cell = use[starts[groups[i]] : ends[groups[i]]]
        p[i] = exact.stratified_tail(int(k[cell].sum()), n[cell], right[cell], total[cell])
    return [within, Tests(conditions(use[starts[groups]], False), p)]


def _rows_of(grid: Grid, key: int, value: Ints, category: Ints) -> Ints:
    """Rows that have a value of one key in a category; elementwise."""
    count, code = len(grid.categories), grid.codes[key]
    present = code >= 0
    cells = np.bincount(code[present] * count + grid.category[present], minlength=len(grid.values[key]) * count)
    return np.asarray(cells[value * count + category])


def _describe(grid: Grid, condition: Condition, p: float, q: float, confidence: float) -> Slice:
    """Counts and effect of one slice. Its rest weighs each category as the slice's own rows do."""
    s = exact.Strata.of(grid.mask(condition), grid.strata(condition), grid.correct)
    n, k = int(s.n.sum()), int(s.k.sum())
    accuracy = intervals.accuracy(k, n, confidence)
    rest = _weighted(s.right - s.k, s.total - s.n, s.n / n, confidence)
    return Slice(
        category=next((grid.categories[c] for key, c in condition if key == CATEGORY), None),
        facets={grid.keys[key]: grid.values[key][v] for key, v in sorted(condition) if key != CATEGORY},
        n=n,
        correct=k,
        accuracy=accuracy,
        rest=rest.value,
        effect=_difference(accuracy, rest),
        p_value=p,
        q_value=q,
    )


def _weighted(correct: Ints, n: Ints, weights: Floats, confidence: float) -> Interval:
    """Weighted mean of independent shares: variances recovered from their intervals (MOVER, Zou and Donner 2008)."""
    value = correct / n
    low, high = intervals.wilson(correct, n, confidence)
    mean = float(weights @ value)
    return Interval(
        value=mean,
        low=max(mean - float(np.sqrt((weights**2 * (value - low) ** 2).sum())), 0.0),
        high=min(mean + float(np.sqrt((weights**2 * (high - value) ** 2).sum())), 1.0),
    )


def _difference(one: Interval, other: Interval) -> Interval:
    """Of two independent shares, one less the other: the hybrid score interval (Newcombe 1998, method 10)."""
    value = one.value - other.value
    below = np.hypot(one.value - one.low, other.high - other.value)
    above = np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value=value, low=max(value - float(below), -1.0), high=min(value + float(above), 1.0))
