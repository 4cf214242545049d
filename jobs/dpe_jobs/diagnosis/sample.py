"""Which questions are asked: rows of the probe that this round has not seen, all of a benchmark, or named rows."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpe_api.artifacts import AnswerType, InputRef
from dpe_api.diagnosis_spec import Probe
from dpe_jobs.diagnosis.trained import Trained
from dpe_jobs.questions import Question, read_questions, write_questions
from dpe_jobs.runtime import BadData
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

PROBE = "probe"
PAIRED = "probe_paired"
"""In an evaluation: the rows that its diagnosis asked. No benchmark is called so, their names have no underscore."""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions of one set that are asked, on the local disk."""

    name: str
    """PROBE, PAIRED, or the benchmark's name."""
    source: InputRef
    ids: tuple[str, ...]
    """Asked rows."""
    categories: tuple[str, ...]
    """All categories of the set, also those without an asked row; sorted."""
    path: Path
    """Parquet file with the asked rows and the spare ones."""
    rollouts: int
    """Sampled answers per row, beside the greedy one."""
    spare: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further rows by category, in the order in which they are asked."""
    adaptive: int = 0
    """How many of the spare rows are asked."""
    excluded: int = 0
    """Rows that are not asked because they trained the model."""
    uncategorised: int = 0
    """Rows that are not asked because the endpoint gave them no category."""

    @property
    def asked_as(self) -> str:
        """Whose answers these are: a row that is in PROBE and in PAIRED is asked once."""
        return PROBE if self.name == PAIRED else self.name

    @property
    def size(self) -> int:
        """Rows that are asked when all is done."""
        return len(self.ids) + self.adaptive


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows by category: those asked in any case, and those that may follow."""

    first: Mapping[str, tuple[str, ...]]
    spare: Mapping[str, tuple[str, ...]]
    adaptive: int
    """How many of the spare rows are asked."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The rows asked in any case."""
        return tuple(name for category in sorted(self.first) for name in self.first[category])

    @property
    def all_ids(self) -> frozenset[str]:
        """With the spare ones."""
        return frozenset(self.ids).union(*self.spare.values())


