"""Values for the tests of runs: a spec, iterations as they were seen."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.operator import given as iterations

from dpe_api.artifacts import Interval
from dpe_api.names import round_name
from dpe_api.run_spec import RunSpec
from dpe_api.run_status import RunStatus
from dpe_api.spec import Spec
from dpe_api.status import Condition, Cost, EvaluationStatus, ModelStatus, Phase, Resolved, SamplesStatus, Status
from dpe_operator.runs.decide import decide
from dpe_operator.runs.world import RoundSeen, RunPlan, RunSeen
from dpe_operator.world import Run

T0 = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
RUN = Run("lab", "shapes", "fedcba9876543210", labels={"kueue.x-k8s.io/queue-name": "gpus", "team": "x"})
BASE = "s3://dpe/models/base"
RESYNC = timedelta(seconds=30)


def spec(**changes: Any) -> RunSpec:
    """A run of three rounds with the science of the iterations' tests."""
    science = {k: v for k, v in iterations.spec(seed=7).wire().items() if k not in ("model", "suspend")}
    document: dict[str, Any] = {"model": {"uri": BASE}, "template": science, "maxIterations": 3, **changes}
    return RunSpec.model_validate(document)


def candidate(name: str) -> str:
    """The model that an iteration trains."""
    return f"s3://dpe/lab/{name}/training/model"


def status(
    phase: Phase,
    *,
    name: str = "shapes-1",
    base: str = BASE,
    before: float = 0.6,
    after: float = 0.7,
    low: float = 0.05,
    number: int = 0,
    **changes: Any,
) -> Status:
    """Status of an iteration in a phase; with results when it was judged."""
    common: dict[str, Any] = {"phase": phase}
    if phase not in (Phase.PENDING, Phase.SUSPENDED):
        resolved = Resolved(round=number, model_uri=base, spec=Spec.model_validate(iterations.spec().wire()).resolve())
        common |= {
            "resolved": resolved,
            "artifacts": f"s3://dpe/lab/{name}",
            "start_time": T0,
            "accuracy_before": "60.0%",
        }
        common["cost"] = Cost(gpu_seconds=100, tokens=1000)
    if phase in (Phase.SUCCEEDED, Phase.REJECTED):
        accepted = phase is Phase.SUCCEEDED
        change = Interval(value=after - before, low=low, high=2 * (after - before) - low)
        common |= {
            "evaluation": [EvaluationStatus(name="test", n=100, before=before, after=after, delta=change)],
            "model": ModelStatus(uri=candidate(name) if accepted else base, accepted=accepted),
            "samples": SamplesStatus(candidates=100, kept=90),
            "completion_time": T0,
        }
    if phase is Phase.FAILED:
        failed = Condition(
            type="Failed", status="True", reason="NoSamples", message="generation: none kept", last_transition_time=T0
        )
        common["conditions"] = [failed]
    return Status.model_validate({**common, **changes})


OWN = ("suspended", "suspended_by_run", "deleting", "reference", "seed")


def seen(number: int, phase: Phase, *, retry: int = 0, uid: str | None = None, **changes: Any) -> RoundSeen:
    """One of the run's iterations."""
    name = round_name(RUN.name, number, retry)
    own = {k: changes.pop(k) for k in list(changes) if k in OWN}
    if number > 1:
        own.setdefault("reference", round_name(RUN.name, number - 1))
    found = status(phase, name=name, number=number - 1, **changes)
    return RoundSeen(name, uid or f"uid-{name}", number, retry, found, **own)


def look(
    of: RunSpec, known: RunStatus | None = None, *rounds: RoundSeen, at_s: float = 0, **more: Any
) -> tuple[RunPlan, RunStatus]:
    """The plan, and the status after it."""
    before = known or RunStatus()
    run = more.pop("run", RUN)
    plan = decide(of, before, RunSeen(run, rounds, **more), T0 + timedelta(seconds=at_s), RESYNC)
    return plan, plan.status or before
