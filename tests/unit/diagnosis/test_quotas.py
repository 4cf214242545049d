import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_jobs.diagnosis.quotas import capped, fill, largest_remainder, quotas_of


@st.composite
def demands(draw):
    """Shares that sum to 1, who comes last, names, and what can be supplied."""
    names = draw(st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=12, unique=True))
    weight = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 5e-324, 1e-300, 1e300]))
    weights = np.array([draw(weight) for _ in names])
    shares = weights / weights.max() if weights.max() > 0 else np.ones(len(names))
    last = np.array([draw(st.booleans()) for _ in names])
    supply = [draw(st.one_of(st.none(), st.integers(0, 2000))) for _ in names]
    return shares / shares.sum(), last, names, supply


@given(demands(), st.integers(1, 1_000_000))
def test_quotas_sum_to_the_target_or_to_all_that_can_be_supplied(demand, target):
    shares, last, names, supply = demand
    quotas = quotas_of(shares, last, target, names, supply)
    total = None if None in supply else sum(supply)
    assert quotas.sum() == (target if total is None else min(target, total))
    assert all(q >= 0 and (limit is None or q <= limit) for q, limit in zip(quotas.tolist(), supply, strict=True))


@given(demands(), st.integers(1, 1_000_000))
def test_without_limits_a_quota_is_within_one_of_its_share(demand, target):
    shares, last, names, _ = demand
    quotas = quotas_of(shares, last, target, names)
    assert quotas.sum() == target
    assert (np.abs(quotas - shares * target) <= 1 + 1e-6).all()


@given(demands(), st.integers(1, 5000), st.randoms())
def test_the_order_of_categories_does_not_matter(demand, target, random):
    shares, last, names, supply = demand
    order = random.sample(range(len(names)), len(names))
    there = quotas_of(shares, last, target, names, supply)
    again = quotas_of(shares[order], last[order], target, [names[i] for i in order], [supply[i] for i in order])
    assert again.tolist() == there[order].tolist()


@given(demands(), st.integers(1, 5000))
def test_a_limit_takes_from_nobody_else(demand, target):
    shares, last, _, supply = demand
    caps = np.array([np.inf if limit is None else limit for limit in supply])
    free = capped(shares, last, np.full(len(caps), np.inf), target)
    limited = capped(shares, last, caps, target)
    assert ((limited >= free - 1e-6) | (limited >= caps - 1e-6)).all()


@given(demands(), st.integers(1, 5000))
def test_those_who_come_last_get_more_than_their_share_only_when_the_others_are_full(demand, target):
    shares, last, _, supply = demand
    caps = np.array([np.inf if limit is None else limit for limit in supply])
    amounts = capped(shares, last, caps, target)
    if (amounts[~last] < caps[~last] - 1e-6).any():
        assert (amounts[last] <= shares[last] * target + 1e-6).all()


def test_what_a_limit_leaves_over_goes_to_the_others_by_share():
    shares, nobody = np.array([0.5, 0.3, 0.2]), np.zeros(3, dtype=bool)
    assert quotas_of(shares, nobody, 100, "abc", [10, None, None]).tolist() == [10, 54, 36]
    assert quotas_of(shares, nobody, 100, "abc", [10, 40, None]).tolist() == [10, 40, 50]
    assert quotas_of(shares, nobody, 100, "abc", [0, 0, None]).tolist() == [0, 0, 100]


def test_where_all_supply_is_less_than_the_target_everything_is_taken():
    shares, nobody = np.array([0.5, 0.3, 0.2]), np.zeros(3, dtype=bool)
    assert quotas_of(shares, nobody, 100, "abc", [10, 20, 30]).tolist() == [10, 20, 30]
    assert quotas_of(shares, nobody, 100, "abc", [0, 0, 0]).tolist() == [0, 0, 0]


def test_only_those_who_want_nothing_have_room_left_and_get_the_same_each():
    assert fill(np.array([1.0, 0.0, 0.0]), np.array([4.0, np.inf, np.inf]), 10).tolist() == [4.0, 3.0, 3.0]


def test_out_of_reach_keeps_its_floor_when_another_category_is_short():
    shares, last = np.array([0.6, 0.38, 0.02]), np.array([False, False, True])
    assert quotas_of(shares, last, 100, "abc", [0, None, None]).tolist() == [0, 98, 2]
    assert quotas_of(shares, last, 100, "abc", [0, 50, None]).tolist() == [0, 50, 50]


def test_ties_of_largest_remainder_go_by_name():
    assert largest_remainder(np.full(3, 4 / 3), 4, ["b", "c", "a"]).tolist() == [1, 1, 2]
    assert largest_remainder(np.array([3.5, 2.1, 1.4]), 7, ["a", "b", "c"]).tolist() == [4, 2, 1]


@pytest.mark.parametrize("extreme", [0.0, 5e-324, 1e-300, 1e300])
def test_extreme_weights_make_no_nan(extreme):
    amounts = fill(np.array([extreme, extreme, 1e300]), np.array([5.0, np.inf, np.inf]), 100)
    assert np.isfinite(amounts).all()
    assert amounts.sum() == pytest.approx(100)
