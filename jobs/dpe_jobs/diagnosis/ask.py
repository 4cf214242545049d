"""Ask the questions, each at most once over all attempts: answers go into the ledger, errors do not.

A row is one greedy request and, where its set wants rollouts, one for all of them: each has its place in the ledger.
"""

import asyncio
import dataclasses
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow.parquet as pq

from dpe_api.artifacts import AnswerType, Tokens
from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs import asking
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.diagnosis.sample import QuestionSet
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import batch_rows
from dpe_jobs.runtime import ProgressReporter, Transient
from dpe_jobs.seeds import derive

log = logging.getLogger(__name__)

READY_S = 120.0  # the operator starts this stage when the model is ready; a Service may lag behind
GREEDY, SAMPLED = "greedy", "sampled"
_COLUMNS = ["id", "image", "question", "answer_type", "choices"]
_BATCH_ROWS = 16  # images in memory beside those that are being asked

Decide = Callable[[QuestionSet], Awaitable[Sequence[str]]]
"""Which of a set's spare rows are asked, once its others are answered."""


def row_key(asked_as: str, question_id: str) -> str:
    """Names a row among all that are asked."""
    return f"{asked_as}:{question_id}"


def key(kind: str, asked_as: str, question_id: str) -> str:
    """Ledger key of a request: GREEDY or SAMPLED."""
    return f"{kind}/{row_key(asked_as, question_id)}"


def options_order(row: Mapping[str, Any], settings: Diagnosis) -> tuple[int, ...] | None:
    """The order in which a row's options are listed; None: as they are.

    Drawn by the row alone: every model gets them in the same order, so that before and after are compared alike.
    """
    if not settings.shuffle_choices or AnswerType(row["answer_type"]) is not AnswerType.CHOICE:
        return None
    return asking.order(row["question"], row["choices"] or (), 0, row["id"])


def prompt(row: Mapping[str, Any], settings: Diagnosis) -> str:
    """The text that is sent with a row's image."""
    kind, order = AnswerType(row["answer_type"]), options_order(row, settings)
    return asking.prompt(row["question"], row["choices"] or (), kind, order=order)


@dataclass(frozen=True, slots=True)
class _Request:
    kind: str
    asked_as: str
    row: str
    image: bytes
    text: str
    n: int

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.row}"


@dataclass(slots=True)
class _Errors:
    """Rows of one set without an answer, or without rollouts; more than `allowed` end the stage."""

    name: str
    allowed: int
    total: int
    messages: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, message: str) -> None:
        self.messages.setdefault(row, message)
        log.warning("no answer for %s: %s", row, message)
        if len(self.messages) > self.allowed:
            raise Transient(
                "ErrorRate",
                f"{len(self.messages)} of the {self.total} questions of {self.name} got no answer, more than "
                f"maxErrorRate allows ({self.allowed}); the last one: {message}",
            )


