import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, fisher_exact, hypergeom

from dpe_jobs.diagnosis import exact
from dpe_jobs.diagnosis.grid import MAX_KEYS
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


def where(category, facets, **wanted):
    """Rows with these facets, `within` a category when one is given."""
    within = wanted.pop("within", None)
    return np.array(
        [within in (None, c) and wanted.items() <= f.items() for c, f in zip(category, facets, strict=True)]
    )


def search(truth, category, facets, random):
    return find(draw(truth, category, facets, random), confidence=CONFIDENCE, significance=SIGNIFICANCE)[0]


def test_the_exact_stratified_test_is_the_distribution_of_the_sum():
    random = np.random.default_rng(0)
    n, right, total = [3, 10, 4, 6], [5, 12, 0, 9], [9, 30, 8, 9]
    draws = sum(random.hypergeometric(g, t - g, d, 400_000) for d, g, t in zip(n, right, total, strict=True))
    for k in (4, 7, 10, 13):
        p = exact.stratified_tail(k, n, right, total)
        assert p == pytest.approx((draws <= k).mean(), abs=5 * np.sqrt(p * (1 - p) / 400_000) + 1e-9)
    assert exact.stratified_tail(7, [10], [12], [30]) == pytest.approx(exact.lower_tail(7, 10, 12, 30)[0])
    assert exact.stratified_tail(sum(n), n, right, total) == pytest.approx(1)


def test_a_facet_is_not_called_weak_for_occurring_in_a_weak_category():
    """Most rows of category c5 are drawn as sketches; c5 is hard, sketches are not."""
    random = np.random.default_rng(4)
    category, facets = population(random)
    for c, f in zip(category, facets, strict=True):
        f["style"] = "sketch" if random.random() < (0.9 if c == "c5" else 0.1) else "photo"
    truth = np.where(where(category, facets, within="c5"), 0.45, 0.85)
    assert names(search(truth, category, facets, random)) == [("c5", {})]


def test_a_pair_of_facets_is_reported_only_where_it_is_worse_than_each_of_them_says():
    random = np.random.default_rng(5)
    category, facets = population(random)
    one = np.where(where(category, facets, k0="v1"), 0.4, 0.85)
    assert names(search(one, category, facets, random)) == [(None, {"k0": "v1"})]
    both = np.where(where(category, facets, k0="v1", k1="v2"), 0.3, 0.85)
    assert names(search(both, category, facets, random)) == [(None, {"k0": "v1", "k1": "v2"})]
    # each by itself, and the two together no worse than that (on the scale of log odds)
    odds = np.exp(2 - 1.6 * where(category, facets, k0="v1") - 1.6 * where(category, facets, k1="v2"))
    assert {tuple(f.items()) for _, f in names(search(odds / (1 + odds), category, facets, random))} == {
        (("k0", "v1"),),
        (("k1", "v2"),),
    }


def test_a_facet_that_is_weak_in_all_categories_is_reported_once_and_not_by_category():
    random = np.random.default_rng(6)
    category, facets = population(random, n=2400)
    truth = np.where(where(category, facets, k0="v1"), 0.4, 0.85)
    assert names(search(truth, category, facets, random)) == [(None, {"k0": "v1"})]
    # much weaker still in one of them: that one too
    truth[where(category, facets, within="c2", k0="v1")] = 0.02
    assert set(map(str, names(search(truth, category, facets, random)))) == {
        str((None, {"k0": "v1"})),
        str(("c2", {"k0": "v1"})),
    }


def test_two_keys_that_mark_the_same_rows_are_reported_as_one_slice():
    random = np.random.default_rng(7)
    category, facets = population(random)
    for f in facets:
        f["alias"] = f["k0"].upper()
    truth = np.where(where(category, facets, k0="v1"), 0.5, 0.85)
    found = names(search(truth, category, facets, random))
    assert len(found) == 1
    assert found[0][1] in ({"k0": "v1"}, {"alias": "V1"})


def test_the_order_of_rows_changes_nothing():
    random = np.random.default_rng(8)
    category, facets = population(random)
    rows = draw(np.where(where(category, facets, k0="v1"), 0.5, 0.85), category, facets, random)
    order = random.permutation(len(category))
    mixed = Rows([category[i] for i in order], [facets[i] for i in order], rows.correct[order])
    at = {"confidence": CONFIDENCE, "significance": SIGNIFICANCE}
    assert find(mixed, **at) == find(rows, **at)


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_alike_have_no_weak_slice(right):
    random = np.random.default_rng(9)
    category, facets = population(random)
    rows = Rows(category, facets, np.full(len(category), right))
    assert find(rows, confidence=CONFIDENCE, significance=SIGNIFICANCE) == ([], 0)  # none could be significant


def test_few_rows_are_no_slice():
    random = np.random.default_rng(10)
    category, facets = population(random)
    for f in facets[:9]:
        f["rare"] = "yes"
    truth = np.full(len(category), 0.9)
    truth[:9] = 0
    assert names(search(truth, category, facets, random)) == []


def test_the_work_is_bounded_whatever_the_facets():
    """40 keys, one of them different in every row: seconds, and fewer than 1000 slices a pair of keys and scope."""
    random = np.random.default_rng(11)
    category, facets = population(random, n=20_000, categories=12, keys=40, values=5)
    for number, f in enumerate(facets):
        f["id"] = str(number)
    rows = draw(np.where(where(category, facets, k0="v1"), 0.5, 0.85), category, facets, random)
    slices, tested = find(rows, confidence=CONFIDENCE, significance=SIGNIFICANCE)
    assert names(slices)[0] == (None, {"k0": "v1"})
    pairs = MAX_KEYS * (MAX_KEYS - 1) // 2
    assert tested <= len(set(category)) + 2 * 1000 * (MAX_KEYS + pairs)


def test_a_planted_slice_does_not_let_others_slip_through():
    """Its own narrower versions are significant too; were they counted, one in twenty of *them* could be false."""
    random, trials, beside = np.random.default_rng(12), 40, 0
    category, facets = population(random)
    truth = np.where(where(category, facets, k0="v1"), 0.4, 0.85)
    for _ in range(trials):
        beside += names(search(truth, category, facets, random)) != [(None, {"k0": "v1"})]
    # a false one beside the true one is half of what is reported: at most in 2 * SIGNIFICANCE of the data sets
    assert beside <= binom.ppf(0.9999, trials, 2 * SIGNIFICANCE)


def test_without_rows_nothing_is_tested():
    assert find(Rows([], [], np.zeros(0, dtype=bool)), confidence=CONFIDENCE, significance=SIGNIFICANCE) == ([], 0)
