"""The metrics that the design names, with label sets that stay small however long the operator lives."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import prometheus_client
import pytest
from minio.credentials.providers import StaticProvider
from tests.unit.operator import given

from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import MAX_CATEGORIES_IN_STATUS, Phase, Resolved, StageProgress, StageState, StageStatus, Status
from dpe_jobs import client, runtime
from dpe_jobs.training import metrics as training
from dpe_operator import metrics
from dpe_operator.plan import Charge
from dpe_operator.storage import Storage, StoreUnavailable
from dpe_operator.summaries import absorb
from dpe_operator.world import Observed

DESIGN = {
    "dpe_iterations": {"phase"},
    "dpe_stage_duration_seconds": {"stage"},
    "dpe_stage_attempts": {"stage", "outcome"},
    "dpe_iteration_accuracy": {"namespace", "iteration", "category", "model"},
    "dpe_samples": {"outcome"},
    "dpe_gpu_seconds": {"stage", "pool"},
    "dpe_tokens": {"endpoint", "direction"},
    "dpe_reconcile_duration_seconds": set(),
    "dpe_reconcile_errors": set(),
    "dpe_stage_progress_ratio": {"namespace", "iteration", "stage"},
}
BOUNDED = {
    "phase": len(Phase),
    "stage": len(Stage),
    "outcome": 32,  # reasons of rejections are words of the programs
    "model": 2,
    "kind": 8,
    "method": 5,  # of HTTP
    "direction": 2,
    "category": MAX_CATEGORIES_IN_STATUS,
    "pool": 8,  # of the chart's values
    "endpoint": 8 + 3,  # of one spec, and the served models
}
PER_ITERATION = {"namespace", "iteration"}


def ours(module: object) -> dict[str, tuple[str, ...]]:
    """Label names of a module's metrics by name."""
    kinds = prometheus_client.Gauge | prometheus_client.Counter | prometheus_client.Histogram
    return {m._name: m._labelnames for m in vars(module).values() if isinstance(m, kinds)}


def finished(status: Status) -> Status:
    """The status of an iteration in which every stage has published what the tests' stages publish."""
    spec = given.spec().resolve()
    many = tuple(f"category-{n}" for n in range(200))
    status = status.model_copy(update={"resolved": Resolved(round=0, model_uri="s3://dpe/models/base", spec=spec)})
    for stage in BATCH_STAGES:
        status, _ = absorb(status, stage, given.manifest(stage, categories=many))
    entries = [
        StageStatus(name=s, state=StageState.DONE, start_time=given.T0, completion_time=given.at(60)) for s in Stage
    ]
    return status.model_copy(update={"phase": Phase.SUCCEEDED, "stages": entries})


def series(names: Iterable[str]) -> int:
    """How many time series these metrics have now."""
    return sum(len(family.samples) for family in metrics.REGISTRY.collect() if family.name in set(names))


def test_every_metric_of_the_design_exists_with_its_labels() -> None:
    found = {name: set(labels) for name, labels in ours(metrics).items()}
    assert {name: found.get(name) for name in DESIGN} == DESIGN


@pytest.mark.parametrize("module", [metrics, client, runtime], ids=lambda m: m.__name__)
def test_every_label_has_a_bounded_set_of_values_or_goes_with_its_iteration(module: object) -> None:
    for name, labels in ours(module).items():
        assert set(labels) <= set(BOUNDED) | PER_ITERATION, name
        assert name.startswith("dpe_")


def test_a_thousand_iterations_that_are_gone_leave_no_series_behind() -> None:
    seen = Observed(given.ITERATION, manifests={s: given.manifest(s) for s in BATCH_STAGES})
    status = finished(Status())
    charges = (Charge(Stage.TRAINING, "training", 60.0),)
    sizes = []
    for number in range(1000):
        iteration = replace(given.ITERATION, name=f"it-{number}")
        for phase in (Phase.DIAGNOSING, Phase.SUCCEEDED):
            metrics.show(iteration, status.model_copy(update={"phase": phase}))
        metrics.count(Status(), status, seen, charges)
        if number == 0:
            assert series(["dpe_iteration_accuracy"]) <= 2 * MAX_CATEGORIES_IN_STATUS
        metrics.forget(iteration.namespace, iteration.name)
        if number in (0, 999):
            sizes.append(series(ours(metrics)))
    assert sizes[0] == sizes[1]


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def test_accuracy_of_the_probe_is_not_averaged_with_that_of_a_benchmark_of_other_categories() -> None:
    """An alert told of a regression where the model had become better."""
    own = {"namespace": "lab", "iteration": "shapes-1"}
    status = finished(Status())
    assert status.diagnosis is not None
    of_probe = [c.model_copy(update={"name": f"probe_{c.name}"}) for c in status.diagnosis.categories]
    diagnosed = status.model_copy(
        update={"diagnosis": status.diagnosis.model_copy(update={"categories": of_probe}), "evaluation": []}
    )
    metrics.show(given.ITERATION, diagnosed)
    assert value("dpe_iteration_accuracy", **own, category="probe_category-0", model="before") is not None
    metrics.show(given.ITERATION, diagnosed.model_copy(update={"evaluation": status.evaluation}))
    assert value("dpe_iteration_accuracy", **own, category="probe_category-0", model="before") is None
    assert value("dpe_iteration_accuracy", **own, category="category-0", model="before") is not None
    metrics.forget("lab", "shapes-1")


