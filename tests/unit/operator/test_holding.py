"""What is written at once, and what may wait a moment for company."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dpe_api.names import Stage
from dpe_api.status import Phase, StageProgress, StageState, StageStatus, Status
from dpe_operator import holding
from dpe_operator.loops import Loop
from dpe_operator.plan import Child, Note, Plan


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(holding.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def loop() -> Loop:
    return Loop("lab", "shapes-1", "u", due=0.0)


def status(**stage: Any) -> Status:
    own = StageStatus(name=Stage.DIAGNOSIS, state=StageState.RUNNING, attempt=1)
    return Status(phase=Phase.DIAGNOSING, stages=[own.model_copy(update=stage)])


WAITS = Plan(status=status(message="Unschedulable: pod p waits for a node"))


def held_s(loop: Loop, plan: Plan) -> float:
    return holding.held_s(loop, status(), plan)


def test_a_new_message_of_a_stage_alone_waits_a_little_and_is_written_then(loop: Loop, clock: Clock) -> None:
    whole = holding.HOLD_S
    assert held_s(loop, WAITS) == whole
    clock.now += 0.4 * whole
    assert held_s(loop, WAITS) == pytest.approx(0.6 * whole)
    clock.now += 0.3 * whole
    other = Plan(status=status(message="Unschedulable: pod q waits for a node"))
    assert held_s(loop, other) == pytest.approx(0.3 * whole), "another message does not begin the wait anew"
    clock.now += 0.31 * whole
    assert held_s(loop, WAITS) == 0
    assert held_s(loop, WAITS) == whole, "the next one waits as long"


def test_a_message_that_is_outdated_before_that_is_never_written(loop: Loop, clock: Clock) -> None:
    assert held_s(loop, WAITS) > 0
    clock.now += 0.4
    assert held_s(loop, Plan()) == 0
    clock.now += 0.9
    assert held_s(loop, WAITS) == holding.HOLD_S


@pytest.mark.parametrize(
    "change",
    [
        {"state": StageState.DONE},
        {"attempt": 2},
        {"progress": StageProgress(done=1, total=2, unit="items", rate=1.0)},
    ],
)
def test_what_is_more_than_a_message_is_written_at_once(loop: Loop, clock: Clock, change: dict[str, Any]) -> None:
    assert held_s(loop, Plan(status=status(message="x", **change))) == 0
    assert held_s(loop, Plan(status=status(message="x").model_copy(update={"phase": Phase.TRAINING}))) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"create": (Child("ConfigMap", "c", {}),)},
        {"notes": (Note("Retry", "m", "k"),)},
        {"remove_iteration": True},
        {"look_again_in": timedelta(0)},
    ],
)
def test_a_plan_that_does_something_is_carried_out_at_once(loop: Loop, clock: Clock, more: dict[str, Any]) -> None:
    assert held_s(loop, replace(WAITS, **more)) == 0


def body(*finalizers: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "shapes-1", "finalizers": list(finalizers), **metadata}}


def test_an_iteration_is_left_alone_until_it_has_the_finalizer_but_not_for_ever(loop: Loop, clock: Clock) -> None:
    """A first look that is faster than kopf meets a conflict. Kopf in trouble tries again at the next event, which is
    none when nobody writes.
    """
    assert holding.awaits_claim(loop, body())
    clock.now += 0.9 * holding.CLAIM_S
    assert holding.awaits_claim(loop, body("somebody/else"))
    clock.now += 0.2 * holding.CLAIM_S
    assert not holding.awaits_claim(loop, body())
    assert not holding.awaits_claim(loop, body(holding.FINALIZER))
    assert holding.awaits_claim(loop, body()), "taken away: waited for anew"
    assert not holding.awaits_claim(loop, body(deletionTimestamp="2026-01-01T12:00:00Z"))
