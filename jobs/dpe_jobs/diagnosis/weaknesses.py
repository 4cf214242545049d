"""From wrong answers to weaknesses, by an endpoint that looks at them.

1. It looks at a seeded sample of the wrong answers, spread evenly over the categories, and says of each what kind of
   error it is and, in a line, what ability is lacking.
2. Per category, it groups the lines. It may only cite their numbers: counts and examples are taken from the lines, so
   they are exact, and nothing can be made up but the wording.

Both together take at most maxCalls calls. What it fails on is counted, not guessed. Without an endpoint: by_rules.py.
"""

import asyncio
import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, create_model

from dpe_api.artifacts import Weakness
from dpe_api.diagnosis_spec import Attribution
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import Budget, BudgetSpent, EndpointDown, ModelClient, RequestFailed
from dpe_jobs.diagnosis.sample import even_sizes
from dpe_jobs.endpoints.each import Failures, each
from dpe_jobs.endpoints.structured import Asker, Line, MalformedReply, Reply
from dpe_jobs.endpoints.texts import digest, marked
from dpe_jobs.ledger import Ledger
from dpe_jobs.prompts import prompt
from dpe_jobs.questions import batch_rows, open_parquet
from dpe_jobs.runtime import Transient
from dpe_jobs.seeds import derive

log = logging.getLogger(__name__)

EXAMPLES = 5  # ids of a weakness
MOST_LINES = 200  # different lines of a category that are merged, the most frequent ones

Fit = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong greedy answer."""

    id: str
    category: str
    question: str
    answer: str
    response: str


@dataclass(frozen=True, slots=True)
class Note:
    """What the endpoint said of one wrong answer."""

    error_type: str
    text: str


@dataclass(frozen=True, slots=True)
class Attributed:
    """What the endpoint said of the wrong answers."""

    lines: dict[str, Note]
    """By id."""
    weaknesses: list[Weakness]
    """By category, most frequent first."""
    failed: dict[str, str]
    """By id: wrong answers that it was asked about without a usable reply."""
    unmerged: list[str]
    """Categories whose lines could not be grouped by the endpoint: equal lines were counted."""

    @property
    def looked_at(self) -> int:
        """Wrong answers with a line."""
        return len(self.lines)

    def error_types(self, wrong: Sequence[Wrong]) -> dict[str, dict[str, int]]:
        """Counts by category and error type."""
        counts: dict[str, Counter[str]] = {}
        for item in wrong:
            if item.id in self.lines:
                counts.setdefault(item.category, Counter())[self.lines[item.id].error_type] += 1
        return {category: dict(counts[category].most_common()) for category in sorted(counts)}


class _Look(Reply):
    error_type: str
    weakness: Line


class _Group(Reply):
    text: Line
    lines: list[int]


class _Groups(Reply):
    weaknesses: list[_Group]


def _look_reply(error_types: Sequence[str]) -> type[_Look]:
    allowed: Any = Literal[tuple(error_types)]
    return cast(type[_Look], create_model("ErrorType", __base__=_Look, error_type=(allowed, ...)))


def _merge_reply(count: int, most: int) -> type[_Groups]:
    """Groups of the lines 1 to `count`, `most` groups."""
    number = Annotated[int, Field(ge=1, le=count)]
    cited = Annotated[list[number], Field(min_length=1, max_length=count)]
    group = create_model("Group", __base__=_Group, lines=(cited, ...))
    groups = Annotated[list[group], Field(min_length=1, max_length=most)]
    return cast(type[_Groups], create_model("Groups", __base__=_Groups, weaknesses=(groups, ...)))


def choose(wrong: Sequence[Wrong], size: int, seed: int) -> list[Wrong]:
    """`size` of the wrong answers, evenly over the categories. Depends on the seed and the ids, not on the order."""
    by_category: dict[str, list[Wrong]] = {}
    for item in wrong:
        by_category.setdefault(item.category, []).append(item)
    sizes = even_sizes({name: len(items) for name, items in by_category.items()}, size)
    return [
        item
        for name in sorted(by_category)
        for item in sorted(by_category[name], key=lambda w: (derive(seed, "attribution", w.id), w.id))[: sizes[name]]
    ]


def _images(path: Path, wanted: Mapping[str, Wrong]) -> Iterator[tuple[Wrong, bytes]]:
    """The chosen rows with their images, a few in memory at a time."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_rows(file), columns=["id", "image"]):
            for number, name in enumerate(batch["id"].to_pylist()):
                if name in wanted:
                    yield wanted[name], batch["image"][number].as_py()["bytes"]


