"""GPU time of the attempt that runs: it is shown, and a deletion does not lose it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from kopf._cogs.aiokits.aioenums import FlagSetter
from kubernetes.client.exceptions import ApiException
from tests.unit.operator import given
from tests.unit.operator.sim import World
from typing_extensions import override

from dpe_api.names import Stage
from dpe_api.status import Phase, StageState, Status
from dpe_operator import main, metrics, reconcile, tracing
from dpe_operator.holding import FINALIZER
from dpe_operator.loops import Loop
from dpe_operator.plan import Charge
from dpe_operator.queueing import Queue
from dpe_operator.reconcile import Operator
from dpe_operator.world import Observed

GPUS, TRAINED_S = 2 * 4, 600.0
POOL = "training"


def training() -> World:
    """An iteration that has trained for ten minutes on two nodes."""
    it = World(given.spec(training={"nodes": 2, "gpusPerNode": 4, "promptsPerStep": 4}), given.platform())
    while it.status.stage_status(Stage.TRAINING).state is not StageState.RUNNING:
        it.turn()
        it.control()
        it.run_pods()
        if it.status.stage_status(Stage.TRAINING).state is not StageState.RUNNING:
            it.finish_work()
        it.pass_time(3)
    while not any(pod.stage is Stage.TRAINING and pod.scheduled_at for pod in it.pods.values()):
        it.control()
        it.run_pods()
    it.now = max(pod.scheduled_at for pod in it.pods.values() if pod.scheduled_at)
    it.pass_time(TRAINED_S)
    return it


def body(it: World) -> dict[str, Any]:
    """The iteration as the API server has it."""
    metadata: dict[str, Any] = {
        "namespace": it.iteration.namespace,
        "name": it.iteration.name,
        "uid": it.iteration.uid,
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "finalizers": [FINALIZER],
    }
    if it.iteration.deleting:
        metadata["deletionTimestamp"] = "2026-01-01T12:30:00Z"
    return {"metadata": metadata, "spec": it.spec.wire(), "status": it.status.wire()}


def of_training() -> float:
    return metrics.REGISTRY.get_sample_value("dpe_gpu_seconds_total", {"stage": "training", "pool": POOL}) or 0


def test_an_iteration_shows_the_gpu_time_of_the_attempt_that_runs_and_once_only_when_it_has_ended() -> None:
    it = training()
    plan = it.turn()
    assert plan.running == (Charge(Stage.TRAINING, POOL, GPUS * TRAINED_S),)
    before = it.status.cost.gpu_seconds
    metrics.show(it.iteration, it.status, plan.running)
    own = {"namespace": it.iteration.namespace, "iteration": it.iteration.name}
    shown = metrics.REGISTRY.get_sample_value("dpe_iteration_gpu_seconds", own)
    assert shown == before + GPUS * TRAINED_S
    it.publish(Stage.TRAINING)
    plan = it.turn()
    assert Stage.TRAINING not in {charge.stage for charge in plan.running}
    assert it.status.cost.gpu_seconds == before + GPUS * TRAINED_S
    metrics.forget(*own.values())


@pytest.fixture
def operator_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], Operator]:
    """An operator that sees a world and lives at its time."""

    def make(it: World) -> Operator:
        async def read(loop: Loop, _trusted_s: float) -> None:
            loop.memory.see_iteration(body(it))

        async def observe(*_: object) -> Observed:
            return it.look(it.status)

        monkeypatch.setattr(reconcile, "observe", observe)
        monkeypatch.setattr(reconcile, "datetime", SimpleNamespace(now=lambda _zone: it.now))
        operator = Operator(cast("Any", None), cast("Any", None), it.platform, Queue(it.platform))
        monkeypatch.setattr(operator.census, "refresh", read)
        return operator

    return make


class Failing:
    """An API server that takes all but deletions."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    async def note(self, *_: object) -> None:
        """Take it."""

    async def write_status(self, _iteration: object, _version: str, _old: object, new: dict[str, Any]) -> Any:
        self.written.append(new)
        return {"metadata": {"resourceVersion": "2"}, "status": new}

    async def delete(self, *_: object) -> None:
        raise ApiException(status=500, reason="timeout")


