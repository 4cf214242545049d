"""Lists of the API server: one for each iteration that asks alone, one for all where many do."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dpe_api.names import LABEL_ATTEMPT, LABEL_ITERATION, LABEL_STAGE
from dpe_operator.census import CROWD, Census
from dpe_operator.gateway import Listed
from dpe_operator.loops import Loop
from dpe_operator.manifests.common import ANNOTATION_UID


def thing(kind: str, iteration: str, version: int = 5) -> dict[str, Any]:
    uid = f"uid-of-{iteration}"
    metadata = {
        "namespace": "lab",
        "name": iteration if kind == "iteration" else f"{iteration}-{kind}",
        "uid": uid if kind == "iteration" else f"{kind}-of-{iteration}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "labels": {LABEL_ITERATION: iteration, LABEL_STAGE: "diagnosis", LABEL_ATTEMPT: "1"},
        "annotations": {ANNOTATION_UID: uid},
        "ownerReferences": [{"uid": uid}],
    }
    return {"metadata": metadata, "status": {"phase": "Running"} if kind == "pod" else {}}


class Gateway:
    """An API server with one Job and one pod for each iteration. It counts requests."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.requests = names, 0
        self.without_pods: set[str] = set()
        self.version = 10
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    async def _answer(self) -> None:
        self.requests += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error

    async def iteration(self, namespace: str, name: str) -> dict[str, Any] | None:
        await self._answer()
        return thing("iteration", name) if name in self.names else None

    async def _pages(self, kind: str, names: list[str]) -> AsyncIterator[Listed]:
        for first in range(0, max(1, len(names)), 7):
            await self._answer()
            yield Listed([thing(kind, name) for name in names[first : first + 7]], self.version)

    def iteration_pages(self, namespace: str) -> AsyncIterator[Listed]:
        return self._pages("iteration", self.names)

    def jobs(self, namespace: str, iteration: str | None = None) -> AsyncIterator[Listed]:
        return self._pages("job", [n for n in self.names if iteration in (None, n)])

    def pods(self, namespace: str, iteration: str | None = None) -> AsyncIterator[Listed]:
        return self._pages("pod", [n for n in self.names if iteration in (None, n) and n not in self.without_pods])


class Lab:
    """Loops of one namespace, and the lists that they ask for."""

    def __init__(self, count: int) -> None:
        names = [f"i{n}" for n in range(count)]
        self.loops = {("lab", name): Loop("lab", name, f"uid-of-{name}") for name in names}
        self.gateway = Gateway(names)
        self.census = Census(self.gateway, self.loops)  # type: ignore[arg-type]
        self.all = list(self.loops.values())

    async def ask(self, *loops: Loop) -> None:
        await asyncio.gather(*(self.census.refresh(loop, 10) for loop in loops))

    def complete(self) -> list[Loop]:
        """Loops that know all there is of theirs, and since when."""
        return [
            loop
            for loop in self.all
            if loop.memory.is_recent(10)
            and loop.memory.iteration() is not None
            and (list(loop.memory.jobs), list(loop.memory.pods)) == ([f"job-of-{loop.name}"], [f"pod-of-{loop.name}"])
        ]


async def test_one_of_few_asks_for_its_own():
    lab = Lab(CROWD - 1)
    await lab.ask(lab.all[3])
    assert lab.complete() == [lab.all[3]]
    assert lab.gateway.requests == 3


async def test_one_alone_asks_for_its_own_however_many_others_know_theirs_or_wait_for_events():
    lab = Lab(10 * CROWD)
    await lab.ask(*lab.all)
    lab.all[3].memory.doubt()
    before = lab.gateway.requests
    await lab.ask(lab.all[3])
    for loop in lab.all:
        loop.memory.doubt()
        loop.due = float("inf")
    await lab.ask(lab.all[3])
    assert lab.gateway.requests - before == 6


