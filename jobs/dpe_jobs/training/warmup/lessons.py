"""What the warm-up learns from, and when: samples of categories out of reach, and retention samples beside them."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_api.training_spec import Warmup
from dpe_jobs import asking
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store
from dpe_jobs.training.samples import Samples, in_store

FOLDER = "warmup"


@dataclass(frozen=True, slots=True)
class Lessons:
    """The samples that the warm-up draws from."""

    samples: Samples
    numbers: list[int]
    """Rows of categories out of reach."""
    retention: list[int]
    """Rows of all other categories."""
    categories: dict[str, int]
    """How many rows of categories out of reach there are."""
    space: str
    """White space that the model begins most of its own answers with: it is part of their first token."""


def response(row: Mapping[str, Any]) -> str | None:
    """What a model is to write to a sample; None where only a model can."""
    return asking.response(row["question"], row["answer"], row["choices"] or (), AnswerType(row["answer_type"]))


def leading_spaces(rollouts: Iterable[str]) -> Iterator[str]:
    """White space that each answer of a model begins with."""
    return (text[: len(text) - len(text.lstrip())] for text in rollouts if text.strip())


def read_lessons(store: Store, artifact: str) -> Lessons | None:
    """The lessons of a generation; None when it kept none: nothing was out of reach, or nothing could be made."""
    sources = in_store(store, artifact, FOLDER)
    if not sources:
        return None
    samples = Samples(sources)
    numbers, retention = list[int](), list[int]()
    categories, spaces = Counter[str](), Counter[str]()
    columns = ("question", "answer", "choices", "answer_type", "category", "retention", "rollouts")
    for number, row in enumerate(samples.columns(*columns)):
        spaces.update(leading_spaces(row["rollouts"] or ()))
        if response(row) is None:
            continue
        (retention if row["retention"] else numbers).append(number)
        categories[row["category"]] += not row["retention"]
    if not numbers:
        return None
    space = min(spaces, key=lambda one: (-spaces[one], one), default="")
    return Lessons(samples, numbers, retention, dict(sorted((+categories).items())), space)


def _drawn(numbers: list[int], seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield from rng.sample(numbers, len(numbers))


def retention_in_batch(lessons: Lessons, warmup: Warmup) -> int:
    """How many samples of a batch are retention samples."""
    if not lessons.retention:
        return 0
    return min(round(warmup.batch_size * warmup.retention_share), warmup.batch_size - 1)


def lesson_order(lessons: Lessons, warmup: Warmup, seed: int) -> list[int]:
    """The row of every sample of every batch, in order: each has the same number of retention samples, the last ones.

    Both kinds are shuffled anew whenever they have all been used. Without retention samples a batch has none.
    """
    kept = retention_in_batch(lessons, warmup)
    new = _drawn(lessons.numbers, derive(seed, "lessons"))
    old = _drawn(lessons.retention, derive(seed, "retention"))
    order: list[int] = []
    for _ in range(warmup.max_steps):
        order += islice(new, warmup.batch_size - kept)
        order += islice(old, kept)
    return order