class Told(tracing.Off):
    """A tracer that counts."""

    def __init__(self) -> None:
        self.ends: list[Phase] = []
        self.deleted: list[tracing.Untold] = []
        self.looked = asyncio.Event()

    @override
    def tell(self, before: Status, after: Status, *_: Any) -> None:
        self.looked.set()
        if after.phase is not before.phase:
            self.ends.append(after.phase)

    @override
    def tell_deleted(self, left: tracing.Untold, now: datetime) -> None:
        self.deleted.append(left)


async def test_an_attempt_that_has_ended_is_counted_also_when_what_is_left_of_it_cannot_be_deleted(
    operator_of: Callable[[World], Operator],
) -> None:
    it = training()
    it.turn()
    it.spec = it.spec.model_copy(update={"suspend": True})
    operator = operator_of(it)
    server = operator.gateway = cast("Any", Failing())
    told = operator.tracer = Told()
    before = of_training()
    with pytest.raises(ApiException):
        await reconcile.reconcile(operator, Loop("lab", "shapes-1", "u"))
    assert [status["phase"] for status in server.written] == ["Suspended"]
    assert of_training() == before + GPUS * TRAINED_S
    assert told.ends == [Phase.SUSPENDED]
    metrics.forget("lab", "shapes-1")


def handlers(operator: Operator) -> tuple[Any, Any]:
    """The daemon of iterations, and what their events are told to."""
    registry = kopf.OperatorRegistry()
    main.register(registry, operator)
    daemons, events = registry._spawning.get_all_handlers(), registry._watching.get_all_handlers()
    return (
        next(h.fn for h in daemons if h.fn.__name__ == "look_after"),
        next(h.fn for h in events if h.fn.__name__ == "iteration_changed"),
    )


@pytest.mark.parametrize(
    ("reason", "charged"),
    [
        (kopf.DaemonStoppingReason.RESOURCE_DELETED, GPUS * TRAINED_S),
        (kopf.DaemonStoppingReason.OPERATOR_EXITING, 0),
    ],
)
async def test_a_deletion_during_the_training_charges_what_it_has_cost_and_a_restart_leaves_it_to_the_next_operator(
    operator_of: Callable[[World], Operator], reason: kopf.DaemonStoppingReason, charged: float
) -> None:
    it = training()
    it.turn()
    it.iteration = replace(it.iteration, deleting=reason is kopf.DaemonStoppingReason.RESOURCE_DELETED)
    operator = operator_of(it)
    told = operator.tracer = Told()
    look_after, _ = handlers(operator)
    stopped: FlagSetter[kopf.DaemonStoppingReason] = FlagSetter()
    stopped.set(reason)
    before = of_training()
    await look_after(namespace="lab", name="shapes-1", uid="u", stopped=stopped.async_waiter)
    assert of_training() == before + charged
    assert [left.iteration.name for left in told.deleted] == (["shapes-1"] if charged else [])
    assert not operator.loops


async def test_an_iteration_that_vanishes_while_it_has_no_finalizer_is_charged_like_any_that_is_deleted(
    operator_of: Callable[[World], Operator],
) -> None:
    it = training()
    it.turn()
    operator = operator_of(it)
    told = operator.tracer = Told()
    look_after, iteration_changed = handlers(operator)
    stopped: FlagSetter[kopf.DaemonStoppingReason] = FlagSetter()
    before, gone = of_training(), body(it)
    looking = asyncio.create_task(
        look_after(namespace="lab", name="shapes-1", uid=it.iteration.uid, stopped=stopped.async_waiter)
    )
    async with asyncio.timeout(5):
        await told.looked.wait()
        event = {"type": "DELETED", "object": gone}
        await iteration_changed(namespace="lab", name="shapes-1", labels={}, body=kopf.Body(gone), event=event)  # type: ignore[arg-type]
        await looking
    assert of_training() == before + GPUS * TRAINED_S
    (left,) = told.deleted
    assert (Stage.TRAINING, 1) in [attempt[:2] for attempt in left.attempts]
    assert not operator.loops
