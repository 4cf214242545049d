import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_jobs.diagnosis.adaptive import Answered, allocate
from dpe_jobs.diagnosis.intervals import wilson


@st.composite
def answered(draw: st.DrawFn) -> Answered:
    n = draw(st.integers(0, 60))
    return Answered(n, draw(st.integers(0, n)), draw(st.integers(0, 40)))


categories = st.dictionaries(st.sampled_from("abcdefgh"), answered(), min_size=1)


@given(categories, st.integers(0, 80))
def test_all_rows_go_where_there_are_spare_ones(found, rows):
    given_rows = allocate(found, rows, 0.95)
    assert given_rows.keys() == found.keys()
    assert sum(given_rows.values()) == min(rows, sum(c.spare for c in found.values()))
    assert all(0 <= given_rows[name] <= found[name].spare for name in found)


@given(categories, st.integers(0, 80), st.randoms())
def test_allocation_does_not_depend_on_the_order_of_categories(found, rows, random):
    names = list(found)
    random.shuffle(names)
    assert allocate({n: found[n] for n in names}, rows, 0.95) == allocate(found, rows, 0.95)


@given(categories, st.integers(0, 40))
def test_one_row_more_is_one_category_s_row_more(found, rows):
    few, many = (allocate(found, r, 0.95) for r in (rows, rows + 1))
    assert all(many[name] >= few[name] for name in found)


def test_categories_near_one_half_and_those_asked_little_get_the_rows():
    found = {"half": Answered(30, 15, 99), "sure": Answered(30, 30, 99), "few": Answered(5, 5, 99)}
    rows = allocate(found, 40, 0.95)
    assert rows["sure"] == 0
    assert rows["half"] > 10
    assert rows["few"] > 20


def test_a_category_without_an_answer_is_widest():
    assert allocate({"a": Answered(20, 10, 9), "b": Answered(0, 0, 9)}, 1, 0.95) == {"a": 0, "b": 1}


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.8, 0.95])
def test_adaptive_rows_bias_a_category_by_little_and_its_interval_still_covers(truth):
    # half of 350 rows over 7 categories: the strongest use of it. docs/diagnosis-accuracy.md has more of this
    random, runs, first, spare = np.random.default_rng(1), 300, 25, 175
    others = [0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    errors, covered = [], 0
    for _ in range(runs):
        counts = random.binomial(first, [truth, *others])
        found = {str(i): Answered(first, int(k), spare) for i, k in enumerate(counts)}
        more = allocate(found, spare, 0.95)["0"]
        n, k = first + more, int(counts[0] + random.binomial(more, truth))
        low, high = wilson(k, n, 0.95)
        errors.append(k / n - truth)
        covered += bool(low <= truth <= high)
    assert abs(np.mean(errors)) < 0.012 + 3.3 * np.std(errors) / runs**0.5
    assert covered / runs > 0.95 - 3.3 * (0.95 * 0.05 / runs) ** 0.5
