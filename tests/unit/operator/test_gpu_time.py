"""GPU time of the attempt that runs: it is shown, and a deletion does not lose it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from kopf._cogs.aiokits.aioenums import FlagSetter
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import Stage
from dpe_api.status import StageState
from dpe_operator import main, metrics, reconcile
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
        "finalizers": [reconcile.FINALIZER],
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


@pytest.mark.parametrize(
    ("reason", "charged"),
    [
        (kopf.DaemonStoppingReason.RESOURCE_DELETED, GPUS * TRAINED_S),
        (kopf.DaemonStoppingReason.OPERATOR_EXITING, 0),
    ],
)
async def test_a_deletion_during_the_training_charges_what_it_has_cost_and_a_restart_leaves_it_to_the_next_operator(
    monkeypatch: pytest.MonkeyPatch, reason: kopf.DaemonStoppingReason, charged: float
) -> None:
    it = training()
    it.turn()
    it.iteration = replace(it.iteration, deleting=reason is kopf.DaemonStoppingReason.RESOURCE_DELETED)

    async def read(loop: Loop, _trusted_s: float) -> None:
        loop.memory.see_iteration(body(it))

    async def observe(*_: object) -> Observed:
        return it.look(it.status)

    monkeypatch.setattr(reconcile, "observe", observe)
    monkeypatch.setattr(reconcile, "datetime", SimpleNamespace(now=lambda _zone: it.now))
    operator = Operator(cast("Any", None), cast("Any", None), it.platform, Queue(it.platform))
    monkeypatch.setattr(operator.census, "refresh", read)
    registry = kopf.OperatorRegistry()
    main.register(registry, operator)
    look_after: Any = next(h.fn for h in registry._spawning.get_all_handlers() if h.fn.__name__ == "look_after")
    stopped: FlagSetter[kopf.DaemonStoppingReason] = FlagSetter()
    stopped.set(reason)
    before = of_training()
    await look_after(namespace="lab", name="shapes-1", uid="u", stopped=stopped.async_waiter)
    assert of_training() == before + charged
    assert not operator.loops