def test_accuracies_before_and_after_are_of_the_same_categories_also_when_the_status_was_cut() -> None:
    own = {"namespace": "lab", "iteration": "shapes-1"}
    status = finished(Status())
    metrics.show(given.ITERATION, status.model_copy(update={"evaluation": []}))
    few = [e.model_copy(update={"categories": e.categories[:2]}) for e in status.evaluation]
    assert status.diagnosis is not None
    cut = status.diagnosis.model_copy(update={"categories": status.diagnosis.categories[:2]})
    metrics.show(given.ITERATION, status.model_copy(update={"evaluation": few, "diagnosis": cut}))
    for model in ("before", "after"):
        assert value("dpe_iteration_accuracy", **own, category="category-1", model=model) is not None
        assert value("dpe_iteration_accuracy", **own, category="category-2", model=model) is None
    metrics.forget("lab", "shapes-1")


def test_an_iterations_phase_samples_and_cost_are_gauges_of_its_own() -> None:
    own = {"namespace": "lab", "iteration": "shapes-1"}
    status = finished(Status())
    metrics.show(given.ITERATION, status.model_copy(update={"phase": Phase.TRAINING}))
    assert value("dpe_iteration_phase", **own, phase="Training") == 1
    metrics.show(given.ITERATION, status)
    assert value("dpe_iteration_phase", **own, phase="Succeeded") == 1
    assert value("dpe_iteration_phase", **own, phase="Training") is None
    assert value("dpe_iteration_samples", **own, outcome="kept") == status.samples.kept
    assert value("dpe_iteration_tokens", **own) == status.cost.tokens > 0
    assert value("dpe_iteration_gpu_seconds", **own) == status.cost.gpu_seconds
    metrics.forget("lab", "shapes-1")
    assert value("dpe_iteration_phase", **own, phase="Succeeded") is None


def test_an_iteration_has_an_end_time_from_its_end_on_also_for_an_operator_that_has_just_started() -> None:
    own = {"namespace": "lab", "iteration": "shapes-1"}
    metrics.show(given.ITERATION, Status(phase=Phase.TRAINING))
    assert value("dpe_iteration_end_time_seconds", **own) is None
    metrics.forget("lab", "shapes-1")
    metrics.show(given.ITERATION, Status(phase=Phase.FAILED, completion_time=given.T0))
    assert value("dpe_iteration_end_time_seconds", **own) == given.T0.timestamp()
    metrics.forget("lab", "shapes-1")
    assert value("dpe_iteration_end_time_seconds", **own) is None


@pytest.mark.parametrize(
    ("stage", "progress", "ratio"),
    [
        (Stage.TRAINING, StageProgress(done=1, total=4), 0.25),
        (Stage.TRAINING, None, 0.0),
        (Stage.TRAINING, StageProgress(done=0, total=0), 0.0),
        (Stage.SERVE_BASE, None, None),
    ],
)
def test_a_running_stage_without_a_word_has_progress_0_so_that_it_can_be_seen_to_be_stuck(
    stage: Stage, progress: StageProgress | None, ratio: float | None
) -> None:
    def show(state: StageState) -> None:
        metrics.show(given.ITERATION, Status(stages=[StageStatus(name=stage, state=state, progress=progress)]))

    labels = {"namespace": "lab", "iteration": "shapes-1", "stage": str(stage)}
    show(StageState.RUNNING)
    assert value("dpe_stage_progress_ratio", **labels) == ratio
    show(StageState.DONE)
    assert value("dpe_stage_progress_ratio", **labels) is None
    metrics.forget("lab", "shapes-1")


def test_counters_that_alerts_watch_begin_at_zero() -> None:
    for stage in Stage:
        assert value("dpe_stage_attempts_total", stage=str(stage), outcome="failed") is not None
    assert value("dpe_store_errors_total", kind="refused") is not None
    metrics.pools_begin_at_zero(["h100"])
    assert value("dpe_gpu_seconds_total", stage="training", pool="h100") == 0


def test_a_store_that_does_not_answer_is_counted() -> None:
    facts = given.platform(
        objectStore={"endpoint": "http://127.0.0.1:9", "bucket": "dpe", "credentialsSecret": "s"}
    ).object_store
    before = value("dpe_store_errors_total", kind="unavailable") or 0
    with pytest.raises(StoreUnavailable):
        asyncio.run(Storage(facts, StaticProvider("a", "b")).get("s3://dpe/x"))
    assert value("dpe_store_errors_total", kind="unavailable") == before + 1


def test_the_trainers_gauges_are_named_after_what_they_hold(tmp_path) -> None:
    row = training.StepMetrics(
        step=1, loss=0.1, reward=0.5, completion_length=3, completion_tokens=96, total_tokens=960, seconds=1.5
    )
    training.append_row(tmp_path / "metrics.jsonl", row)
    names = {family.name for family in training.StepCollector(tmp_path / "metrics.jsonl").collect()}
    assert {"dpe_training_reward", "dpe_training_loss", "dpe_training_seconds_per_step"} <= names


def test_a_stage_that_its_queue_holds_back_is_not_shown_as_one_that_stands_still() -> None:
    message = "Queued: Job shapes-1-training-1 is suspended until its queue lets it in"
    entry = StageStatus(name=Stage.TRAINING, state=StageState.RUNNING, message=message)
    labels = {"namespace": "lab", "iteration": "shapes-1", "stage": "training"}
    metrics.show(given.ITERATION, Status(stages=[entry]))
    assert value("dpe_stage_progress_ratio", **labels) is None
    metrics.show(given.ITERATION, Status(stages=[entry.model_copy(update={"message": None})]))
    assert value("dpe_stage_progress_ratio", **labels) == 0
    metrics.forget("lab", "shapes-1")
