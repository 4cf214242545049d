"""Right or wrong where no program can tell: an endpoint compares responses with reference answers.

It sees text only, never the image: the reference is known to be right, and a judge that looks for itself grades its own
eyesight. Responses are data (prompts/judge.md). A verdict that cannot be had is an error of the item.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.endpoints.each import Failures, each
from dpe_jobs.endpoints.structured import Asker, Line, Reply
from dpe_jobs.endpoints.texts import digest, marked
from dpe_jobs.ledger import Ledger
from dpe_jobs.prompts import prompt


class Verdict(Reply):
    """Whether a response is correct, and why."""

    # the reason comes first: a judge that has to give it grades better than one that has already graded
    reason: Line
    correct: bool


@dataclass(frozen=True, slots=True)
class ToGrade:
    """The answers to one question."""

    key: str
    """Names the row."""
    question: str
    reference: str
    responses: tuple[str, ...]
    """Greedy and sampled ones; equal ones are judged once."""


@dataclass(frozen=True, slots=True)
class Graded:
    """What the judge said."""

    correct: dict[str, tuple[bool, ...]]
    """By key, in the order of the responses."""
    errors: dict[str, str]
    """By key: rows of which at least one response got no verdict. They are not in `correct`."""


@dataclass(frozen=True, slots=True)
class _Case:
    id: str
    item: ToGrade
    """The first one with this response."""
    response: str
    keys: set[str]
    """Of all items that wait for this verdict."""


def _says_nothing(response: str) -> bool:
    return not response.strip()


def _case_id(endpoint: Endpoint, item: ToGrade, response: str) -> str:
    return digest(prompt("judge").sha256, endpoint.model, item.question, item.reference, response.strip())


def _cases(endpoint: Endpoint, items: Sequence[ToGrade], ledger: Ledger) -> Iterable[_Case]:
    """Distinct answers that have no verdict yet, across items and attempts."""
    found: dict[str, _Case] = {}
    for item in items:
        for response in item.responses:
            name = _case_id(endpoint, item, response)
            if not _says_nothing(response) and name not in ledger:
                found.setdefault(name, _Case(name, item, response.strip(), set())).keys.add(item.key)
    return found.values()


async def grade_all(
    endpoint: Endpoint,
    items: Sequence[ToGrade],
    ledger: Ledger,
    *,
    total: int,
    max_error_rate: float,
    broken: dict[str, RequestFailed],
) -> Graded:
    """Grade every response; an empty one is wrong without asking. The ledger holds verdicts by content.

    `total` rows are in the set, with those that need no judge. `broken` has what got no verdict earlier, by content: it
    is not asked for again, and gets what fails now.

    Transient "ErrorRate" when more than `max_error_rate` of `total` fail, "EndpointDown" when the judge is dead;
    BadConfig when it takes neither key nor address.
    """
    template = prompt("judge")
    failed = Failures("rows were not judged", total, math.floor(max_error_rate * total))

    def fail(case: _Case, error: RequestFailed) -> None:
        broken[case.id] = error
        for key in sorted(case.keys):
            failed.add(key, error)

    async with ModelClient.of(endpoint) as client:
        asker = Asker(client, Verdict, max_tokens=endpoint.max_tokens)

        async def judge(case: _Case) -> None:
            if case.id in broken:
                fail(case, broken[case.id])
                return
            texts = marked(question=case.item.question, reference=case.item.reference, response=case.response)
            try:
                verdict, cost = await asker.ask(template.fill(**texts), system=template.system)
            except RequestFailed as error:
                fail(case, error)
            else:
                row = {"id": case.id, "correct": verdict.correct, "reason": verdict.reason, **cost.columns()}
                await asyncio.to_thread(ledger.append, row)  # may flush to the store, for as long as an outage lasts

        await each(_cases(endpoint, items, ledger), judge, client.concurrency)
    return _collect(endpoint, items, ledger, broken)


def _collect(endpoint: Endpoint, items: Sequence[ToGrade], ledger: Ledger, broken: dict[str, RequestFailed]) -> Graded:
    correct: dict[str, tuple[bool, ...]] = {}
    errors: dict[str, str] = {}
    for item in items:
        names = [None if _says_nothing(r) else _case_id(endpoint, item, r) for r in item.responses]
        trouble = [broken[name] for name in names if name in broken]
        if trouble:
            errors[item.key] = f"judge: {trouble[0]}"
        else:
            correct[item.key] = tuple(name is not None and bool(ledger[name]["correct"]) for name in names)
    return Graded(correct, errors)
