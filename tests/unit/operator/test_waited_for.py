"""An iteration whose time to live is over stays for those that are to begin with its model."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.operator import given

from dpe_operator.gateway import Listed
from dpe_operator.loops import Loop
from dpe_operator.queueing import Queue
from dpe_operator.reconcile import YOUNG_S, Operator


class Served:
    """Iterations that the API server has, of which there may be no loop yet."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies, self.lists = bodies, 0

    async def iteration_pages(self, namespace: str) -> AsyncIterator[Listed]:
        self.lists += 1
        for body in self.bodies:
            yield Listed([body] if body["metadata"]["namespace"] == namespace else [], 1)


def successor(status: dict[str, Any], name: str = "second", of: str = given.ITERATION.name) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "lab", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"model": {"iterationRef": {"name": of}}}, "status": status}


def operator(*served: dict[str, Any], age_s: float = 2 * YOUNG_S, **successors: dict[str, Any]) -> Operator:
    """With a loop for each successor, which refers to the iteration and has this status."""
    facts = given.platform()
    it = Operator(Served(*served), None, facts, Queue(facts))  # type: ignore[arg-type]
    it.began -= age_s
    for name, status in successors.items():
        loop = Loop("lab", name, f"uid-{name}", refers_to=given.ITERATION.name, is_read=True)
        loop.memory.see_iteration(successor(status, name))
        it.loops["lab", name] = loop
    return it


def waits_for(it: Operator) -> bool:
    return asyncio.run(it.is_waited_for(given.ITERATION.namespace, given.ITERATION.name))


@pytest.mark.parametrize(
    ("status", "waits"),
    [
        ({}, True),
        ({"phase": "Pending", "queue": {"position": 3}}, True),
        ({"phase": "Suspended"}, True),
        ({"phase": "Diagnosing", "resolved": {"round": 1}}, False),
        ({"phase": "Failed"}, False),
    ],
)
def test_only_one_that_has_not_started_waits(status: dict[str, Any], waits: bool) -> None:
    assert waits_for(operator(second=status)) is waits
    assert waits_for(operator(successor(status), age_s=0)) is waits


def test_one_of_several_is_enough_and_nobody_waits_for_another_or_in_another_namespace() -> None:
    it = operator(second={"phase": "Succeeded", "resolved": {"round": 1}}, third={"phase": "Pending"})
    assert waits_for(it)
    it.loops["lab", "third"].refers_to = "shapes-0"
    assert not waits_for(it)
    it.loops["lab", "third"].refers_to = given.ITERATION.name
    it.loops["lab", "third"].namespace = "other"
    assert not waits_for(it)


def test_an_operator_that_has_just_started_asks_who_waits_and_does_not_trust_what_it_has_seen_so_far() -> None:
    assert waits_for(operator(successor({}), age_s=YOUNG_S / 2))
    assert not waits_for(operator(successor({}), age_s=2 * YOUNG_S)), "by then each has a loop"
    assert not waits_for(operator(successor({}, of="shapes-0"), age_s=0))


def test_one_that_nobody_has_looked_at_yet_may_wait() -> None:
    it = operator()
    it.loops["lab", "new"] = Loop("lab", "new", "uid-new")
    assert waits_for(it)
    it.loops["lab", "new"].is_read = True
    assert not waits_for(it)


def test_one_that_is_known_to_be_gone_waits_for_nothing() -> None:
    it = operator()
    it.loops["lab", "new"] = Loop("lab", "new", "uid-new", is_gone=True)
    assert not waits_for(it)


def test_what_waits_for_its_own_is_not_waited_for_by_others() -> None:
    """A run goes with all its rounds."""
    it = operator(second={})
    first, names = given.ITERATION.name, (given.ITERATION.name, "second")
    assert asyncio.run(it.is_waited_for("lab", first))
    assert not asyncio.run(it.is_waited_for("lab", *names))
    young = operator(successor({}), age_s=0)
    assert asyncio.run(young.is_waited_for("lab", first))
    assert not asyncio.run(young.is_waited_for("lab", *names))
    assert not asyncio.run(young.is_waited_for("lab")), "a run that has begun nothing"


async def test_all_whose_time_is_over_when_an_operator_starts_share_a_list() -> None:
    it = operator(successor({}), age_s=0)
    found = await asyncio.gather(
        *(it.is_waited_for("lab", f"i{n}") for n in range(50)), it.is_waited_for("lab", "shapes-1")
    )
    assert found == [*[False] * 50, True]
    assert it.gateway.lists == 1  # type: ignore[attr-defined]