async def attribute(
    endpoint: Endpoint,
    settings: Attribution,
    wrong: Sequence[Wrong],
    questions: Path,
    ledger: Ledger,
    *,
    seed: int,
    fit: Fit = bytes,
) -> Attributed:
    """Lines, weaknesses, failures. `questions` is a Parquet file with id and image; `fit` makes an image small enough.

    Transient "EndpointDown" when the endpoint is dead; BadConfig when it takes neither key nor address.
    """
    categories = len({item.category for item in wrong})
    merges = min(categories, settings.max_calls // 2)  # with few calls, rather lines than groups
    chosen = choose(wrong, settings.max_calls - merges, seed)
    # the calls of earlier attempts are spent; those of an earlier iteration are no calls of this one
    left = settings.max_calls - sum(row["calls"] for row in ledger)
    merges -= sum("groups" in row and row["calls"] > 0 for row in ledger)
    async with ModelClient.of(endpoint) as client:
        looks = Budget(max(left - max(merges, 0), 0))
        before = looks.left
        lines, failed = await _look(client, endpoint, settings, chosen, questions, ledger, looks, fit)
        rest = Budget(max(left - (before - looks.left), 0))
        weaknesses, unmerged = await _merge(client, endpoint, settings, chosen, lines, ledger, rest)
    if unmerged:
        log.warning("equal lines were counted instead of grouped in %s", ", ".join(unmerged))
    return Attributed(lines, weaknesses, failed, unmerged)


def _look_id(endpoint: Endpoint, settings: Attribution, item: Wrong) -> str:
    types = digest(*settings.error_types)
    return digest(prompt("error").sha256, endpoint.model, types, item.id, item.question, item.answer, item.response)


async def _look(
    client: ModelClient,
    endpoint: Endpoint,
    settings: Attribution,
    chosen: Sequence[Wrong],
    questions: Path,
    ledger: Ledger,
    budget: Budget,
    fit: Fit,
) -> tuple[dict[str, Note], dict[str, str]]:
    """Lines and failures by id. A reply that was paid for and not usable is in the ledger, and not asked for again."""
    template = prompt("error")
    types = "\n".join(f"- {name}" for name in settings.error_types)
    asker = Asker(client, _look_reply(settings.error_types), max_tokens=endpoint.max_tokens, budget=budget)
    failures = Failures("wrong answers could not be attributed", len(chosen), len(chosen))
    keys = {item.id: _look_id(endpoint, settings, item) for item in chosen}
    todo = {item.id: item for item in chosen if keys[item.id] not in ledger}

    async def look(work: tuple[Wrong, bytes]) -> None:
        item, image = work
        texts = marked(question=item.question, answer=item.answer, response=item.response)
        said: dict[str, object] = {"error_type": None, "text": None}
        try:
            small = await asyncio.to_thread(fit, image)
            reply, cost = await asker.ask(
                template.fill(error_types=types, **texts), image=small, system=template.system
            )
            said = {"error_type": reply.error_type, "text": reply.weakness}
        except BudgetSpent:
            return
        except MalformedReply as error:
            failures.add(item.id, error)
            cost, said["error"] = error.cost, str(error)
        except RequestFailed as error:
            failures.add(item.id, error)
            return
        await asyncio.to_thread(ledger.append, {"id": keys[item.id], **said, **cost.columns()})

    await each(_images(questions, todo), look, client.concurrency)
    lines, failed = {}, dict(failures.messages)
    for item in chosen:
        row = ledger.get(keys[item.id])
        if row is not None and row["error_type"] is not None:
            lines[item.id] = Note(row["error_type"], row["text"])
        elif row is not None:
            failed[item.id] = row["error"]
    return lines, failed


def _same(text: str) -> str:
    """What equal lines have in common."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" .,;:!?\"'")


@dataclass(frozen=True, slots=True)
class _Distinct:
    """Equal lines of a category."""

    text: str
    ids: tuple[str, ...]


def _distinct(ids: Iterable[str], lines: Mapping[str, Note]) -> list[_Distinct]:
    """Different lines, the most frequent first; in the words of the first of them."""
    groups: dict[str, list[str]] = {}
    for name in ids:
        groups.setdefault(_same(lines[name].text), []).append(name)
    found = [_Distinct(lines[names[0]].text, tuple(names)) for names in groups.values()]
    return sorted(found, key=lambda d: (-len(d.ids), d.text))


def _weakness(category: str, text: str, ids: Sequence[str], lines: Mapping[str, Note]) -> Weakness:
    kinds = Counter(lines[name].error_type for name in ids)
    kind = min(kinds, key=lambda k: (-kinds[k], k))
    return Weakness(category=category, text=text, error_type=kind, count=len(ids), examples=list(ids[:EXAMPLES]))


async def _merge(
    client: ModelClient,
    endpoint: Endpoint,
    settings: Attribution,
    chosen: Sequence[Wrong],
    lines: Mapping[str, Note],
    ledger: Ledger,
    budget: Budget,
) -> tuple[list[Weakness], list[str]]:
    """Weaknesses of all categories, and the categories in which equal lines were counted."""
    by_category: dict[str, list[str]] = {}
    for item in chosen:
        if item.id in lines:
            by_category.setdefault(item.category, []).append(item.id)
    found: dict[str, list[Weakness]] = {}
    unmerged: list[str] = []

    async def merge(category: str) -> None:
        distinct = _distinct(by_category[category], lines)
        groups = await _groups(client, endpoint, settings, category, distinct[:MOST_LINES], ledger, budget)
        if groups is None:
            unmerged.append(category)
            groups = [(d.text, list(d.ids)) for d in distinct]
        some = [_weakness(category, text, ids, lines) for text, ids in groups]
        some.sort(key=lambda w: (-w.count, w.text))
        found[category] = some[: settings.weaknesses_per_category]

    # the largest first: theirs are the groups that are worth a call when calls are few
    order = sorted(by_category, key=lambda c: (-len(by_category[c]), c))
    await each(order, merge, client.concurrency)
    return [w for category in sorted(found) for w in found[category]], sorted(unmerged)


async def _groups(
    client: ModelClient,
    endpoint: Endpoint,
    settings: Attribution,
    category: str,
    distinct: Sequence[_Distinct],
    ledger: Ledger,
    budget: Budget,
) -> list[tuple[str, list[str]]] | None:
    """Text and ids of each group; None when the endpoint could not be asked or gave no usable reply."""
    if len(distinct) == 1:
        return [(distinct[0].text, list(distinct[0].ids))]
    template, most = prompt("merge"), settings.weaknesses_per_category
    listed = "\n".join(f"{n}. {d.text} ({len(d.ids)} answers)" for n, d in enumerate(distinct, 1))
    key = digest(template.sha256, endpoint.model, str(most), category, listed)
    row = ledger.get(key)
    if row is None:
        asker = Asker(client, _merge_reply(len(distinct), most), max_tokens=endpoint.max_tokens, budget=budget)
        groups: list[dict[str, object]] | None = None
        try:
            reply, cost = await asker.ask(
                template.fill(category=category, most=str(most), lines=listed), system=template.system
            )
            groups = [{"text": g.text, "lines": g.lines} for g in reply.weaknesses]
        except MalformedReply as error:
            log.warning("weaknesses of %s: %s", category, error)
            cost = error.cost
        except EndpointDown as error:
            raise Transient("EndpointDown", str(error)) from error
        except RequestFailed as error:
            log.warning("weaknesses of %s: %s", category, error)
            return None
        row = {"id": key, "groups": groups, **cost.columns()}
        await asyncio.to_thread(ledger.append, row)
    return None if row["groups"] is None else _cited(row["groups"], distinct)


def _cited(groups: Iterable[Mapping[str, Any]], distinct: Sequence[_Distinct]) -> list[tuple[str, list[str]]]:
    """Ids of each group's lines. A line that is cited twice belongs to the first group that cites it."""
    used: set[int] = set()
    found = []
    for group in groups:
        numbers = [n for n in dict.fromkeys(group["lines"]) if n not in used]
        used.update(numbers)
        ids = [name for n in numbers for name in distinct[n - 1].ids]
        if ids:
            found.append((group["text"], ids))
    return found
