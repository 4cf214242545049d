import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, fisher_exact, hypergeom

from dpe_jobs.diagnosis import exact
from dpe_jobs.diagnosis.slices import Rows, find

CONFIDENCE, SIGNIFICANCE = 0.95, 0.05


def draw(truth, category, facets, random):
    """Rows whose answers are right with the probabilities `truth`."""
    return Rows(category, facets, random.random(len(category)) < truth)


def population(random, n=1200, categories=6, keys=4, values=3):
    """Categories of n / categories rows with independent facets: names and facets by row."""
    names = [f"c{i % categories}" for i in range(n)]
    drawn = random.integers(0, values, (n, keys))
    return names, [{f"k{j}": f"v{v}" for j, v in enumerate(row)} for row in drawn]


def names(slices):
    return [(s.category, s.facets) for s in slices]


def test_the_tail_is_that_of_the_published_distribution():
    random = np.random.default_rng(0)
    total = random.integers(2, 5000, 3000)
    right, n = random.integers(0, total + 1), random.integers(1, total + 1)
    k = random.hypergeometric(right, total - right, n)
    ours = exact.lower_tail(k, n, right, total)
    assert ours == pytest.approx(hypergeom.cdf(k, total, right, n), rel=1e-9, abs=1e-300)
    table = [[3, 7], [15, 5]]  # 3 of 10 right, elsewhere 15 of 20
    assert exact.lower_tail(3, 10, 18, 30)[0] == pytest.approx(fisher_exact(table, "less").pvalue)


def test_q_values_are_those_of_benjamini_and_hochberg_when_all_tests_are_of_one_kind():
    p = np.random.default_rng(0).random(500) ** 3
    assert exact.adjust(p * exact.scale(np.zeros(500, dtype=np.int64))) == pytest.approx(false_discovery_control(p))


def test_planted_slices_are_found_and_named_once():
    random = np.random.default_rng(1)
    category, facets = population(random)
    truth = np.full(len(category), 0.85)
    truth[[c == "c5" for c in category]] = 0.6
    truth[[c == "c2" and f["k0"] == "v1" for c, f in zip(category, facets, strict=True)]] = 0.3
    truth[[f["k1"] == "v2" and f["k2"] == "v0" and c != "c5" for c, f in zip(category, facets, strict=True)]] = 0.5
    found, tested = find(draw(truth, category, facets, random), confidence=CONFIDENCE, significance=SIGNIFICANCE)
    assert tested > 400
    wanted = [(None, {"k1": "v2", "k2": "v0"}), ("c2", {"k0": "v1"}), ("c5", {})]
    assert sorted(map(str, names(found))) == sorted(map(str, wanted))
    for s in found:
        assert s.effect.value == pytest.approx(s.accuracy.value - s.rest)
        assert s.effect.low < s.effect.value < s.effect.high < 0
        assert s.p_value <= s.q_value <= SIGNIFICANCE


def test_null_data_seldom_has_a_slice():
    """With no difference, any slice is a false discovery: that happens in at most 5% of data sets."""
    random, trials, false = np.random.default_rng(2), 150, 0
    category, facets = population(random)
    for _ in range(trials):
        rows = draw(np.full(len(category), 0.8), category, facets, random)
        false += bool(find(rows, confidence=CONFIDENCE, significance=SIGNIFICANCE)[0])
    # were the rate just SIGNIFICANCE, more would happen once in 10,000 runs
    assert false <= binom.ppf(0.9999, trials, SIGNIFICANCE)


def test_without_rows_nothing_is_tested():
    assert find(Rows([], [], np.zeros(0, dtype=bool)), confidence=CONFIDENCE, significance=SIGNIFICANCE) == ([], 0)
