"""The category of each probe row by an endpoint that looks at image and question. No answer is an error, never a guess.

What was assigned once is known for good: rows are known by the hash of image, question, taxonomy, model and prompt, and
each diagnosis publishes what it knows as `categories.parquet`, which the next iteration's reads.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import create_model

from dpe_api.diagnosis_spec import Categorise
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.endpoints.each import Failures, each
from dpe_jobs.endpoints.structured import Asker, Reply
from dpe_jobs.endpoints.texts import digest, marked
from dpe_jobs.ledger import Ledger
from dpe_jobs.prompts import prompt
from dpe_jobs.questions import Question
from dpe_jobs.seeds import derive
from dpe_jobs.store import NotFound, Store, join

CATEGORIES = "categories.parquet"
POOL_FACTOR = 10  # rows looked at for each row asked: ten rounds of fresh rows, and a category of 1% is seen
SCHEMA = pa.schema([("key", pa.string()), ("category", pa.string())])


class _Named(Reply):
    category: str


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the endpoint said."""

    categories: dict[str, str]
    """By id."""
    errors: dict[str, str]
    """By id: rows without a category."""
    known: dict[str, str]
    """By content, earlier iterations' included: what `write_known` publishes."""


def presample(ids: Iterable[str], sample_size: int) -> frozenset[str]:
    """The rows of a probe that are looked at, POOL_FACTOR for each that is asked; all of a smaller probe.

    The choice depends on the ids alone, not on iteration or order: rounds stay within rows that are paid for already,
    and when some are left out (they trained the model), the next ones in line step in.
    """
    chosen = heapq.nsmallest(POOL_FACTOR * sample_size, ids, key=lambda i: (derive(0, "categorise", i), i))
    return frozenset(chosen)


def content_key(endpoint: Endpoint, taxonomy: Sequence[str], question: Question) -> str:
    """What a row is known by."""
    return digest(
        prompt("categorise").sha256, endpoint.model, digest(*taxonomy), digest(question.image), question.question
    )


def read_known(store: Store, folder: str | None) -> dict[str, str]:
    """Categories by content that the diagnosis in `folder` knew; empty without one."""
    if folder is None:
        return {}
    with TemporaryDirectory() as name:
        path = Path(name) / CATEGORIES
        try:
            store.download(join(folder, CATEGORIES), path)
        except NotFound:
            return {}
        table = pq.read_table(path, schema=SCHEMA)
    return dict(zip(table["key"].to_pylist(), table["category"].to_pylist(), strict=True))


def write_known(known: Mapping[str, str], path: Path) -> None:
    """Write them, sorted, so that equal knowledge is an equal file."""
    keys = sorted(known)
    pq.write_table(pa.table([keys, [known[k] for k in keys]], schema=SCHEMA), path, compression="zstd")


def _reply(taxonomy: Sequence[str]) -> type[_Named]:
    """The reply whose schema lists the categories."""
    allowed: Any = Literal[tuple(taxonomy)]
    return cast(type[_Named], create_model("Category", __base__=_Named, category=(allowed, ...)))


async def assign(
    endpoint: Endpoint,
    settings: Categorise,
    rows: Iterable[Question],
    total: int,
    ledger: Ledger,
    *,
    known: Mapping[str, str],
    max_error_rate: float,
    fit: Callable[[bytes], bytes] = bytes,
) -> Assigned:
    """Categories of `rows`, `total` of them, which may come from disk one by one. `fit` makes an image small enough.

    Transient "ErrorRate" when more than `max_error_rate` of them fail, "EndpointDown" when the endpoint is dead;
    BadConfig when it takes neither key nor address. Once all were looked at, rows that failed stay without a category
    in this ledger: which rows are drawn, and so which answers are asked for, must be the same in each attempt.
    """
    template, taxonomy = prompt("categorise"), settings.taxonomy
    listed = "\n".join(f"- {name}" for name in taxonomy)
    failed = Failures("rows got no category", total, math.floor(max_error_rate * total))
    found: dict[str, str] = {}
    earlier = {row["id"]: row["category"] for row in ledger}
    given_up = {key for key, category in earlier.items() if category is None}
    learnt = dict(known) | {key: category for key, category in earlier.items() if category is not None}
    unseen: dict[str, str] = {}  # content that failed now, by id

    def unknown() -> Iterator[tuple[str, Question]]:
        for row in rows:
            key = content_key(endpoint, taxonomy, row)
            if key in learnt:
                found[row.id] = learnt[key]
            elif key in given_up:
                failed.messages[row.id] = "an earlier attempt got no category for it"
            else:
                yield key, row

    async with ModelClient.of(endpoint) as client:
        asker = Asker(client, _reply(taxonomy), max_tokens=endpoint.max_tokens)

        async def look(item: tuple[str, Question]) -> None:
            key, row = item
            text = template.fill(taxonomy=listed, **marked(question=row.question))
            try:
                image = await asyncio.to_thread(fit, row.image)
                reply, cost = await asker.ask(text, image=image, system=template.system)
            except RequestFailed as error:
                failed.add(row.id, error)
                unseen[row.id] = key
            else:
                found[row.id] = learnt[key] = reply.category
                await asyncio.to_thread(ledger.append, {"id": key, "category": reply.category, **cost.columns()})

        await each(unknown(), look, client.concurrency)
    for key in unseen.values():
        await asyncio.to_thread(ledger.append, {"id": key, "category": None})
    return Assigned(found, failed.messages, learnt)
