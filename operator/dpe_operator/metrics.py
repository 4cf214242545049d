"""Prometheus metrics of the operator (names as in the design). Counters follow the transitions between two statuses."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_operator.conditions import QUEUED as QUEUED_REASON
from dpe_operator.plan import Charge
from dpe_operator.summaries import InvalidManifest, headline_set, tokens_of
from dpe_operator.world import Iteration, Observed

REGISTRY = CollectorRegistry()  # of its own: the stages' package counts tokens and samples under the same names
ProcessCollector(registry=REGISTRY)

ITERATIONS = Gauge("dpe_iterations", "Iterations by phase", ["phase"], registry=REGISTRY)
QUEUED = Gauge("dpe_iterations_queued", "Iterations that wait for others to finish", registry=REGISTRY)
STAGE_DURATION = Histogram(
    "dpe_stage_duration_seconds",
    "From a stage's first attempt to its end",
    ["stage"],
    buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 48 * 3600),
    registry=REGISTRY,
)
ATTEMPTS = Counter(
    "dpe_stage_attempts", "Ended attempts by outcome: done, failed, disrupted", ["stage", "outcome"], registry=REGISTRY
)
ACCURACY = Gauge(
    "dpe_iteration_accuracy",
    "Accuracy by category, before and after training",
    ["namespace", "iteration", "category", "model"],
    registry=REGISTRY,
)
SAMPLES = Counter(
    "dpe_samples", "Candidates of the generation: kept, or rejected with a reason", ["outcome"], registry=REGISTRY
)
GPU_SECONDS = Counter(
    "dpe_gpu_seconds",
    "GPU time of attempts that ended, or whose iteration was deleted",
    ["stage", "pool"],
    registry=REGISTRY,
)
TOKENS = Counter("dpe_tokens", "Tokens by model server", ["endpoint", "direction"], registry=REGISTRY)
RECONCILE_DURATION = Histogram(
    "dpe_reconcile_duration_seconds", "One look, decision and its execution", registry=REGISTRY
)
RECONCILE_ERRORS = Counter("dpe_reconcile_errors", "Looks that ended in an error", registry=REGISTRY)
PROGRESS = Gauge(
    "dpe_stage_progress_ratio",
    "Share of the running stage that is finished",
    ["namespace", "iteration", "stage"],
    registry=REGISTRY,
)

PHASE = Gauge(
    "dpe_iteration_phase", "1 for the iteration's phase", ["namespace", "iteration", "phase"], registry=REGISTRY
)
END_TIME = Gauge(
    "dpe_iteration_end_time_seconds",
    "When the iteration ended, Unix time",
    ["namespace", "iteration"],
    registry=REGISTRY,
)
ITERATION_SAMPLES = Gauge(
    "dpe_iteration_samples",
    "The iteration's candidates: kept, or rejected",
    ["namespace", "iteration", "outcome"],
    registry=REGISTRY,
)
ITERATION_GPU_SECONDS = Gauge(
    "dpe_iteration_gpu_seconds",
    "The iteration's GPU time so far, that of running attempts included",
    ["namespace", "iteration"],
    registry=REGISTRY,
)
ITERATION_TOKENS = Gauge(
    "dpe_iteration_tokens", "The iteration's tokens so far", ["namespace", "iteration"], registry=REGISTRY
)
API_REQUESTS = Counter(
    "dpe_api_requests", "Requests to the API server, watches left out", ["method"], registry=REGISTRY
)
STORE_ERRORS = Counter(
    "dpe_store_errors",
    "Requests to the object store without a result: unavailable, refused",
    ["kind"],
    registry=REGISTRY,
)
STALE = Gauge(
    "dpe_stale_iterations", "Iterations that are not looked after, as /healthz counts them", registry=REGISTRY
)

_OF_ONE_ITERATION = (ACCURACY, PROGRESS, PHASE, END_TIME, ITERATION_SAMPLES, ITERATION_GPU_SECONDS, ITERATION_TOKENS)
_ENDPOINTS = {
    Stage.DIAGNOSIS: "base",
    Stage.GENERATION: "base",
    Stage.TRAINING: "trainer",
    Stage.EVALUATION: "candidate",
}
_phases: dict[tuple[str, str], Phase] = {}
_queued: set[tuple[str, str]] = set()
_accuracy_shown: dict[tuple[str, str], set[tuple[str, str]]] = {}


def _begin_at_zero() -> None:
    """A counter that first appears as 1 has not increased, says Prometheus: the first failure would go unseen."""
    for phase in Phase:
        ITERATIONS.labels(phase.value)
    for stage in Stage:
        for outcome in ("done", "failed", "disrupted"):
            ATTEMPTS.labels(stage.value, outcome)
    for stage in BATCH_STAGES:
        STAGE_DURATION.labels(stage.value)
        for direction in ("prompt", "completion"):
            TOKENS.labels(_ENDPOINTS[stage], direction)
    for method in ("GET", "POST", "PATCH", "DELETE"):
        API_REQUESTS.labels(method)
    for kind in ("unavailable", "refused"):
        STORE_ERRORS.labels(kind)


def pools_begin_at_zero(pools: Iterable[str]) -> None:
    """The same for GPU time, in the platform's pools."""
    for pool in pools:
        for stage in (Stage.SERVE_BASE, Stage.TRAINING, Stage.SERVE_CANDIDATE):
            GPU_SECONDS.labels(stage.value, pool)


