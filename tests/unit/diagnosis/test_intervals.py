import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_jobs.diagnosis.intervals import accuracy, macro, pass_rate, wilson


def test_wilson_is_the_published_interval():
    # Newcombe 1998a, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    low, high = wilson([81, 15, 0, 1], [263, 148, 20, 29], 0.95)
    assert np.round(low, 4).tolist() == [0.2553, 0.0624, 0.0, 0.0061]
    assert np.round(high, 4).tolist() == [0.3662, 0.1605, 0.1611, 0.1718]


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_an_interval_holds_its_value_and_stays_between_0_and_1(counts, confidence):
    found = accuracy(*counts, confidence)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_nothing_answered_says_nothing():
    found = accuracy(0, 0, 0.95)
    assert (found.low, found.high) == (0.0, 1.0)


def test_rollouts_that_agree_within_an_item_count_as_one():
    """10 items, each all right or all wrong over 9 rollouts: as wide as 10 answers, not as 90."""
    alike = pass_rate([1.0] * 5 + [0.0] * 5, 90, 0.95)
    low, high = wilson(5, 10, 0.95)
    assert alike.high - alike.low >= high - low
    spread = pass_rate([4 / 9, 5 / 9] * 5, 90, 0.95)
    low, high = wilson(45, 90, 0.95)
    assert high - low <= spread.high - spread.low < 1.4 * (high - low)


def test_pass_rate_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        skill = random.beta(0.5, 1.5, 30)  # items differ much: mean 0.25
        rates = random.binomial(9, skill) / 9
        found = pass_rate(rates, 270, 0.95)
        covered += found.low <= 0.25 <= found.high
    assert 0.93 <= covered / 2000 <= 0.99


def test_never_solved_is_out_of_reach_only_with_enough_items():
    assert pass_rate([0.0] * 5, 45, 0.95).high > 0.2
    assert pass_rate([0.0] * 30, 270, 0.95).high < 0.2


@pytest.mark.parametrize("k", range(2, 61))
def test_one_right_rollout_more_never_lowers_the_high_end_nor_a_wrong_one_raises_the_low_end(k):
    none, one = pass_rate([0.0] * k, 9 * k, 0.95), pass_rate([0.0] * (k - 1) + [1 / 9], 9 * k, 0.95)
    assert none.high <= one.high
    every, all_but_one = pass_rate([1.0] * k, 9 * k, 0.95), pass_rate([1.0] * (k - 1) + [8 / 9], 9 * k, 0.95)
    assert every.low >= all_but_one.low


def test_no_success_covers_what_items_whose_rollouts_are_all_alike_may_hide():
    """At the high end of none right in k items, items that are right wholly or never show none in 2.5% of samples."""
    high = pass_rate([0.0] * 17, 153, 0.95).high
    assert 0.01 < (1 - high) ** 17 < 0.05


def test_one_item_is_no_evidence_to_speak_of():
    found = pass_rate([1.0], 9, 0.95)
    assert found.low < 0.3
    with pytest.raises(ValueError, match="no item"):
        pass_rate([], 0, 0.95)


@given(st.lists(st.tuples(st.integers(0, 30), st.just(30)), min_size=1, max_size=10))
def test_macro_interval_is_narrower_than_the_widest_part_and_holds_the_mean(parts):
    intervals = [accuracy(k, n, 0.95) for k, n in parts]
    found = macro(intervals)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(np.mean([i.value for i in intervals]))
    assert found.high - found.low <= max(i.high - i.low for i in intervals) + 1e-9


def test_macro_interval_covers_the_truth_about_as_often_as_it_says():
    random, truth = np.random.default_rng(1), np.array([0.98, 0.3, 0.7, 0.5, 0.95, 0.8, 0.1])
    covered = 0
    for _ in range(2000):
        found = macro([accuracy(int(k), 30, 0.95) for k in random.binomial(30, truth)])
        covered += found.low <= truth.mean() <= found.high
    assert 0.93 <= covered / 2000 <= 0.99
