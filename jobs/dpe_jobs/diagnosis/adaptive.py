"""Where the last rows of a sample are asked: where the intervals are widest. Pure.

Only which *categories* get more rows depends on answers; within a category rows come in the seeded order. Shares of a
category stay nearly unbiased: a category whose first answers lie near 1/2 by chance gets more rows, which pull it back,
one whose first answers lie near 0 or 1 by chance gets fewer. docs/diagnosis-accuracy.md has the size of that.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dpe_jobs.diagnosis.intervals import wilson

# pseudo-rows, right and wrong: what the Wilson interval is centred on at 95%; a first answer of 0 or 1 is not believed
_PRIOR = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known of a category."""

    n: int
    """Answered rows."""
    correct: int
    spare: int
    """Rows that may still be asked."""


def _width(answered: Answered, n: float, confidence: float) -> float:
    """Width of the interval that n rows of this accuracy would have."""
    if n == 0:
        return 1.0
    share = (answered.correct + _PRIOR) / (answered.n + 2 * _PRIOR)
    low, high = wilson(np.float64(share * n), n, confidence)
    return float(high - low)


def allocate(categories: Mapping[str, Answered], rows: int, confidence: float) -> dict[str, int]:
    """How many more rows of each category: one after the other where the interval is then widest, ties by name.

    Sums to min(rows, all spare ones). O((rows + C) log C).
    """
    given = dict.fromkeys(sorted(categories), 0)
    queue = [(-_width(c, c.n, confidence), name) for name, c in categories.items() if c.spare]
    heapq.heapify(queue)
    for _ in range(rows):
        if not queue:
            break
        _, name = queue[0]
        given[name] += 1
        category = categories[name]
        if given[name] < category.spare:
            heapq.heapreplace(queue, (-_width(category, category.n + given[name], confidence), name))
        else:
            heapq.heappop(queue)
    return given
