import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore

from dpe_api.diagnosis_spec import Probe
from dpe_jobs.diagnosis.sample import QuestionSet, draw, even_sizes, sample_probe, survey, take
from dpe_jobs.diagnosis.trained import Trained, nothing
from dpe_jobs.runtime import BadData

sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 30), min_size=1, max_size=8)


def sampled(store: MemoryStore, probe: Probe, trained: Trained, folder: Path) -> QuestionSet:
    seen = survey(store, probe.uri, trained, categories=True)
    return sample_probe(store, probe, seen, seen.categories, 0, 3, 1, folder)


def probe(size: int, share: float = 0.0) -> Probe:
    return Probe(uri=worlds.PROBE_URI, sample_size=size, adaptive_share=share)


def ids(available: dict[str, int]) -> dict[str, list[str]]:
    return {c: [f"{c}-{i}" for i in range(n)] for c, n in available.items()}


@given(sizes, st.integers(1, 120))
def test_sample_sizes_are_even_within_what_there_is_and_sum_to_the_wanted_size(available, size):
    taken = even_sizes(available, size)
    assert sum(taken.values()) == min(size, sum(available.values()))
    assert all(0 <= taken[c] <= available[c] for c in available)
    # a category gets less than another by more than one only when it has no more
    most = max(taken.values())
    assert all(taken[c] >= most - 1 or taken[c] == available[c] for c in available)


@given(sizes, st.integers(1, 120), st.floats(0, 0.9), st.integers(0, 9))
def test_first_rows_and_adaptive_ones_make_the_sample_and_there_are_spare_rows_enough(available, size, share, number):
    drawn = draw(ids(available), probe(size, share), 3, number)
    assert len(drawn.ids) + drawn.adaptive == min(size, sum(available.values()))
    for category, count in available.items():
        rows = [*drawn.first[category], *drawn.spare[category]]
        assert len(set(rows)) == len(rows)
        assert len(drawn.spare[category]) == min(drawn.adaptive, count - len(drawn.first[category]))


@given(sizes, st.integers(1, 120), st.floats(0, 0.9), st.integers(0, 9))
def test_adaptive_sample_begins_as_the_even_one_does(available, size, share, number):
    even, open_ended = (draw(ids(available), probe(size, s), 3, number) for s in (0.0, share))
    for category in available:
        first = open_ended.first[category]
        assert even.first[category][: len(first)] == first


def test_sample_depends_on_seed_round_and_ids_and_not_on_the_order_of_rows():
    names = ids({"a": 20, "b": 20})
    shuffled = {c: random.Random(0).sample(rows, len(rows)) for c, rows in reversed(names.items())}
    drawn = {(s, r): draw(names, probe(12), s, r).ids for s in (1, 2) for r in (0, 1)}
    assert draw(shuffled, probe(12), 1, 0).ids == drawn[1, 0]
    assert len(set(drawn.values())) == 4


def test_rounds_see_other_rows_until_the_probe_is_used_up_and_then_the_first_again():
    names = ids({"a": 60, "b": 12, "c": 3})
    rounds = [draw(names, probe(15), 5, r).first for r in range(10)]
    seen = [set(r["a"]) for r in rounds]
    assert {len(s) for s in seen} == {6}
    assert len(set.union(*seen)) == 60, "ten rounds of six rows"
    assert set(draw(names, probe(15), 5, 10).first["a"]) == seen[0]
    assert [set(r["b"]) for r in rounds[:2]] == [set(r["b"]) for r in rounds[2:4]], "twelve rows are two rounds"
    assert all(set(r["c"]) == set(names["c"]) for r in rounds), "all of a small category in every round"


def test_rounds_draw_every_row_alike_often():
    counts = dict.fromkeys(ids({"a": 10})["a"], 0)
    for seed in range(2000):
        for name in draw(ids({"a": 10}), probe(3), seed, seed % 4).ids:
            counts[name] += 1
    assert all(abs(n - 600) < 90 for n in counts.values()), counts  # 4.4 standard deviations


def test_a_larger_sample_contains_the_smaller_one():
    names = ids({"a": 20, "b": 20})
    small, large = (set(draw(names, probe(size), 1, 0).ids) for size in (12, 24))
    assert small < large


def test_probe_sample_is_on_disk_with_all_categories(tmp_path):
    store = MemoryStore()
    worlds.fill(store)
    found = sampled(store, probe(7), nothing(), tmp_path)
    assert len(found.ids) == 7
    assert found.categories == tuple(sorted(worlds.CATEGORIES))
    assert found.source == store.input_ref(worlds.PROBE_URI)


def test_rows_that_vanished_from_a_set_are_refused(tmp_path):
    store = MemoryStore()
    worlds.fill(store)
    with pytest.raises(BadData, match="lacks 1 rows that were asked before, 'color-99'"):
        take(store, "test", worlds.TEST_URI, tmp_path, only={"color-1", "color-99"})
