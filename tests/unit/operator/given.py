"""Values for the operator's tests: a platform, a spec, what was seen, what stages published."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dpe_api.artifacts import (
    CategoryChange,
    CategoryReport,
    CategorySamples,
    Comparison,
    DiagnosisReport,
    DiagnosisSummary,
    EvaluationSummary,
    GenerationSummary,
    Interval,
    Manifest,
    Quota,
    SetReport,
    Tokens,
    TrainingSummary,
)
from dpe_api.names import Stage, child_name
from dpe_api.spec import Spec
from dpe_operator.platform import Platform
from dpe_operator.world import Ended, Iteration, JobSeen, PodSeen

T0 = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
ITERATION = Iteration("lab", "shapes-1", "0123456789abcdef", labels={"kueue.x-k8s.io/queue-name": "gpus", "team": "x"})
CATEGORIES = ("colour", "count")


def at(seconds: float) -> datetime:
    """A moment after the start of the story."""
    return T0 + timedelta(seconds=seconds)


def platform(**changes: Any) -> Platform:
    """A platform with two pools and short deadlines."""
    document: dict[str, Any] = {
        "objectStore": {"endpoint": "http://store:9000", "bucket": "dpe", "credentialsSecret": "dpe-store"},
        "jobs": {"image": "jobs:1", "resources": {"requests": {"cpu": "1"}}},
        "serving": {"image": "serving:1", "resources": {"limits": {"memory": "8Gi"}}},
        "training": {"image": "training:1", "env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
        "pools": {
            "inference": {"nodeSelector": {"pool": "i"}, "sharedMemory": "1Gi"},
            "training": {
                "nodeSelector": {"pool": "t"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
            },
        },
        "deadlines": {"scheduling": 600, "imagePull": 300, "startup": 900, "noProgress": 1200},
        "backoff": {"base": 10, "cap": 60},
        **changes,
    }
    return Platform.model_validate(document)


def spec(**changes: Any) -> Spec:
    """A small spec."""
    document: dict[str, Any] = {
        "model": {"uri": "s3://dpe/models/base"},
        "probe": {"uri": "s3://dpe/data/probe"},
        "training": {"nodes": 2, "gpusPerNode": 1, "promptsPerStep": 4, "rolloutsPerPrompt": 4},
        "evaluation": {"benchmarks": [{"name": "test", "uri": "s3://dpe/data/test"}]},
        **changes,
    }
    return Spec.model_validate(document)


def job(stage: Stage, attempt: int = 1, **changes: Any) -> JobSeen:
    """A Job that runs."""
    name = child_name(ITERATION.name, stage, attempt)
    return JobSeen(**{"name": name, "uid": f"uid-{name}", "stage": stage, "attempt": attempt, "created": T0, **changes})


def pod(stage: Stage, attempt: int = 1, index: int = 0, **changes: Any) -> PodSeen:
    """A pod whose container runs."""
    name = f"{child_name(ITERATION.name, stage, attempt)}-{index}-abcde"
    known = {"phase": "Running", "created": T0, "scheduled_at": T0, "started_at": T0}
    known["main_started_at"] = changes.get("started_at", T0)
    return PodSeen(**{"name": name, "uid": f"uid-{name}", "stage": stage, "attempt": attempt, **known, **changes})


def ended(code: int, seconds: float = 10, reason: str = "Broke", message: str = "it broke") -> tuple[Ended, ...]:
    """How a container ended."""
    return (Ended(code, reason, message, at(seconds)),)


def _interval(value: float) -> Interval:
    return Interval(value=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1))


def report(accuracy: float, categories: tuple[str, ...] = CATEGORIES) -> DiagnosisReport:
    """A report on the probe and on the benchmark."""
    rows = [
        CategoryReport(
            name=c, n=100, errors=1, correct=60, accuracy=_interval(accuracy), rollouts=900, pass_rate=_interval(0.5)
        )
        for c in categories
    ]
    sets = [
        SetReport(name=n, uri=f"s3://dpe/data/{n}", n=200, errors=2, macro=_interval(a), categories=rows)
        for n, a in (("probe", accuracy - 0.05), ("test", accuracy))
    ]
    return DiagnosisReport(model_uri="s3://dpe/models/base", model_sha256="0" * 64, fingerprint="f", sets=sets)


def comparison(before: float, after: float, categories: tuple[str, ...] = CATEGORIES, name: str = "test") -> Comparison:
    """A comparison on one set."""
    changes = [
        CategoryChange(name=c, n=100, before=before, after=after, delta=_interval(after - before)) for c in categories
    ]
    delta = _interval(after - before)
    return Comparison(name=name, n=200, before=before, after=after, delta=delta, categories=changes)


def summary(stage: Stage, *, accepted: bool = True, categories: tuple[str, ...] = CATEGORIES) -> Any:
    """What a stage says about its work."""
    tokens = Tokens(prompt=1000, completion=100)
    if stage is Stage.DIAGNOSIS:
        share = 1 / len(categories)
        quotas = [Quota(name=c, weight=share, quota=50, reachable=True, retention=False) for c in categories]
        return DiagnosisSummary(report=report(0.6219, categories), quotas=quotas, tokens=tokens)
    if stage is Stage.GENERATION:
        rows = [
            CategorySamples(name=c, quota=50, candidates=90, kept=48, rejected={"too_easy": 42}) for c in categories
        ]
        return GenerationSummary(
            target=100, candidates=180, kept=96, shortfall=4, rejected={"too_easy": 84}, categories=rows, tokens=tokens
        )
    if stage is Stage.TRAINING:
        return TrainingSummary(
            steps=10,
            resumed_from_step=None,
            world_size=2,
            first_reward=0.4,
            last_reward=0.7,
            seconds_per_step=1.0,
            peak_rss_bytes=1,
            tokens=tokens,
        )
    return EvaluationSummary(
        report=report(0.8, categories),
        comparisons=[comparison(0.6219, 0.8, categories)],
        accepted=accepted,
        reason="test: +17.8 points (lower bound +7.8)" if accepted else "test: lower bound -3.0 points is below -1.0",
        tokens=tokens,
    )


def manifest(stage: Stage, **more: Any) -> Manifest:
    """A published artifact."""
    return Manifest(stage=stage.value, attempt=1, created_at=T0, summary=summary(stage, **more).wire())