async def test_a_crowd_shares_one_list_page_by_page():
    lab = Lab(10 * CROWD)
    await lab.ask(*lab.all)
    assert lab.complete() == lab.all
    pages = -(-10 * CROWD // 7)
    assert lab.gateway.requests == 3 * pages, "one list of each kind"


async def test_who_asks_while_a_list_is_read_gets_the_next_one():
    lab = Lab(2 * CROWD)
    late = Loop("lab", "late", "uid-of-late")
    lab.gateway.may_answer.clear()
    first = asyncio.create_task(lab.ask(*lab.all))
    await asyncio.sleep(0.01)
    lab.loops["lab", "late"] = late
    lab.gateway.names.append("late")
    second = asyncio.create_task(lab.ask(late))
    await asyncio.sleep(0.01)
    lab.gateway.may_answer.set()
    await asyncio.gather(first, second)
    pages = -(-len(lab.loops) // 7)
    assert lab.gateway.requests == 2 * 3 * pages, "what it missed before the first list began is not in that"
    assert late.memory.is_recent(10)
    assert list(late.memory.pods) == ["pod-of-late"]


async def test_one_that_is_not_in_doubt_does_not_wait_for_a_list_of_all_which_comes_all_the_same():
    lab = Lab(2 * CROWD)
    await lab.ask(*lab.all)
    long_ago = time.monotonic() - 20
    for loop in lab.all:
        loop.memory.listed_at = long_ago
    lab.all[0].memory.doubt()
    lab.gateway.may_answer.clear()
    before = lab.gateway.requests
    await asyncio.wait_for(lab.ask(*lab.all[1:]), 5)
    assert lab.gateway.requests == before + 1, "it has begun, and once"
    waits = asyncio.create_task(lab.ask(lab.all[0]))
    lab.gateway.may_answer.set()
    await asyncio.wait_for(waits, 5)
    await asyncio.sleep(0.05)
    assert lab.complete() == lab.all


async def test_a_list_that_nobody_waits_for_may_fail(caplog: pytest.LogCaptureFixture):
    lab = Lab(2 * CROWD)
    await lab.ask(*lab.all)
    for loop in lab.all:
        loop.memory.listed_at = time.monotonic() - 20
    lab.gateway.error = OSError("away")
    await lab.ask(*lab.all)
    await asyncio.sleep(0.05)
    assert "away" in caplog.text
    lab.gateway.error = None
    await lab.ask(lab.all[0])
    await asyncio.sleep(0.05)
    assert lab.complete() == lab.all


async def test_a_doubt_that_comes_while_a_list_is_read_is_not_settled_by_it():
    lab = Lab(2 * CROWD)
    lab.gateway.may_answer.clear()
    asking = asyncio.create_task(lab.ask(*lab.all[1:]))
    await asyncio.sleep(0.01)
    lab.all[0].memory.doubt()
    lab.gateway.may_answer.set()
    await asking
    assert lab.all[1].memory.is_recent(10)
    assert not lab.all[0].memory.is_recent(10)


async def test_what_a_shared_list_shows_wakes_those_that_did_not_ask():
    lab = Lab(2 * CROWD)
    await lab.ask(*lab.all)
    assert not any(loop.wake.is_set() for loop in lab.all), "who asks looks anyway"
    lost, kept = lab.all[0], lab.all[1]
    for loop in lab.all[2:]:
        loop.memory.doubt()
    lab.gateway.without_pods = {lost.name}
    await lab.ask(*lab.all[2:])
    assert lost.memory.pods[f"pod-of-{lost.name}"].gone
    assert [loop.name for loop in lab.all if loop.wake.is_set()] == [lost.name]
    assert not kept.memory.pods[f"pod-of-{kept.name}"].gone


async def test_a_namesake_made_anew_is_not_taken_for_the_one_that_was_there():
    lab = Lab(2 * CROWD)
    lab.all[0].uid = "of an earlier one"
    await lab.ask(*lab.all)
    memory = lab.all[0].memory
    assert (memory.iteration(), memory.jobs, memory.pods) == (None, {}, {})


async def test_an_error_reaches_all_that_wait_and_the_next_list_is_another_try():
    lab = Lab(2 * CROWD)
    lab.gateway.error = OSError("away")
    told = await asyncio.gather(*(lab.census.refresh(loop, 10) for loop in lab.all), return_exceptions=True)
    assert [str(error) for error in told] == ["away"] * len(lab.all)
    assert lab.complete() == []
    lab.gateway.error = None
    await lab.ask(*lab.all)
    assert lab.complete() == lab.all


async def test_one_that_stops_waiting_does_not_stop_the_others():
    lab = Lab(2 * CROWD)
    lab.gateway.may_answer.clear()
    tasks = [asyncio.create_task(lab.census.refresh(loop, 10)) for loop in lab.all]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    lab.gateway.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await asyncio.gather(*tasks[1:])
    assert len(lab.complete()) == len(lab.all)


async def test_one_that_is_gone_is_known_to_be():
    lab = Lab(1)
    (loop,) = lab.all
    loop.memory.see_iteration(thing("iteration", loop.name))
    lab.gateway.names.clear()
    began = time.monotonic()
    await lab.ask(loop)
    assert loop.memory.iteration() is None
    assert loop.memory.doubted_at < began
