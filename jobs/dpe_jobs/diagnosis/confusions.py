"""Which answer is given instead of which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpe_api.artifacts import Confusion

MAX_PER_CATEGORY = 100  # of free-form answers nearly every wrong one is different
MAX_TEXT = 200  # characters of an answer that tell it from others


def told(answer: str | None) -> str:
    """An answer as a confusion has it; "" where none could be read."""
    return (answer or "")[:MAX_TEXT]


def count(category: Sequence[str], expected: Sequence[str], given: Sequence[str | None]) -> list[Confusion]:
    """How often each answer was given instead of each other one; by category, most frequent first.

    One entry per wrong answer, normalised: pairs of equal texts are no confusion and are left out. Where the model gave
    no answer that could be read, `given` is None, and "" in the result. At most MAX_PER_CATEGORY pairs of a category.
    """
    pairs = Counter(
        (name, told(right), told(said))
        for name, right, said in zip(category, expected, given, strict=True)
        if right != said
    )
    by_category: dict[str, list[Confusion]] = {}
    for (name, right, said), times in sorted(pairs.items(), key=lambda item: (item[0][0], -item[1], item[0])):
        found = by_category.setdefault(name, [])
        if len(found) < MAX_PER_CATEGORY:
            found.append(Confusion(category=name, expected=right, given=said, count=times))
    return [confusion for found in by_category.values() for confusion in found]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Answers of one category: rows by the expected answer, columns by the one given."""

    expected: tuple[str, ...]
    given: tuple[str, ...]
    """The expected ones, then others that were given often."""
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    """By row: answers beyond those columns."""
    unread: tuple[int, ...]
    """By row: no answer could be read."""
    left_out: int
    """Answered rows of the category whose expected answer has no row here."""


def matrix(counts: Mapping[tuple[str, str | None], int], most: int = 12) -> Matrix | None:
    """The matrix of the `most` most frequent expected answers; None where they are not even half of all rows.

    `counts` are answered rows by expected and given answer, both normalised, a right answer with two equal ones.
    """
    rows, columns = Counter[str](), Counter[str]()
    for (right, said), times in counts.items():
        rows[right] += times
        if said:
            columns[said] += times
    expected = sorted(name for name, _ in sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:most])
    shown = sum(rows[name] for name in expected)
    if not shown or 2 * shown < rows.total():
        return None
    foreign = sorted(set(columns) - set(expected), key=lambda name: (-columns[name], name))
    given = [*expected, *sorted(foreign[: max(most - len(expected), 0)])]
    unread = [counts.get((right, None), 0) + counts.get((right, ""), 0) for right in expected]
    cells = [[counts.get((right, said), 0) for said in given] for right in expected]
    return Matrix(
        expected=tuple(expected),
        given=tuple(given),
        counts=tuple(tuple(row) for row in cells),
        others=tuple(rows[right] - sum(row) - none for right, row, none in zip(expected, cells, unread, strict=True)),
        unread=tuple(unread),
        left_out=rows.total() - shown,
    )