_begin_at_zero()


def _count_phase(own: tuple[str, str], phase: Phase | None) -> Phase | None:
    """One iteration is in this phase now, or gone; returns the phase before."""
    old = _phases.pop(own, None)
    if old is not None:
        ITERATIONS.labels(old.value).dec()
    if phase is not None:
        _phases[own] = phase
        ITERATIONS.labels(phase.value).inc()
    return old


def _count_queued(own: tuple[str, str], *, waits: bool) -> None:
    (_queued.add if waits else _queued.discard)(own)
    QUEUED.set(len(_queued))


def _accuracies(status: Status) -> dict[tuple[str, str], float]:
    """By category and "before" or "after": those of one set, so that their means may be compared."""
    if status.resolved is not None and status.evaluation:
        headline = headline_set(status.resolved.spec)
        changes = [c for e in status.evaluation if e.name == headline for c in e.categories]
        return {(c.name, "before"): c.before for c in changes} | {(c.name, "after"): c.after for c in changes}
    categories = status.diagnosis.categories if status.diagnosis is not None else ()
    return {(category.name, "before"): category.accuracy for category in categories}


def _show_accuracy(own: tuple[str, str], accuracies: dict[tuple[str, str], float]) -> None:
    for key in _accuracy_shown.get(own, set()) - accuracies.keys():
        ACCURACY.remove(*own, *key)
    for key, value in accuracies.items():
        ACCURACY.labels(*own, *key).set(value)
    _accuracy_shown[own] = set(accuracies)


def show(iteration: Iteration, status: Status, running: tuple[Charge, ...] = ()) -> None:
    """Set the gauges of one iteration; also after a restart of the operator. `running`: GPU time of what goes on."""
    own = (iteration.namespace, iteration.name)
    old = _count_phase(own, status.phase)
    _count_queued(own, waits=status.queue is not None)
    PHASE.labels(*own, status.phase.value).set(1)
    if old is not None and old is not status.phase:
        PHASE.remove(*own, old.value)
    if status.completion_time is not None:
        END_TIME.labels(*own).set(status.completion_time.timestamp())
    ITERATION_GPU_SECONDS.labels(*own).set(status.cost.gpu_seconds + sum(c.gpu_seconds for c in running))
    ITERATION_TOKENS.labels(*own).set(status.cost.tokens)
    if status.samples is not None:
        for outcome, number in {"kept": status.samples.kept, **status.samples.rejected}.items():
            ITERATION_SAMPLES.labels(*own, outcome).set(number)
    _show_accuracy(own, _accuracies(status))
    for entry in status.stages:
        held = (entry.message or "").startswith(f"{QUEUED_REASON}:")  # by Kueue, for as long as it likes
        if entry.state is StageState.RUNNING and entry.name in BATCH_STAGES and not held:
            progress = entry.progress  # none before the pod's first word: it may wait for a node
            ratio = progress.done / progress.total if progress is not None and progress.total else 0.0
            PROGRESS.labels(*own, entry.name.value).set(ratio)
        else:
            PROGRESS.remove(*own, entry.name.value)


def charge(charges: tuple[Charge, ...]) -> None:
    """Count GPU time that nothing will be added to."""
    for one in charges:
        GPU_SECONDS.labels(one.stage.value, one.pool).inc(one.gpu_seconds)


def count(before: Status, after: Status, seen: Observed, charges: tuple[Charge, ...]) -> None:
    """Count what changed between two statuses that were written one after the other."""
    charge(charges)
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
    _count_phase((namespace, name), None)
    _count_queued((namespace, name), waits=False)
    _accuracy_shown.pop((namespace, name), None)
    for gauge in _OF_ONE_ITERATION:
        gauge.remove_by_labels({"namespace": namespace, "iteration": name})
