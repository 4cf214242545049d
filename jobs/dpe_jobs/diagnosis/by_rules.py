"""Weaknesses without an endpoint: slices and confusions, put into words. Counts and examples are those of the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dpe_api.artifacts import Confusion, Slice, Weakness
from dpe_jobs.diagnosis.confusions import told as told_as

EXAMPLES = 5  # ids of a weakness
LEAST_CONFUSED = 2  # a confusion that was seen once is no pattern


@dataclass(frozen=True, slots=True)
class WrongRow:
    """A wrong greedy answer, as graders and facets tell it."""

    id: str
    category: str
    facets: Mapping[str, str] = field(default_factory=dict)
    expected: str | None = None
    """The right answer, normalised."""
    claim: str | None = None
    """The answer that was given, normalised."""


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def slice_text(found: Slice) -> str:
    """A slice in words."""
    facets = " and ".join(f"{key.replace('_', ' ')} is {value}" for key, value in found.facets.items())
    where = f"questions where {facets}" if facets else "the whole category"
    others = "of other categories" if not found.facets else "of the others" if found.category else "of all others"
    return f"{where}: {_percent(found.accuracy.value)} right, {_percent(found.rest)} {others}"


def confusion_text(found: Confusion) -> str:
    """A confusion in words."""
    if not found.given:
        return f"gives no readable answer where {found.expected!r} is right"
    return f"answers {found.given!r} where {found.expected!r} is right"


def _holds(found: Slice, row: WrongRow) -> bool:
    return all(row.facets.get(key) == value for key, value in found.facets.items())


def by_rules(
    slices: Sequence[Slice], confusions: Sequence[Confusion], wrong: Sequence[WrongRow], *, per_category: int
) -> list[Weakness]:
    """At most `per_category` weaknesses of each category, slices first, both in the order in which they come.

    A slice over all categories is told in each category that has wrong answers in it, with that category's count.
    """
    by_category: dict[str, list[WrongRow]] = {}
    for row in wrong:
        by_category.setdefault(row.category, []).append(row)
    return [
        weakness
        for category in sorted(by_category)
        for weakness in _of_category(category, slices, confusions, by_category[category])[:per_category]
    ]


def _of_category(
    category: str, slices: Sequence[Slice], confusions: Sequence[Confusion], rows: Sequence[WrongRow]
) -> list[Weakness]:
    told = [
        (slice_text(found), [row.id for row in rows if _holds(found, row)])
        for found in slices
        if found.category in (None, category)
    ]
    for pair in confusions:
        if pair.category == category and pair.count >= LEAST_CONFUSED:
            alike = (pair.expected, pair.given)
            ids = [row.id for row in rows if (told_as(row.expected), told_as(row.claim)) == alike]
            told.append((confusion_text(pair), ids))
    return [
        Weakness(category=category, text=text, count=len(ids), examples=ids[:EXAMPLES]) for text, ids in told if ids
    ]
