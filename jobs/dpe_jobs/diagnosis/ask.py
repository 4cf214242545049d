"""Ask the questions, each at most once over all attempts: answers go into the ledger, errors do not."""

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from dpe_api.artifacts import Tokens
from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs.client import Answers, ModelClient, RequestFailed
from dpe_jobs.diagnosis.sample import QuestionSet
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import ProgressReporter, Transient
from dpe_jobs.seeds import derive

log = logging.getLogger(__name__)

READY_S = 120.0  # the operator starts this stage when the model is ready; a Service may lag behind
_BATCH_ROWS = 64


def key(name: str, question_id: str) -> str:
    """Ledger key of one row of one set."""
    return f"{name}:{question_id}"


@dataclass(frozen=True, slots=True)
class _Asked:
    set_name: str
    id: str
    image: bytes
    question: str
    rollouts: int

    @property
    def key(self) -> str:
        return key(self.set_name, self.id)


@dataclass(slots=True)
class _Errors:
    """Rows without an answer; more than `allowed` end the stage."""

    allowed: int
    total: int
    messages: dict[str, str] = field(default_factory=dict)

    def add(self, item: str, message: str) -> None:
        self.messages[item] = message
        log.warning("no answer for %s: %s", item, message)
        if len(self.messages) > self.allowed:
            raise Transient(
                "ErrorRate",
                f"{len(self.messages)} of {self.total} questions got no answer, more than maxErrorRate allows "
                f"({self.allowed}); the last one: {message}",
            )


def _questions(sets: Sequence[QuestionSet]) -> Iterator[_Asked]:
    """Rows from the local files, a batch in memory at a time."""
    for questions in sets:
        with pq.ParquetFile(questions.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["id", "image", "question"]):
                for row in batch.to_pylist():
                    yield _Asked(questions.name, row["id"], row["image"]["bytes"], row["question"], questions.rollouts)


async def _answer(client: ModelClient, item: _Asked, settings: Diagnosis, seed: int) -> dict[str, Any]:
    """The ledger row of one question: one greedy answer, and the sampled ones where the set wants them."""
    greedy = await client.ask(item.image, item.question, max_tokens=settings.max_tokens)
    sampled = Answers((), 0, 0)
    if item.rollouts:
        sampled = await client.ask(
            item.image,
            item.question,
            n=item.rollouts,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=derive(seed, "rollouts", item.key),
        )
    return {
        "id": item.key,
        "response": greedy.texts[0],
        "rollouts": list(sampled.texts),
        "prompt_tokens": greedy.prompt_tokens + sampled.prompt_tokens,
        "completion_tokens": greedy.completion_tokens + sampled.completion_tokens,
    }


async def ask_sets(
    client: ModelClient,
    sets: Sequence[QuestionSet],
    ledger: Ledger,
    progress: ProgressReporter,
    settings: Diagnosis,
    seed: int,
) -> dict[str, str]:
    """Ask whatever the ledger lacks; returns the errors by ledger key.

    Transient "ErrorRate" as soon as more than maxErrorRate of the rows got no answer, "ModelNotReady" when the model
    does not come up. A row without an answer is asked again by the next attempt, never counted as wrong.
    """
    total = sum(len(s.ids) for s in sets)
    errors = _Errors(math.floor(settings.max_error_rate * total), total)
    items = (item for item in _questions(sets) if item.key not in ledger)

    async def worker() -> None:
        # one iterator for all workers: at most `concurrency` images are in memory
        for item in items:
            try:
                row = await _answer(client, item, settings, seed)
            except RequestFailed as error:
                errors.add(item.key, str(error))
            else:
                await asyncio.to_thread(ledger.append, row)  # may flush to the store, for as long as an outage lasts
            await asyncio.to_thread(progress.advance)

    try:
        await client.wait_ready(READY_S)
    except RequestFailed as error:
        raise Transient("ModelNotReady", str(error)) from error
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as group_error:
        # the first trouble ended the others; its own type says how the stage ends
        raise group_error.exceptions[0] from None
    return errors.messages


def paid(ledger: Ledger) -> Tokens:
    """Tokens of all answers in the ledger, those of earlier attempts included."""
    rows = list(ledger)
    return Tokens(prompt=sum(r["prompt_tokens"] for r in rows), completion=sum(r["completion_tokens"] for r in rows))