def _errors(sets: Sequence[QuestionSet], max_error_rate: float) -> dict[str, _Errors]:
    """The bounds by QuestionSet.asked_as: a large benchmark must not hide that nothing is known of a small probe."""
    totals = {name: amount([s for s in sets if s.asked_as == name]).rows for name in {s.asked_as for s in sets}}
    return {name: _Errors(name, math.floor(max_error_rate * total), total) for name, total in totals.items()}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is to ask."""

    rows: int
    requests: int


def amount(sets: Sequence[QuestionSet]) -> Amount:
    """Rows and requests of all sets; a row of two sets counts once, with the rollouts of one of them."""
    rows = {row_key(s.asked_as, i) for s in sets for i in s.ids}
    sampled = {row_key(s.asked_as, i) for s in sets if s.rollouts for i in s.ids}
    more = sum(s.adaptive for s in sets)
    more_sampled = sum(s.adaptive for s in sets if s.rollouts)
    return Amount(len(rows) + more, len(rows) + len(sampled) + more + more_sampled)


class _Asking:
    """One run over what the ledger lacks."""

    def __init__(
        self, client: ModelClient, ledger: Ledger, progress: ProgressReporter, settings: Diagnosis, seed: int
    ) -> None:
        self._client, self._ledger, self._progress = client, ledger, progress
        self._settings, self._seed = settings, seed
        self._issued: set[str] = set()
        self._open: set[str] = set()
        """Rows whose greedy answer decides on further rows, and is not there."""
        self._answered = asyncio.Event()

    def _new(
        self, questions: QuestionSet, only: Collection[str], kinds: Collection[str] = (GREEDY, SAMPLED)
    ) -> Iterator[_Request]:
        """Requests of some rows that neither the ledger nor this run has, a batch of images in memory at a time."""
        with pq.ParquetFile(questions.path) as file:
            for batch in file.iter_batches(min(_BATCH_ROWS, batch_rows(file)), columns=_COLUMNS):
                for row in batch.to_pylist():
                    if row["id"] not in only:
                        continue
                    named = row_key(questions.asked_as, row["id"])
                    text = prompt(row, self._settings)
                    for kind, n in ((GREEDY, 1), (SAMPLED, questions.rollouts)):
                        request = _Request(kind, questions.asked_as, named, row["image"]["bytes"], text, n)
                        new = request.key not in self._ledger and request.key not in self._issued
                        if n and kind in kinds and new:
                            self._issued.add(request.key)
                            yield request

    async def requests(self, sets: list[QuestionSet], decide: Decide) -> AsyncIterator[_Request]:
        """All requests, in the order in which they are sent. `sets` has the rows that were decided on afterwards.

        Rows with rollouts come first and the short greedy requests last, so that the server is busy to the end. The two
        requests of a row follow each other, for the server's cache; but where the greedy answers decide on further
        rows, they all come first, so that nobody waits for the decision.
        """
        for questions in (s for s in sets if s.adaptive):
            for request in self._new(questions, frozenset(questions.ids), (GREEDY,)):
                self._open.add(request.row)
                yield request
        for questions in sorted(sets, key=lambda s: s.rollouts == 0):
            for request in self._new(questions, frozenset(questions.ids)):
                yield request
        for i, questions in enumerate(sets):
            if questions.adaptive:
                while self._open:
                    self._answered.clear()
                    await self._answered.wait()
                chosen = await decide(questions)
                sets[i] = dataclasses.replace(questions, ids=(*questions.ids, *chosen), adaptive=0, spare={})
                for request in self._new(questions, frozenset(chosen)):
                    yield request

    async def send(self, request: _Request, errors: _Errors) -> None:
        """Ask, and record what came."""
        how: dict[str, Any] = {"max_tokens": self._settings.max_tokens}
        if request.kind == SAMPLED:
            how |= {
                "n": request.n,
                "temperature": self._settings.temperature,
                "seed": derive(self._seed, "rollouts", request.row),
            }
        try:
            image = await asyncio.to_thread(asking.fit, request.image, self._settings.max_pixels)
            answers = await self._client.ask(image, request.text, **how)
        except RequestFailed as error:
            errors.add(request.row, str(error))
            await asyncio.to_thread(self._progress.advance)
        else:
            row = {
                "id": request.key,
                "texts": list(answers.texts),
                "prompt_tokens": answers.prompt_tokens,
                "completion_tokens": answers.completion_tokens,
            }
            await asyncio.to_thread(self._record, row)
        if request.kind == GREEDY:
            self._open.discard(request.row)
            if not self._open:
                self._answered.set()

    def _record(self, row: Mapping[str, Any]) -> None:
        self._ledger.append(row)  # may flush to the store, for as long as an outage lasts
        self._progress.advance()


async def ask_sets(
    client: ModelClient,
    sets: Sequence[QuestionSet],
    ledger: Ledger,
    progress: ProgressReporter,
    settings: Diagnosis,
    seed: int,
    decide: Decide,
) -> tuple[list[QuestionSet], dict[str, str]]:
    """Ask whatever the ledger lacks; returns the sets with all rows that were asked, and the errors by row key.

    Transient "ErrorRate" as soon as more than maxErrorRate of the rows of a set got no answer or no rollouts,
    "ModelNotReady" when the model does not come up. A row without an answer is asked again by the next attempt, never
    counted as wrong.
    """
    asked = list(sets)
    errors = _errors(sets, settings.max_error_rate)
    asking = _Asking(client, ledger, progress, settings, seed)
    # one source for all workers: at most `concurrency` requests with their images are under way
    requests, turn = asking.requests(asked, decide), asyncio.Lock()

    async def worker() -> None:
        while True:
            async with turn:
                request = await anext(requests, None)
            if request is None:
                return
            await asking.send(request, errors[request.asked_as])

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
    return asked, {row: said for of_set in errors.values() for row, said in of_set.messages.items()}


def paid(*ledgers: Iterable[Mapping[str, Any]]) -> Tokens:
    """Tokens of all answers in ledgers, those of earlier attempts included."""
    prompt = completion = 0
    for row in chain.from_iterable(ledgers):
        prompt += row.get("prompt_tokens", 0)
        completion += row.get("completion_tokens", 0)
    return Tokens(prompt=prompt, completion=completion)
