from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.artifacts import Comparison, Interval
from dpe_api.evaluation_spec import Gate
from dpe_jobs.diagnosis.items import SCHEMA, Items
from dpe_jobs.evaluation.compare import compare, judge, macro_change, paired_change

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60).map(
    lambda found: tuple(np.array(column, dtype=bool) for column in zip(*found, strict=True))
)


def counts(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = [True] * both + [True] * lost + [False] * gained + [False] * neither
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return np.array(before), np.array(after)


def test_paired_interval_is_the_published_one():
    # Newcombe 1998, paired differences, table II, method 10: (36, 12, 2, 0) gives 0.0569 to 0.3404
    after, before = counts(36, 12, 2, 0)
    found = paired_change(before, after, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0569, 0.3404)


@given(pairs)
def test_intervals_hold_their_value_and_turn_with_the_sides(both):
    before, after = both
    there, back = paired_change(before, after, 0.95), paired_change(after, before, 0.95)
    assert there.low <= there.value <= there.high
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low < there.high <= 1


def of_categories(*parts: tuple[np.ndarray, np.ndarray]) -> Interval:
    return macro_change([paired_change(before, after, 0.95) for before, after in parts])


@given(st.lists(pairs, min_size=1, max_size=4))
def test_macro_change_is_the_mean_of_the_categories_and_turns_with_the_sides(parts):
    there = of_categories(*parts)
    back = of_categories(*((after, before) for before, after in parts))
    assert there.value == pytest.approx(np.mean([a.mean() - b.mean() for b, a in parts]))
    assert -1 <= there.low < there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_with_many_items_it_agrees_with_the_paired_standard_error():
    before, after = counts(400, 100, 300, 200)
    found = of_categories((before, after))
    difference = after.astype(int) - before
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert found.low == pytest.approx(0.2 - half, abs=0.004)
    assert found.high == pytest.approx(0.2 + half, abs=0.004)


def test_the_interval_covers_the_truth_at_least_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for _ in range(500):
        parts = []
        for lost, gained in ((0.05, 0.3), (0.1, 0.1), (0.0, 0.05)):
            lose, keep, gain = random.multinomial(60, [lost, 1 - lost - gained, gained])
            parts.append(counts(int(keep), int(lose), int(gain), 0))
        found = of_categories(*parts)
        covered += found.low <= (0.25 + 0 + 0.05) / 3 <= found.high
    assert 0.93 <= covered / 500 <= 0.99


@pytest.mark.parametrize(
    ("categories", "items", "worse_by"), [(1, 50, 0.03), (1, 100, 0.02), (20, 2, 0.02), (7, 150, 0.02), (1, 1000, 0.02)]
)
def test_a_worse_model_seldom_passes_however_few_items_there_are_and_however_few_change(categories, items, worse_by):
    """At 95% the low end of the interval is above -0.01 for at most 2.5% of models that are worse by more."""
    random, passed, tries = np.random.default_rng(0), 0, 400
    right, lost = 0.6, worse_by  # nothing is gained
    for _ in range(tries):
        parts = []
        for _ in range(categories):
            before = random.random(items) < right
            parts.append((before, before & ~(random.random(items) < lost / right)))
        comparison = Comparison(name="test", n=1, before=0, after=0, delta=of_categories(*parts), categories=[])
        passed += judge([comparison], Gate(max_regression=0.01))[0]
    assert passed / tries <= 0.025


def test_an_unchanged_model_passes_where_the_benchmark_is_large_enough_to_tell():
    for items, accepted in ((50, False), (1000, True)):
        before = np.arange(items) % 5 < 3
        delta = of_categories((before, before.copy()))
        comparison = Comparison(name="test", n=items, before=0.6, after=0.6, delta=delta, categories=[])
        assert judge([comparison], Gate(max_regression=0.01))[0] is accepted


def items(path: Path, rows: list[tuple[str, str, str, bool | None]]) -> Items:
    table = [{"set": s, "id": i, "category": c, "correct": ok} for s, i, c, ok in rows]
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), path)
    return Items(path)


def test_only_items_that_both_models_answered_are_compared(tmp_path):
    before = items(
        tmp_path / "b",
        [("test", "1", "a", True), ("test", "2", "a", None), ("test", "3", "a", False), ("probe", "1", "a", True)],
    )
    after = items(
        tmp_path / "a",
        [("test", "3", "a", True), ("test", "2", "a", True), ("test", "1", "a", True), ("test", "9", "a", True)],
    )
    found = compare(before, after, "test", 0.95)
    assert found is not None
    assert (found.n, found.before, found.after) == (2, 0.5, 1.0)
    assert compare(before, after, "probe", 0.95) is None


def comparison(name: str, low: float) -> Comparison:
    delta = Interval(value=0.1, low=low, high=0.2)
    return Comparison(name=name, n=10, before=0.5, after=0.6, delta=delta, categories=[])


@pytest.mark.parametrize(("low", "accepted"), [(0.05, True), (-0.0099, True), (-0.01, False), (-0.3, False)])
def test_gate_accepts_only_above_the_allowed_regression(low, accepted):
    verdict, reason = judge([comparison("test", low)], Gate(max_regression=0.01))
    assert verdict is accepted
    assert f"test +0.100 [{low:+.3f}, +0.200]" in reason
    assert "-0.010" in reason
    assert "\n" not in reason


def test_one_bad_benchmark_rejects_and_is_the_one_that_is_named():
    verdict, reason = judge([comparison("a", 0.1), comparison("b", -0.2)], Gate())
    assert not verdict
    assert "b +0.100" in reason
    assert "a +0.100" not in reason


def test_the_probe_decides_only_without_benchmarks():
    assert judge([comparison("probe", -0.5), comparison("test", 0.1)], Gate())[0]
    assert not judge([comparison("probe", -0.5)], Gate())[0]
    with pytest.raises(ValueError, match="nothing"):
        judge([], Gate())
