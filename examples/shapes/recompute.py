"""Accuracies and their changes from rows of items.parquet, in plain arithmetic: what the tables must say."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade, is_programmatic

Item = Mapping[str, Any]
"""A row of items.parquet: set, id, category, answer, answer_type, choices, response, correct, error, ..."""


@dataclass(frozen=True, slots=True)
class Change:
    """Accuracy before and after on the items that both models answered."""

    n: int
    before: float
    after: float


def of_set(items: Iterable[Item], name: str) -> dict[str, Item]:
    """Rows of one question set by id."""
    return {item["id"]: item for item in items if item["set"] == name}


def accuracies(items: Iterable[Item]) -> dict[str, tuple[int, int]]:
    """Right and answered rows by category; a row without an answer counts for neither."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for item in items:
        if item["correct"] is not None:
            right, answered = found[item["category"]]
            found[item["category"]] = right + bool(item["correct"]), answered + 1
    return dict(found)


def changes(before: Mapping[str, Item], after: Mapping[str, Item]) -> dict[str, Change]:
    """Changes by category, over the items that have an answer in both."""
    pairs: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for key in before.keys() & after.keys():
        then, now = before[key]["correct"], after[key]["correct"]
        if then is not None and now is not None:
            pairs[before[key]["category"]].append((then, now))
    return {
        name: Change(len(p), sum(then for then, _ in p) / len(p), sum(now for _, now in p) / len(p))
        for name, p in sorted(pairs.items())
    }


def macro(shares: Iterable[float]) -> float:
    """The mean of the categories."""
    values = list(shares)
    return sum(values) / len(values)


def misgraded(items: Iterable[Item]) -> list[str]:
    """Ids whose stored grades are not what their stored responses deserve; a judge's verdicts are not recomputed."""
    wrong = []
    for item in items:
        answer, kind, choices = item["answer"], AnswerType(item["answer_type"]), item["choices"] or ()
        if not is_programmatic(kind):
            continue
        pairs = list(zip(item["rollouts"] or (), item["rollouts_correct"] or (), strict=True))
        if item["response"] is not None:
            pairs.append((item["response"], item["correct"]))
        if any(grade(text, answer, kind, choices) != said for text, said in pairs):
            wrong.append(item["id"])
    return wrong
