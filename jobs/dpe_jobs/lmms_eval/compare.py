"""Before and after on the same questions of one task."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dpe_api.artifacts import Interval, TaskComparison, TaskResult
from dpe_jobs.evaluation.compare import Floats, paired_change
from dpe_jobs.lmms_eval.results import Scored, scores
from dpe_jobs.runtime import BadData

RESAMPLES = 10_000
_AT_A_TIME = 100  # resamples; of 30,000 questions 24 MB


def _paired_mean(change: Floats, confidence: float, seed: int) -> Interval:
    """Mean of the changes of n questions, with the percentile interval of a bootstrap over them."""
    random = np.random.default_rng(seed)
    n = len(change)
    drawn = [change[random.integers(n, size=(_AT_A_TIME, n))].mean(axis=1) for _ in range(RESAMPLES // _AT_A_TIME)]
    low, high = np.quantile(np.concatenate(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2])
    value = float(change.mean())
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def paired(before: Mapping[str, Scored], after: Mapping[str, Scored], confidence: float, seed: int) -> Interval:
    """Change of the mean score: the score interval of pairs where all scores are 0 or 1, else a bootstrap.

    A bootstrap is empty where no score changed, however few they are: it is never narrower here than what as many
    questions that are right (from 0.5 on) or wrong leave open.
    """
    names = sorted(before)
    b, a = (np.array([found[name].score for name in names]) for found in (before, after))
    if np.isin([b, a], (0.0, 1.0)).all():
        return paired_change(b == 1.0, a == 1.0, confidence)
    found, least = _paired_mean(a - b, confidence, seed), paired_change(b >= 0.5, a >= 0.5, confidence)
    return Interval(
        value=found.value,
        low=max(-1.0, min(found.low, found.value - (least.value - least.low))),
        high=min(1.0, max(found.high, found.value + (least.high - least.value))),
    )


def compare(
    before: TaskResult,
    after: TaskResult,
    samples: tuple[Path, Path],
    *,
    gate: bool,
    confidence: float,
    seed: int,
) -> TaskComparison:
    """The comparison of two results of the same task. BadData when they are not about the same questions."""
    if (before.metric, before.version, before.n) != (after.metric, after.version, after.n):
        raise BadData(
            "LmmsEvalChanged",
            f"lmms-eval {after.task}: the base was asked {before.n} questions by version {before.version} "
            f"({before.metric}), the candidate {after.n} by {after.version} ({after.metric}): its data or the image "
            "lmms-eval has changed since the diagnosis",
        )
    earlier, later = scores(before, samples[0]), scores(after, samples[1])
    delta = None
    if earlier is not None and later is not None:
        if {k: s.asked for k, s in earlier.items()} != {k: s.asked for k, s in later.items()}:
            raise BadData(
                "LmmsEvalChanged", f"lmms-eval {after.task}: its questions have changed since the diagnosis asked them"
            )
        delta = paired(earlier, later, confidence, seed)
    return TaskComparison(
        task=after.task,
        metric=after.metric,
        n=after.n,
        before=before.value,
        before_stderr=before.stderr,
        after=after.value,
        after_stderr=after.stderr,
        delta=delta,
        higher_is_better=after.higher_is_better,
        gate=gate,
    )
