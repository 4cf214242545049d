"""What lmms-eval found, from the summary of an evaluation to the status."""

from tests.unit.operator import given

from dpe_api.artifacts import Interval, Manifest, TaskComparison
from dpe_api.names import Stage
from dpe_api.status import Resolved, Status, TaskStatus
from dpe_operator.summaries import STATUS_LIMIT, absorb, fit, size


def absorbed(*tasks: TaskComparison, categories: tuple[str, ...] = given.CATEGORIES) -> Status:
    summary = given.summary(Stage.EVALUATION, categories=categories).model_copy(update={"lmms_eval": list(tasks)})
    manifest = Manifest(stage=Stage.EVALUATION, created_at=given.T0, summary=summary.wire())
    before = Status(
        artifacts="s3://dpe/lab/shapes-1-01234567",
        resolved=Resolved(round=0, model_uri="s3://dpe/models/base", spec=given.spec().resolve()),
    )
    return absorb(before, Stage.EVALUATION, manifest)[0]


def test_the_status_says_how_the_candidate_does_on_public_benchmarks():
    delta = Interval(value=0.25, low=0.07, high=0.45)
    ai2d = TaskComparison(task="ai2d", metric="exact_match,none", n=24, before=0.25, after=0.5, delta=delta, gate=True)
    mmmu = TaskComparison(task="mmmu_val", metric="mmmu_acc,none", n=900, before=0.5, after=0.51)
    assert absorbed(ai2d, mmmu).lmms_eval == [
        TaskStatus(task="ai2d", metric="exact_match,none", n=24, before=0.25, after=0.5, delta=delta, gate=True),
        TaskStatus(task="mmmu_val", metric="mmmu_acc,none", n=900, before=0.5, after=0.51),
    ]
    assert absorbed().lmms_eval == []


def test_the_most_tasks_with_the_longest_names_fit_into_the_status():
    delta = Interval(value=1 / 3, low=1 / 7, high=2 / 3)
    long = TaskComparison(task="t" * 128, metric="m" * 128, n=10**6, before=1 / 3, after=2 / 3, delta=delta)
    status = fit(absorbed(*[long] * 16, categories=tuple(f"a category called {n}" for n in range(64))))
    assert len(status.lmms_eval) == 16
    assert size(status) <= STATUS_LIMIT
