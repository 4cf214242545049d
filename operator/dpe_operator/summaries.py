"""From the summaries in manifests to the status, which stays below 32 KiB whatever the size of the run. Pure."""

from pydantic import ValidationError

from dpe_api.artifacts import (
    CategorySamples,
    DiagnosisSummary,
    EndpointSpending,
    EvaluationSummary,
    GenerationSummary,
    Manifest,
    SetReport,
    Tokens,
    TrainingSummary,
)
from dpe_api.base import ApiModel
from dpe_api.names import Stage
from dpe_api.spec import ResolvedSpec
from dpe_api.status import (
    MAX_CATEGORIES_IN_STATUS,
    CategoryDiagnosis,
    DiagnosisStatus,
    EndpointCost,
    EvaluationStatus,
    ModelStatus,
    SamplesStatus,
    Status,
    TaskStatus,
)
from dpe_operator.conditions import shorten

PROBE = "probe"
_MOST_OF_IT = 0.9  # below that a merged adapter is worth a word
STATUS_LIMIT = 31 * 1024  # bytes of JSON; the design promises 32 KiB
Summary = DiagnosisSummary | GenerationSummary | TrainingSummary | EvaluationSummary
_MODELS: dict[Stage, type[Summary]] = {
    Stage.DIAGNOSIS: DiagnosisSummary,
    Stage.GENERATION: GenerationSummary,
    Stage.TRAINING: TrainingSummary,
    Stage.EVALUATION: EvaluationSummary,
}


class InvalidManifest(ValueError):
    """A manifest whose summary is not what its stage publishes."""


def percent(share: float) -> str:
    """0.6219 as 62.2%."""
    return f"{share:.1%}"


def headline_set(spec: ResolvedSpec) -> str:
    """The set whose macro accuracy stands for the model: the first benchmark, else the probe."""
    return spec.evaluation.benchmarks[0].name if spec.evaluation.benchmarks else PROBE


def _of(sets: list[SetReport], name: str) -> SetReport:
    for report in sets:
        if report.name == name:
            return report
    raise InvalidManifest(f"its report has no set {name}")


def parse(stage: Stage, manifest: Manifest) -> Summary:
    """The stage's own summary; InvalidManifest when it is something else."""
    try:
        return _MODELS[stage].model_validate(manifest.summary)
    except ValidationError as error:
        raise InvalidManifest(shorten(f"the summary in the manifest of {stage} is invalid: {error}")) from error


def _diagnosis(status: Status, summary: DiagnosisSummary, headline: str) -> tuple[Status, str]:
    probe = _of(summary.report.sets, PROBE)
    before = percent(_of(summary.report.sets, headline).macro.value)
    quotas = {q.name: q for q in summary.quotas}
    categories = [
        CategoryDiagnosis(
            name=shorten(c.name, 128),
            n=c.n,
            errors=c.errors,
            accuracy=c.accuracy.value,
            low=c.accuracy.low,
            high=c.accuracy.high,
            pass_rate=None if c.pass_rate is None else c.pass_rate.value,
            weight=quotas[c.name].weight if c.name in quotas else 0.0,
            quota=quotas[c.name].quota if c.name in quotas else 0,
            reachable=quotas[c.name].reachable if c.name in quotas else True,
        )
        for c in probe.categories[:MAX_CATEGORIES_IN_STATUS]
    ]
    weaknesses = [shorten(f"{w.category}: {w.text} ({w.count} answers)", 256) for w in summary.weaknesses[:8]]
    found = DiagnosisStatus(overall=probe.macro, categories=categories, reused=summary.reused, weaknesses=weaknesses)
    how = "reused" if summary.reused else "asked"
    line = f"accuracy {before} on {headline}, {len(probe.categories)} categories, {probe.n} probe rows {how}"
    return status.model_copy(update={"diagnosis": found, "accuracy_before": before}), line


def _shortfall(category: CategorySamples) -> str:
    most = max(category.rejected.items(), key=lambda item: item[1], default=None)
    rejected = "" if most is None else f", {most[1]} of {category.candidates} candidates were {most[0]}"
    return shorten(f"{category.quota - category.kept} short: {category.shortfall_reason}{rejected}", 256)


def _generation(status: Status, summary: GenerationSummary) -> tuple[Status, str]:
    kept = {shorten(c.name, 128): c.kept for c in summary.categories[:MAX_CATEGORIES_IN_STATUS]}
    short = {
        shorten(c.name, 128): _shortfall(c)
        for c in summary.categories[:MAX_CATEGORIES_IN_STATUS]
        if c.shortfall_reason is not None
    }
    rejected = dict(sorted(summary.rejected.items(), key=lambda item: -item[1])[:32])
    samples = SamplesStatus(
        candidates=summary.candidates,
        kept=summary.kept,
        rejected=rejected,
        shortfall=summary.shortfall,
        kept_by_category=kept,
        shortfall_by_category=short,
    )
    line = f"kept {summary.kept} of {summary.candidates} candidates, target {summary.target}"
    line += f", {summary.shortfall} short" if summary.shortfall else ""
    line += f", and {summary.warmup} for the warm-up" if summary.warmup else ""
    used_up = [spent.endpoint for spent in summary.spending if spent.budget_spent]
    line += f"; spec.endpoints: the budget of {', '.join(used_up)} is used up" if used_up else ""
    cost = status.cost.model_copy(update={"endpoints": [_endpoint_cost(spent) for spent in summary.spending[:32]]})
    return status.model_copy(update={"samples": samples, "cost": cost}), line


