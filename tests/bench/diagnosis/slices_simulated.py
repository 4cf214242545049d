"""Does the slice finder call what is there, and nothing else? `python tests/bench/diagnosis/slices_simulated.py`.

Null data (no slice differs from any other in truth, or no facet does): the false discovery rate of what is reported, of
what Benjamini-Hochberg calls before redundant slices go, with one family instead of three, and of Benjamini-Yekutieli,
over designs with the dependences that occur: nested slices, values of one key that compete, two keys that mark the same
rows. Planted data: how often is the planted slice reported, how often it alone, and the mean share of other slices in
what is reported (some of them worse in truth, as they share rows with it). Speed at the end.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from dpe_jobs.diagnosis import exact
from dpe_jobs.diagnosis.grid import CATEGORY, make_grid
from dpe_jobs.diagnosis.slices import MIN_ROWS, Rows, choose, find, run_tests

SIGNIFICANCE, CONFIDENCE = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Design:
    """Rows over categories with facets. `alias`: the last key marks the same rows as the first."""

    name: str
    rows: int
    categories: int
    keys: int
    values: int
    accuracy: float
    alias: bool = False
    uneven: bool = False
    """Category accuracies differ, from accuracy - .3 to accuracy: null for facets, not for categories."""

    def facets(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Category and (rows, keys) facet codes; a key's later values are rarer."""
        shares = 1 / np.arange(1, self.values + 1)
        codes = random.choice(self.values, (self.rows, self.keys), p=shares / shares.sum())
        if self.alias:
            codes[:, -1] = codes[:, 0]
        return np.arange(self.rows) % self.categories, codes

    def truth(self, category: NDArray[np.int64]) -> NDArray[np.float64]:
        spread = np.linspace(-0.3, 0, self.categories) if self.uneven else np.zeros(self.categories)
        return self.accuracy + spread[category]


NULL = (
    Design("200 rows, 12 categories, 3 keys", 200, 12, 3, 4, 0.7),
    Design("2400 rows, 12 categories, 4 keys", 2400, 12, 4, 4, 0.8),
    Design("2400 rows, 12 categories, 4 keys, accuracy .97", 2400, 12, 4, 4, 0.97),
    Design("2400 rows, 12 categories, 4 keys, accuracy .5", 2400, 12, 4, 4, 0.5),
    Design("2400 rows, 12 categories, 4 keys, two alike", 2400, 12, 4, 4, 0.8, alias=True),
    Design("1000 rows, 2 categories, 2 keys of 2 values", 1000, 2, 2, 2, 0.8),
    Design("2400 rows, 12 uneven categories, 4 keys", 2400, 12, 4, 4, 0.9, uneven=True),
)
PLANTED = Design("", 2400, 12, 4, 4, 0.8)


def as_rows(category: NDArray[np.int64], codes: NDArray[np.int64], correct: NDArray[np.bool_]) -> Rows:
    facets = [{f"k{key}": f"v{value}" for key, value in enumerate(row)} for row in codes.tolist()]
    return Rows([f"c{c:02d}" for c in category.tolist()], facets, correct)


