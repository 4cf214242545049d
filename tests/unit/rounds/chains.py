"""Rounds as their stages publish them, in a store."""

from datetime import UTC, datetime

from tests.unit.operator import given

from dpe_api.artifacts import CategoryChange, CategoryReport, Comparison, InputRef, Interval, IterationId, Manifest
from dpe_api.names import Stage
from dpe_jobs.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def interval(value: float, half: float = 0.05) -> Interval:
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def report(accuracies: dict[str, float]):
    """A report on probe and test with these accuracies."""
    rows = [
        CategoryReport(name=c, n=100, errors=0, correct=round(100 * a), accuracy=interval(a))
        for c, a in accuracies.items()
    ]
    whole = given.report(0.5)
    mean = interval(sum(accuracies.values()) / len(accuracies), 0.03)
    sets = [s.model_copy(update={"categories": rows, "macro": mean}) for s in whole.sets]
    return whole.model_copy(update={"sets": sets})


def compared(before: dict[str, float], after: dict[str, float]) -> Comparison:
    changes = [
        CategoryChange(name=c, n=100, before=before[c], after=after[c], delta=_change(after[c] - before[c]))
        for c in after
    ]
    first, last = (sum(x.values()) / len(x) for x in (before, after))
    return Comparison(name="test", n=200, before=first, after=last, delta=_change(last - first), categories=changes)


def _change(value: float) -> Interval:
    return Interval(value=value, low=value - 0.04, high=value + 0.04)


def root(number: int) -> str:
    return f"s3://dpe/lab/shapes-{number}-0123abcd"


def publish(
    store: Store,
    number: int,
    before: dict[str, float],
    after: dict[str, float],
    *,
    accepted: bool = True,
    questions: str = "s3://dpe/data/test",
) -> None:
    """One round: diagnosis, generation and evaluation, which names that of the round before as its last input."""
    diagnosis = given.summary(Stage.DIAGNOSIS, categories=tuple(before)).model_copy(update={"report": report(before)})
    generation = given.summary(Stage.GENERATION, categories=tuple(before))
    evaluation = given.summary(Stage.EVALUATION, accepted=accepted).model_copy(
        update={"report": report(after), "comparisons": [compared(before, after)]}
    )
    own = IterationId(namespace="lab", name=f"shapes-{number}", uid="0123abcd")
    for stage, summary in (
        (Stage.DIAGNOSIS, diagnosis),
        (Stage.GENERATION, generation),
        (Stage.EVALUATION, evaluation),
    ):
        inputs = [InputRef(uri=questions, sha256="1" * 64)]
        if stage is Stage.EVALUATION and number > 1:
            inputs += [InputRef(uri=f"{root(number - 1)}/evaluation", sha256="0" * 64)]
        manifest = Manifest(stage=str(stage), iteration=own, created_at=NOW, inputs=inputs, summary=summary.wire())
        store.publish(f"{root(number)}/{stage}", manifest)
