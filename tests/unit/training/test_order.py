from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dpe_jobs.training.order import WINDOW, prompt_order


@given(samples=st.integers(1, 50), prompts=st.integers(1, 300), seed=st.integers(0, 2**31 - 1))
def test_every_sample_is_asked_as_often_as_any_other_give_or_take_one(samples: int, prompts: int, seed: int) -> None:
    asked = Counter(prompt_order([samples], prompts, seed))
    assert sum(asked.values()) == prompts
    counts = [asked[i] for i in range(samples)]
    assert max(counts) - min(counts) <= 1


@given(samples=st.integers(1, 50), seed=st.integers(0, 2**31 - 1))
def test_a_longer_run_begins_like_a_shorter_one(samples: int, seed: int) -> None:
    assert prompt_order([samples], 200, seed)[:75] == prompt_order([samples], 75, seed)


def test_epochs_and_seeds_differ() -> None:
    order = prompt_order([40], 80, 0)
    assert order[:40] != order[40:]
    assert order[:40] != prompt_order([40], 40, 1)


@given(groups=st.lists(st.integers(1, 9), min_size=1, max_size=60), seed=st.integers(0, 2**31 - 1))
def test_however_samples_are_grouped_every_epoch_asks_each_once(groups: list[int], seed: int) -> None:
    total = sum(groups)
    order = prompt_order(groups, 2 * total, seed)
    assert sorted(order[:total]) == sorted(order[total:]) == list(range(total))


def test_of_many_groups_only_a_few_are_needed_at_once() -> None:
    order = prompt_order([100] * 80, 8000, 0)
    for start in range(0, 8000, 100 * WINDOW):
        assert len({number // 100 for number in order[start : start + 100 * WINDOW]}) == WINDOW
    assert len({number // 100 for number in prompt_order([100] * WINDOW, 100, 0)}) == WINDOW, "few are shuffled whole"
