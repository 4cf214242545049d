"""Which answer is given instead of which."""

from collections import Counter
from collections.abc import Sequence

from dpe_api.artifacts import Confusion

MAX_PER_CATEGORY = 100  # of free-form answers nearly every wrong one is different
MAX_TEXT = 200  # characters of an answer that tell it from others


def count(category: Sequence[str], expected: Sequence[str], given: Sequence[str | None]) -> list[Confusion]:
    """How often each answer was given instead of each other one; by category, most frequent first.

    One entry per wrong answer, normalised: pairs of equal texts are no confusion and are left out. Where the model gave
    no answer that could be read, `given` is None, and "" in the result. At most MAX_PER_CATEGORY pairs of a category.
    """
    pairs = Counter(
        (name, right[:MAX_TEXT], (said or "")[:MAX_TEXT])
        for name, right, said in zip(category, expected, given, strict=True)
        if right != said
    )
    by_category: dict[str, list[Confusion]] = {}
    for (name, right, said), times in sorted(pairs.items(), key=lambda item: (item[0][0], -item[1], item[0])):
        found = by_category.setdefault(name, [])
        if len(found) < MAX_PER_CATEGORY:
            found.append(Confusion(category=name, expected=right, given=said, count=times))
    return [confusion for found in by_category.values() for confusion in found]
