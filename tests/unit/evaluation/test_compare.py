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


@given(st.dictionaries(st.sampled_from("abcd"), pairs, min_size=1), st.integers(0, 5))
def test_macro_change_is_the_mean_of_the_categories_and_repeatable(by_category, seed):
    found = macro_change(by_category, 0.95, seed, resamples=200)
    assert found.value == pytest.approx(np.mean([a.mean() - b.mean() for b, a in by_category.values()]))
    assert found.low <= found.value <= found.high
    assert found == macro_change(dict(reversed(by_category.items())), 0.95, seed, resamples=200)


def test_bootstrap_agrees_with_the_paired_standard_error():
    before, after = counts(40, 10, 30, 20)
    found = macro_change({"a": (before, after)}, 0.95, 0)
    difference = after.astype(int) - before
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert found.low == pytest.approx(0.2 - half, abs=0.015)
    assert found.high == pytest.approx(0.2 + half, abs=0.015)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for seed in range(500):
        by_category = {}
        for name, lost, gained in (("a", 0.05, 0.3), ("b", 0.1, 0.1), ("c", 0.0, 0.05)):
            lose, keep, gain = random.multinomial(60, [lost, 1 - lost - gained, gained])
            by_category[name] = counts(int(keep), int(lose), int(gain), 0)
        found = macro_change(by_category, 0.95, seed, resamples=1000)
        covered += found.low <= (0.25 + 0 + 0.05) / 3 <= found.high
    assert 0.91 <= covered / 500 <= 0.98


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
    found = compare(before, after, "test", 0.95, 0)
    assert found is not None
    assert (found.n, found.before, found.after) == (2, 0.5, 1.0)
    assert compare(before, after, "probe", 0.95, 0) is None


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
