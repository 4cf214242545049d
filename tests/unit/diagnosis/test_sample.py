import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore

from dpe_jobs.diagnosis.sample import even_sizes, sample_probe, stratify, take
from dpe_jobs.runtime import BadData

sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 30), min_size=1, max_size=8)


@given(sizes, st.integers(1, 120))
def test_sample_sizes_are_even_within_what_there_is_and_sum_to_the_wanted_size(available, size):
    taken = even_sizes(available, size)
    assert sum(taken.values()) == min(size, sum(available.values()))
    assert all(0 <= taken[c] <= available[c] for c in available)
    # a category gets less than another by more than one only when it has no more
    most = max(taken.values())
    assert all(taken[c] >= most - 1 or taken[c] == available[c] for c in available)


def test_sample_depends_on_seed_and_ids_and_not_on_the_order_of_rows():
    rows = worlds.questions(20)
    shuffled = random.Random(0).sample(rows, len(rows))
    assert stratify(rows, 12, 1) == stratify(shuffled, 12, 1)
    assert stratify(rows, 12, 1) != stratify(rows, 12, 2)


def test_a_larger_sample_contains_the_smaller_one():
    rows = worlds.questions(20)
    small, large = ({q.id for q in stratify(rows, size, 1)[0]} for size in (12, 24))
    assert small < large


def test_probe_sample_is_on_disk_with_all_categories(tmp_path):
    store = MemoryStore()
    worlds.fill(store)
    found = sample_probe(store, worlds.PROBE_URI, 7, 0, 3, tmp_path)
    assert len(found.ids) == 7
    assert found.categories == tuple(sorted(worlds.CATEGORIES))
    assert found.source == store.input_ref(worlds.PROBE_URI)


def test_rows_that_vanished_from_a_set_are_refused(tmp_path):
    store = MemoryStore()
    worlds.fill(store)
    with pytest.raises(BadData, match="lacks 1 rows that the diagnosis asked, 'color-99'"):
        take(store, "test", worlds.TEST_URI, tmp_path, only={"color-1", "color-99"})
