"""An iteration whose time to live is over stays for those that are to begin with its model."""

from typing import Any

import pytest
from tests.unit.operator import given

from dpe_operator.loops import Loop
from dpe_operator.queueing import Queue
from dpe_operator.reconcile import Operator


def operator(**successors: dict[str, Any]) -> Operator:
    """With a loop for each successor, which refers to the iteration and has this status."""
    facts = given.platform()
    it = Operator(None, None, facts, Queue(facts))  # type: ignore[arg-type]
    for name, status in successors.items():
        loop = Loop("lab", name, f"uid-{name}", refers_to=given.ITERATION.name)
        loop.memory.see_iteration({"metadata": {"name": name, "resourceVersion": "1"}, "status": status})
        it.loops["lab", name] = loop
    return it


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
    assert operator(second=status).is_waited_for(given.ITERATION) is waits


def test_one_of_several_is_enough_and_nobody_waits_for_another_or_in_another_namespace() -> None:
    it = operator(second={"phase": "Succeeded", "resolved": {"round": 1}}, third={"phase": "Pending"})
    assert it.is_waited_for(given.ITERATION)
    it.loops["lab", "third"].refers_to = "shapes-0"
    assert not it.is_waited_for(given.ITERATION)
    it.loops["lab", "third"].refers_to = given.ITERATION.name
    it.loops["lab", "third"].namespace = "other"
    assert not it.is_waited_for(given.ITERATION)
