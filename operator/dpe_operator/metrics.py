"""Prometheus metrics of the operator (names as in the design). Counters follow the transitions between two statuses."""

from prometheus_client import Counter, Gauge, Histogram

from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_operator.plan import Charge
from dpe_operator.summaries import InvalidManifest, headline_set, tokens_of
from dpe_operator.world import Iteration, Observed

ITERATIONS = Gauge("dpe_iterations", "Iterations by phase", ["phase"])
STAGE_DURATION = Histogram(
    "dpe_stage_duration_seconds",
    "From a stage's first attempt to its end",
    ["stage"],
    buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 48 * 3600),
)
ATTEMPTS = Counter("dpe_stage_attempts", "Ended attempts by outcome: done, failed, disrupted", ["stage", "outcome"])
ACCURACY = Gauge(
    "dpe_iteration_accuracy",
    "Accuracy by category, before and after training",
    ["namespace", "iteration", "category", "model"],
)
SAMPLES = Counter("dpe_samples", "Candidates of the generation: kept, or rejected with a reason", ["outcome"])
GPU_SECONDS = Counter("dpe_gpu_seconds", "GPU time of ended attempts", ["stage", "pool"])
TOKENS = Counter("dpe_tokens", "Tokens by model server", ["endpoint", "direction"])
RECONCILE_DURATION = Histogram("dpe_reconcile_duration_seconds", "One look, decision and its execution")
RECONCILE_ERRORS = Counter("dpe_reconcile_errors", "Looks that ended in an error")
PROGRESS = Gauge(
    "dpe_stage_progress_ratio", "Share of the running stage that is finished", ["namespace", "iteration", "stage"]
)

_ENDPOINTS = {
    Stage.DIAGNOSIS: "base",
    Stage.GENERATION: "base",
    Stage.TRAINING: "trainer",
    Stage.EVALUATION: "candidate",
}
_phases: dict[tuple[str, str], Phase] = {}


def _count_phases() -> None:
    for phase in Phase:
        ITERATIONS.labels(phase.value).set(sum(1 for p in _phases.values() if p is phase))


def show(iteration: Iteration, status: Status) -> None:
    """Set the gauges of one iteration; also after a restart of the operator."""
    _phases[iteration.namespace, iteration.name] = status.phase
    _count_phases()
    own = (iteration.namespace, iteration.name)
    if status.resolved is not None and status.evaluation:
        headline = headline_set(status.resolved.spec)
        for change in (c for e in status.evaluation if e.name == headline for c in e.categories):
            ACCURACY.labels(*own, change.name, "before").set(change.before)
            ACCURACY.labels(*own, change.name, "after").set(change.after)
    elif status.diagnosis is not None:
        for category in status.diagnosis.categories:
            ACCURACY.labels(*own, category.name, "before").set(category.accuracy)
    for entry in status.stages:
        if entry.state is StageState.RUNNING and entry.progress is not None and entry.progress.total:
            PROGRESS.labels(*own, entry.name.value).set(entry.progress.done / entry.progress.total)
        else:
            PROGRESS.remove_by_labels({"namespace": own[0], "iteration": own[1], "stage": entry.name.value})


def count(before: Status, after: Status, seen: Observed, charges: tuple[Charge, ...]) -> None:
    """Count what changed between two statuses that were written one after the other."""
    for charge in charges:
        GPU_SECONDS.labels(charge.stage.value, charge.pool).inc(charge.gpu_seconds)
    for entry in after.stages:
        old = before.stage_status(entry.name)
        stage = entry.name.value
        ATTEMPTS.labels(stage, "failed").inc(max(0, entry.failures - old.failures))
        ATTEMPTS.labels(stage, "disrupted").inc(max(0, entry.disruptions - old.disruptions))
        if entry.state is StageState.DONE and old.state is not StageState.DONE:
            ATTEMPTS.labels(stage, "done").inc()
            if entry.start_time is not None and entry.completion_time is not None:
                STAGE_DURATION.labels(stage).observe((entry.completion_time - entry.start_time).total_seconds())
            _count_tokens(entry.name, seen)
    if after.samples is not None and before.samples is None:
        SAMPLES.labels("kept").inc(after.samples.kept)
        for reason, number in after.samples.rejected.items():
            SAMPLES.labels(reason).inc(number)


def _count_tokens(stage: Stage, seen: Observed) -> None:
    manifest = seen.manifests.get(stage) if stage in BATCH_STAGES else None
    if manifest is None:
        return
    try:
        tokens = tokens_of(stage, manifest)
    except InvalidManifest:
        return
    TOKENS.labels(_ENDPOINTS[stage], "prompt").inc(tokens.prompt)
    TOKENS.labels(_ENDPOINTS[stage], "completion").inc(tokens.completion)


def forget(namespace: str, name: str) -> None:
    """Drop the series of an iteration that is gone."""
    _phases.pop((namespace, name), None)
    _count_phases()
    ACCURACY.remove_by_labels({"namespace": namespace, "iteration": name})
    PROGRESS.remove_by_labels({"namespace": namespace, "iteration": name})
