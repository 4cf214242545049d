"""What lmms-eval writes, read: `*_results.json` has the metrics of a task, `*_samples_TASK.jsonl` each question."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpe_api.artifacts import TaskResult, Tokens
from dpe_api.evaluation_spec import LmmsEvalTask
from dpe_jobs.runtime import BadConfig, Transient

REQUEST_FAILED = "[LMMS_EVAL_REQUEST_FAILED"  # stands where an answer would, and is graded as one
_SAME = 1e-6  # of a mean of scores and the metric


@dataclass(frozen=True, slots=True)
class Written:
    """The files of one run."""

    results: Path
    samples: Path


def find(out: Path, task: str) -> Written | None:
    """What a run wrote; None when it has not succeeded. BadConfig when the name is that of a group of tasks."""
    results = sorted(out.glob("*/*_results.json"))
    samples = sorted(out.glob("*/*_samples_*.jsonl"))
    if not results or not samples:
        return None
    if len(samples) > 1 or not samples[0].name.endswith(f"_samples_{task}.jsonl"):
        names = ", ".join(p.stem.partition("_samples_")[2] for p in samples)
        raise BadConfig("LmmsEvalGroup", f"spec.evaluation.lmmsEval: {task} is a group of {names}: name those instead")
    return Written(results[-1], samples[0])


def _lines(samples: Path) -> Iterator[dict[str, Any]]:
    with samples.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def check_answered(task: str, samples: Path) -> None:
    """Transient when the server has not answered some questions: lmms-eval grades its note of that as an answer."""
    failed, total, first = 0, 0, ""
    for row in _lines(samples):
        total += 1
        said = next((w for w in _strings([row.get("resps"), row.get("filtered_resps")]) if REQUEST_FAILED in w), None)
        if said is not None:
            failed += 1
            first = first or said
    if failed:
        raise Transient(
            "LmmsEvalUnanswered",
            f"lmms-eval {task}: the model server did not answer {failed} of {total} questions, the first: {first}",
        )


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in found.items()
        if "," in name and isinstance(value, int | float) and math.isfinite(value)
    }


def read(task: LmmsEvalTask, results: Path, *, version: str, fingerprint: str) -> TaskResult:
    """The metrics of a task. BadConfig when it has not the one that is asked for, Transient when it has none."""
    document = json.loads(results.read_text(encoding="utf-8"))
    found = document["results"].get(task.task, {})
    numbers = _numbers(found)
    metrics = {name: value for name, value in numbers.items() if "_stderr" not in name}
    if not metrics:
        raise Transient("LmmsEvalFailed", f"lmms-eval {task.task}: its results hold no number: {found}")
    names = [n for n in metrics if task.metric is None or task.metric in (n, n.partition(",")[0])]
    if not names:
        raise BadConfig(
            "UnknownMetric",
            f"spec.evaluation.lmmsEval: metric {task.metric} of {task.task} is none of {', '.join(metrics)}",
        )
    used = (document.get("usage") or {}).get("total") or {}
    metric, filtered = names[0].split(",", 1)
    return TaskResult(
        task=task.task,
        metric=names[0],
        value=metrics[names[0]],
        stderr=numbers.get(f"{metric}_stderr,{filtered}"),
        n=document["n-samples"][task.task]["effective"],
        higher_is_better=document.get("higher_is_better", {}).get(task.task, {}).get(metric, True),
        metrics=metrics,
        tokens=Tokens(prompt=used.get("input_tokens", 0), completion=used.get("output_tokens", 0)),
        version=version,
        fingerprint=fingerprint,
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """One question."""

    asked: str
    """Its text and its right answer: the same for both models."""
    score: float


def _score(value: object) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("score")
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def scores(result: TaskResult, samples: Path) -> dict[str, Scored] | None:
    """The score of each question by its number in the data set; None where the metric is not the mean of such scores
    from 0 to 1 (a metric may be made of anything that a task keeps of a question), or where they cannot be told apart.
    """
    found: dict[str, Scored] = {}
    rows = 0
    for row in _lines(samples):
        rows += 1
        score = _score(row.get(result.metric.partition(",")[0]))
        if score is None:
            return None
        found[str(row["doc_id"])] = Scored(f"{row.get('input')}\n{row.get('target')}", score)
    if not found or len(found) != rows:  # several filters: a row for each
        return None
    mean = sum(s.score for s in found.values()) / rows
    return found if abs(mean - result.value) <= _SAME else None