def _endpoint_cost(spent: EndpointSpending) -> EndpointCost:
    return EndpointCost(
        name=spent.endpoint,
        tokens=spent.tokens.prompt + spent.tokens.completion,
        cost=None if spent.cost is None else round(spent.cost, 6),
        budget_spent=spent.budget_spent,
    )


def _evaluation(
    status: Status, summary: EvaluationSummary, headline: str, base: str, candidate: str
) -> tuple[Status, str]:
    compared = [
        EvaluationStatus(
            name=c.name,
            n=c.n,
            before=c.before,
            after=c.after,
            delta=c.delta,
            categories=c.categories[:MAX_CATEGORIES_IN_STATUS],
        )
        for c in summary.comparisons
    ]
    told = ("task", "metric", "n", "before", "after", "delta", "gate")
    tasks = [TaskStatus.model_validate({name: getattr(t, name) for name in told}) for t in summary.lmms_eval]
    first = next((c for c in summary.comparisons if c.name == headline), None)
    if first is None:
        raise InvalidManifest(f"the evaluation has no comparison on {headline}")
    model = ModelStatus(uri=candidate if summary.accepted else base, accepted=summary.accepted, candidate_uri=candidate)
    new = status.model_copy(
        update={
            "evaluation": compared,
            "lmms_eval": tasks,
            "accuracy_before": percent(first.before),
            "accuracy_after": percent(first.after),
            "model": model,
        }
    )
    return new, f"accuracy {percent(first.before)} before, {percent(first.after)} after on {headline}: {summary.reason}"


def absorb(status: Status, stage: Stage, manifest: Manifest) -> tuple[Status, str]:
    """The status with what a stage published, and its result in one line; InvalidManifest when it cannot be read."""
    resolved = status.resolved
    if resolved is None:
        raise InvalidManifest("the iteration has not started")
    summary = parse(stage, manifest)
    headline = headline_set(resolved.spec)
    tokens = status.cost.tokens + summary.tokens.prompt + summary.tokens.completion
    status = status.model_copy(update={"cost": status.cost.model_copy(update={"tokens": tokens})})
    if isinstance(summary, DiagnosisSummary):
        return _diagnosis(status, summary, headline)
    if isinstance(summary, GenerationSummary):
        return _generation(status, summary)
    if isinstance(summary, TrainingSummary):
        resumed = "" if summary.resumed_from_step is None else f", resumed from step {summary.resumed_from_step}"
        reward = f"reward {summary.first_reward:.3f} to {summary.last_reward:.3f}"
        early = "" if summary.ended_early is None else f", ended early: {summary.ended_early}"
        warm = "" if summary.warmup is None else f" after {summary.warmup.steps} of warm-up"
        line = f"{summary.steps} steps{warm} on {summary.world_size} ranks, {reward}{resumed}{early}"
        if summary.merged_share is not None and summary.merged_share < _MOST_OF_IT:
            line += f"; the merged model took only {summary.merged_share:.0%} of the adapter's updates"
        return status, line
    candidate = f"{status.artifacts}/{Stage.TRAINING}/model"
    return _evaluation(status, summary, headline, resolved.model_uri, candidate)


def tokens_of(stage: Stage, manifest: Manifest) -> Tokens:
    """Tokens that a stage paid for."""
    return parse(stage, manifest).tokens


def size(status: ApiModel) -> int:
    """Bytes of a status as JSON."""
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


def fit(status: Status) -> Status:
    """The status within its limit: the details that the artifacts hold anyway are left out first."""
    if size(status) <= STATUS_LIMIT:
        return status
    for keep in (16, 4, 0):
        fewer = [e.model_copy(update={"categories": e.categories[:keep]}) for e in status.evaluation]
        status = status.model_copy(update={"evaluation": fewer})
        if status.samples is not None:
            kept = dict(list(status.samples.kept_by_category.items())[:keep])
            short = dict(list(status.samples.shortfall_by_category.items())[:keep])
            fewer_samples = {"kept_by_category": kept, "shortfall_by_category": short}
            status = status.model_copy(update={"samples": status.samples.model_copy(update=fewer_samples)})
        if status.diagnosis is not None:
            weakest = sorted(status.diagnosis.categories, key=lambda c: c.accuracy)[: max(keep, 8)]
            shorter = status.diagnosis.model_copy(update={"categories": weakest})
            status = status.model_copy(update={"diagnosis": shorter})
        stages = [
            s.model_copy(update={"message": None if s.message is None else shorten(s.message, 256 + 32 * keep)})
            for s in status.stages
        ]
        status = status.model_copy(update={"stages": stages})
        if size(status) <= STATUS_LIMIT:
            break
    return status