def even_sizes(available: Mapping[str, int], size: int) -> dict[str, int]:
    """How many rows of each category: as even as possible, at most what there is, summing to min(size, all).

    Water-filling; of the rows that do not divide evenly, the first categories by name get one each.
    """
    taken = dict.fromkeys(available, 0)
    left = min(size, sum(available.values()))
    while left:
        open_names = [name for name in sorted(available) if taken[name] < available[name]]
        share = max(left // len(open_names), 1)
        for name in open_names[:left]:
            more = min(share, available[name] - taken[name], left)
            taken[name] += more
            left -= more
    return taken


def draw(available: Mapping[str, Iterable[str]], probe: Probe, seed: int, round_number: int) -> Drawn:
    """The sample of a round: even over the categories, its last part open.

    The seed puts the rows of a category into an order that never changes. Each round begins where the even sample of
    the round before ended, and begins anew at the end: rounds see other rows for as long as there are any. Depends on
    seed, round and ids, not on the order of rows. The spare rows follow in the same order.
    """
    orders = {c: sorted(ids, key=lambda i: (derive(seed, "probe", i), i)) for c, ids in available.items()}
    counts = {c: len(ids) for c, ids in orders.items()}
    size = min(probe.sample_size, sum(counts.values()))
    adaptive = math.floor(probe.adaptive_share * size)
    first, steps = even_sizes(counts, size - adaptive), even_sizes(counts, size)
    for category, order in orders.items():
        start = round_number * steps[category] % len(order) if order else 0
        orders[category] = order[start:] + order[:start]
    return Drawn(
        first={c: tuple(order[: first[c]]) for c, order in orders.items()},
        spare={c: tuple(order[first[c] : first[c] + adaptive]) for c, order in orders.items()},
        adaptive=adaptive,
    )


@dataclass(frozen=True, slots=True)
class Survey:
    """What a pass over a probe finds."""

    ids: tuple[str, ...]
    """Rows that did not train the model."""
    categories: Mapping[str, str]
    """By id; of all rows. Empty where the set was read without categories."""
    excluded: int
    """Rows that trained the model."""
    kinds: frozenset[AnswerType]
    """Of the rows that did not: any of them may be drawn in some round."""


def survey(
    store: Store, uri: str, trained: Trained, *, categories: bool, tell: Callable[[int], object] = bool
) -> Survey:
    """Look at every row of a probe, an id per row in memory. BadData "ProbeExhausted" when all trained the model.

    `tell` is told how many rows were read.
    """
    found: dict[str, str] = {}
    ids: list[str] = []
    kinds: set[AnswerType] = set()
    for question in read_questions(store, uri, categories=categories):
        found[question.id] = question.category
        tell(len(found))
        if not trained.holds(question.id, question.image):
            ids.append(question.id)
            kinds.add(question.answer_type)
    if not ids:
        raise BadData(
            "ProbeExhausted",
            f"all {len(found)} rows of {uri} trained the model: add rows that it was not trained on, or name another "
            "probe",
        )
    return Survey(tuple(ids), found if categories else {}, len(found) - len(ids), frozenset(kinds))


def sample_probe(
    store: Store,
    probe: Probe,
    seen: Survey,
    categories: Mapping[str, str],
    seed: int,
    round_number: int,
    rollouts: int,
    folder: Path,
) -> QuestionSet:
    """The sample of a round, on the local disk.

    `categories` by id: those of the survey, or those that an endpoint assigned; rows of it that trained the model are
    left out, their categories are not.
    """
    names = tuple(sorted(set(categories.values())))
    available: dict[str, list[str]] = {name: [] for name in names}
    for row in seen.ids:
        if row in categories:
            available[categories[row]].append(row)
    drawn = draw(available, probe, seed, round_number)
    written = take(store, PROBE, probe.uri, folder, rollouts=rollouts, only=drawn.all_ids, categories=categories)
    return replace(
        written,
        ids=drawn.ids,
        categories=names,
        spare=drawn.spare,
        adaptive=drawn.adaptive,
        excluded=seen.excluded,
    )


def questions_path(folder: Path, name: str) -> Path:
    """Where the rows of a set are. Apart from other files: a benchmark may be called `items`."""
    return folder / "questions" / f"{name}.parquet"


def take(
    store: Store,
    name: str,
    uri: str,
    folder: Path,
    *,
    rollouts: int = 0,
    only: Collection[str] | None = None,
    categories: Mapping[str, str] | None = None,
    trained: Trained | None = None,
) -> QuestionSet:
    """All rows of a set, or the ones named in `only`: BadData when one of them is gone.

    `categories` by id replace what the column says; rows that `trained` holds are left out and counted.
    """
    ids: list[str] = []
    found: set[str] = set()
    excluded = 0

    def wanted() -> Iterable[Question]:
        nonlocal excluded
        for row in read_questions(store, uri, categories=categories is None, only=only):
            question = row if categories is None else replace(row, category=categories[row.id])
            found.add(question.category)
            if trained is not None and trained.holds(question.id, question.image):
                excluded += 1
                continue
            ids.append(question.id)
            yield question

    path = questions_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_questions(wanted(), path)
    if only is not None and len(ids) + excluded < len(only):
        gone = sorted(set(only) - set(ids))
        raise BadData(
            "QuestionsChanged",
            f"{uri} lacks {len(only) - len(ids) - excluded} rows that were asked before, {gone[0]!r} for one: put the "
            "question set back as it was, or start a new iteration",
        )
    return QuestionSet(name, store.input_ref(uri), tuple(ids), tuple(sorted(found)), path, rollouts, excluded=excluded)
