"""Which questions are asked: an even, seeded sample of the probe, all of a benchmark, or named rows."""

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dpe_api.artifacts import InputRef
from dpe_jobs.questions import Question, read_questions, write_questions
from dpe_jobs.runtime import BadData
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

PROBE = "probe"


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions of one set that are asked, on the local disk."""

    name: str
    """`probe`, or the benchmark's name."""
    source: InputRef
    ids: tuple[str, ...]
    """Asked rows, in the order of the file."""
    categories: tuple[str, ...]
    """All categories of the set, also those without an asked row; sorted."""
    path: Path
    """Parquet file with the asked rows."""
    rollouts: int
    """Sampled answers per row, beside the greedy one."""


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


def stratify(questions: Iterable[Question], size: int, seed: int) -> tuple[list[Question], tuple[str, ...]]:
    """An even sample over the categories, and all categories. Depends on the seed and the ids, not on the order.

    Each row draws a number from (seed, id); a category's rows with the smallest numbers are taken. At most `size` rows
    of each category are in memory.
    """
    heaps: dict[str, list[tuple[int, str, Question]]] = {}
    seen: dict[str, int] = {}
    for question in questions:
        heap = heaps.setdefault(question.category, [])
        seen[question.category] = seen.get(question.category, 0) + 1
        # heapq keeps the smallest on top: negated, that is the first to go
        entry = (-derive(seed, "probe", question.id), question.id, question)
        if len(heap) < size:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    sizes = even_sizes(seen, size)
    chosen = [
        question
        for category in sorted(heaps)
        for _, _, question in sorted(heaps[category], key=lambda e: (-e[0], e[1]))[: sizes[category]]
    ]
    return chosen, tuple(sorted(seen))


def sample_probe(store: Store, uri: str, size: int, seed: int, rollouts: int, folder: Path) -> QuestionSet:
    """The even sample of a probe. BadData or NotFound when the set is not usable."""
    chosen, categories = stratify(read_questions(store, uri), size, seed)
    path = folder / f"{PROBE}.parquet"
    write_questions(chosen, path)
    return QuestionSet(PROBE, store.input_ref(uri), tuple(q.id for q in chosen), categories, path, rollouts)


def take(
    store: Store, name: str, uri: str, folder: Path, *, rollouts: int = 0, only: Collection[str] | None = None
) -> QuestionSet:
    """All rows of a set, or the ones named in `only`: BadData when one of them is gone."""
    ids: list[str] = []
    categories: set[str] = set()

    def wanted() -> Iterable[Question]:
        for question in read_questions(store, uri):
            categories.add(question.category)
            if only is None or question.id in only:
                ids.append(question.id)
                yield question

    path = folder / f"{name}.parquet"
    write_questions(wanted(), path)
    if only is not None and len(ids) < len(only):
        gone = sorted(set(only) - set(ids))
        raise BadData(
            "QuestionsChanged",
            f"{uri} lacks {len(gone)} rows that the diagnosis asked, {gone[0]!r} for one: put the question set back as "
            "it was, or start a new iteration",
        )
    return QuestionSet(name, store.input_ref(uri), tuple(ids), tuple(sorted(categories)), path, rollouts)