def yekutieli(burdens: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values of Benjamini and Yekutieli (2001): those of BH times 1 + 1/2 + ... + 1/m, for any dependence."""
    harmonic = float((1 / np.arange(1, len(burdens) + 1)).sum())
    return exact.adjust(burdens) * harmonic


@dataclass(frozen=True, slots=True)
class Searched:
    """Every slice that the finder tested, by what its rows have in common, and those that it reports."""

    names: list[frozenset[tuple[str, str]]]
    p: NDArray[np.float64]
    kinds: NDArray[np.int64]
    """Number of facets."""
    reported: list[int]


def search(rows: Rows) -> Searched:
    """What `find` does, but for describing what it found."""
    least_rows = max(MIN_ROWS, -(-len(rows.category) // 1000))
    grid = make_grid(rows.category, rows.facets, rows.correct, least_rows)
    tests = run_tests(grid, least_rows, SIGNIFICANCE)
    names = [
        frozenset(
            ("category", grid.categories[value]) if key == CATEGORY else (grid.keys[key], grid.values[key][value])
            for key, value in condition
        )
        for condition in tests.conditions
    ]
    kinds = np.array([sum(key != CATEGORY for key, _ in c) for c in tests.conditions], dtype=np.int64)
    return Searched(names, tests.p, kinds, choose(grid, tests, SIGNIFICANCE)[0])


def null(design: Design, trials: int) -> dict[str, float]:
    """False discovery rate: mean share of false ones in what is called. If all are false: how often any is called."""
    rates = {"tests": 0.0, "reported": 0.0, "three families": 0.0, "one family": 0.0, "BY": 0.0}
    for trial in range(trials):
        random = np.random.default_rng([1, trial])
        category, codes = design.facets(random)
        found = search(as_rows(category, codes, random.random(design.rows) < design.truth(category)))
        false = (found.kinds > 0) | (not design.uneven)  # of uneven categories some are weaker than the rest, in truth

        def share(called: NDArray[np.intp], false: NDArray[np.bool_] = false) -> float:
            return float(false[called].mean()) / trials if len(called) else 0.0

        weighted = found.p * exact.scale(found.kinds)
        rates["tests"] += len(found.p) / trials
        rates["reported"] += share(np.array(found.reported, dtype=np.intp))
        rates["three families"] += share(np.flatnonzero(exact.adjust(weighted) <= SIGNIFICANCE))
        rates["one family"] += share(np.flatnonzero(exact.adjust(found.p * len(found.p)) <= SIGNIFICANCE))
        rates["BY"] += share(np.flatnonzero(yekutieli(weighted) <= SIGNIFICANCE))
    return rates


def plants() -> Iterator[tuple[str, str | None, dict[str, str], float]]:
    """What is planted: a category, a facet over all, a facet within a category, a pair over all; and how deep."""
    for depth in (0.1, 0.15, 0.2, 0.3, 0.4):
        yield "category", "c03", {}, depth
        yield "facet", None, {"k1": "v2"}, depth
        yield "facet in a category", "c03", {"k1": "v1"}, depth
        yield "pair of facets", None, {"k1": "v1", "k2": "v2"}, depth


def planted(where: str | None, facets: dict[str, str], depth: float, trials: int) -> dict[str, float]:
    """How often a planted slice is found, and what comes with it."""
    found = alone = called = by = 0
    size = others = 0.0
    for trial in range(trials):
        random = np.random.default_rng([2, trial])
        category, codes = PLANTED.facets(random)
        inside = np.ones(PLANTED.rows, dtype=bool) if where is None else category == int(where[1:])
        for key, value in facets.items():
            inside &= codes[:, int(key[1:])] == int(value[1:])
        truth = PLANTED.truth(category) - depth * inside
        size += inside.sum() / trials
        it = search(as_rows(category, codes, random.random(PLANTED.rows) < truth))
        wanted = frozenset(facets.items()) | ({("category", where)} if where else set())
        place, burdens = it.names.index(wanted), it.p * exact.scale(it.kinds)
        found += place in it.reported
        alone += it.reported == [place]
        others += sum(i != place for i in it.reported) / max(len(it.reported), 1) / trials
        called += exact.adjust(burdens)[place] <= SIGNIFICANCE
        by += yekutieli(burdens)[place] <= SIGNIFICANCE
    return {
        "rows": size,
        "found": found / trials,
        "alone": alone / trials,
        "others": others,
        "BH": called / trials,
        "BY": by / trials,
    }


def speed() -> Iterator[tuple[int, int, int, float]]:
    for rows, keys in ((1_000, 4), (10_000, 12), (100_000, 12), (100_000, 16)):
        design = Design("", rows, 12, keys, 10, 0.8)
        random = np.random.default_rng(3)
        category, codes = design.facets(random)
        truth = design.truth(category) - 0.3 * (codes[:, 1] == 2)
        data = as_rows(category, codes, random.random(rows) < truth)
        begin = time.perf_counter()
        _, tested = find(data, confidence=CONFIDENCE, significance=SIGNIFICANCE)
        yield rows, keys, tested, time.perf_counter() - begin


def main() -> None:
    """Print all three tables; exit code 1 when null data are called more often than the rate allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    trials = parser.parse_args().trials
    # were the rate SIGNIFICANCE, more would be called once in 1000 runs of one design
    bound = binom.ppf(0.999, trials, SIGNIFICANCE) / trials
    print(f"## Null data: false discovery rate in {trials} data sets; at most {bound:.4f} where it is 5% in truth")
    print("| design | tests | reported | three families | one family | BY |\n|---|---|---|---|---|---|")
    bad = False
    for design in NULL:
        r = null(design, trials)
        bad |= r["reported"] > bound
        print(
            f"| {design.name} | {r['tests']:.0f} | {r['reported']:.4f} | {r['three families']:.4f} "
            f"| {r['one family']:.4f} | {r['BY']:.4f} |",
            flush=True,
        )
    few = max(trials // 10, 1)
    print(f"\n## Planted in 2400 rows, 12 categories, 4 keys of 4 values, accuracy .8: {few} data sets each")
    print(
        "| planted | rows | points lower | found | alone | share of others | significant by BH | by BY |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name, where, facets, depth in plants():
        r = planted(where, facets, depth, few)
        print(
            f"| {name} | {r['rows']:.0f} | {100 * depth:.0f} | {r['found']:.2f} | {r['alone']:.2f} "
            f"| {r['others']:.3f} | {r['BH']:.2f} | {r['BY']:.2f} |",
            flush=True,
        )
    print("\n## Speed\n| rows | keys of 10 values | tests | seconds |\n|---|---|---|---|")
    for rows, keys, tested, seconds in speed():
        print(f"| {rows} | {keys} | {tested} | {seconds:.2f} |", flush=True)
    raise SystemExit(int(bad))


if __name__ == "__main__":
    main()
