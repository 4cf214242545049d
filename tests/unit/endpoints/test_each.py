import asyncio

import pytest

from dpe_jobs.client import EndpointDown, RequestFailed
from dpe_jobs.endpoints.each import Failures, each
from dpe_jobs.runtime import BadConfig, Transient


async def test_items_are_taken_only_as_workers_get_free():
    taken, running, most = 0, 0, 0

    def items():
        nonlocal taken
        for number in range(30):
            taken += 1
            yield number

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, taken - number)
        await asyncio.sleep(0.001)
        running -= 1

    await each(items(), work, 4)
    assert (taken, running) == (30, 0)
    assert most <= 2 * 4


async def test_the_first_trouble_ends_the_others_and_is_raised_as_it_is():
    ended = []

    async def work(number: int) -> None:
        if number == 3:
            raise BadConfig("Why", "because")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    with pytest.raises(BadConfig, match="because"):
        await each(range(10), work, 4)
    assert sorted(ended) == [0, 1, 2]


def test_failures_end_the_stage_above_the_limit_with_the_last_message():
    failures = Failures("rows were not judged", 10, 1)
    failures.add("a", RequestFailed("one"))
    failures.add("a", RequestFailed("one again"))
    with pytest.raises(Transient, match=r"2 of 10 rows were not judged.*\(1\); the last one: two") as caught:
        failures.add("b", RequestFailed("two"))
    assert caught.value.reason == "ErrorRate"
    assert failures.messages["a"] == "one"


def test_a_dead_endpoint_ends_the_stage_whatever_the_limit():
    with pytest.raises(Transient) as caught:
        Failures("rows", 10, 10).add("a", EndpointDown("endpoint teacher is silent"))
    assert caught.value.reason == "EndpointDown"
