"""Before and after on the same items: paired intervals and the gate. Pure functions on numpy arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpe_api.artifacts import CategoryChange, Comparison, Interval, TaskComparison
from dpe_api.evaluation_spec import Gate
from dpe_jobs.diagnosis.intervals import macro, wilson
from dpe_jobs.diagnosis.items import Items
from dpe_jobs.diagnosis.sample import PAIRED, PROBE

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def paired_change(before: Bools, after: Bools, confidence: float) -> Interval:
    """Change of a share on the same n items, with the paired score interval (Newcombe 1998, method 10).

    With Wilson limits l, u of both shares and the phi coefficient of the pairs:
    low = d - sqrt((p2-l2)² - 2 phi (p2-l2)(u1-p1) + (u1-p1)²), high likewise. It is not empty when no item changed.
    """
    n = len(before)
    p1, p2 = float(before.mean()), float(after.mean())
    low, high = wilson([before.sum(), after.sum()], [n, n], confidence)
    l1, l2, u1, u2 = float(low[0]), float(low[1]), float(high[0]), float(high[1])
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    spread = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    phi = 0.0
    if spread:
        cross = both * neither - lost * gained
        # Newcombe's continuity correction, for positive association only
        phi = (max(cross - n / 2, 0) if cross > 0 else cross) / float(np.sqrt(float(spread)))
    down, up = p2 - l2, u1 - p1
    left = np.sqrt(max(down * down - 2 * phi * down * up + up * up, 0.0))
    down, up = p1 - l1, u2 - p2
    right = np.sqrt(max(down * down - 2 * phi * down * up + up * up, 0.0))
    change = p2 - p1
    return Interval(value=change, low=max(change - float(left), -1.0), high=min(change + float(right), 1.0))


def macro_change(changes: Sequence[Interval]) -> Interval:
    """Mean of the changes of categories, which have no item in common: MOVER over their paired intervals.

    A bootstrap within the categories is empty where no answer changed, or where a category has one item, and so lets a
    model that is worse pass by a gate that looks at its low end.
    """
    return macro(changes, least=-1.0)


def pair(before: Items, after: Items, name: str) -> dict[str, tuple[Bools, Bools]]:
    """Greedy answers of both models to the items of one set that both answered, by category.

    Of the probe: the rows that the diagnosis asked, which the evaluation has as the set PAIRED.
    """
    again = PAIRED if name == PROBE else name
    earlier = np.flatnonzero((before.set == name) & before.answered)
    later = {after.id[i]: i for i in np.flatnonzero((after.set == again) & after.answered)}
    by_category: dict[str, list[tuple[bool, bool]]] = {}
    for i in earlier:
        j = later.get(before.id[i])
        if j is not None:
            by_category.setdefault(before.category[i], []).append((bool(before.correct[i]), bool(after.correct[j])))
    return {
        category: (np.array([b for b, _ in found], dtype=bool), np.array([a for _, a in found], dtype=bool))
        for category, found in sorted(by_category.items())
    }


def compare(before: Items, after: Items, name: str, confidence: float) -> Comparison | None:
    """The comparison on one set; None when no item was answered by both models."""
    pairs = pair(before, after, name)
    if not pairs:
        return None
    categories = [
        CategoryChange(
            name=category,
            n=len(b),
            before=float(b.mean()),
            after=float(a.mean()),
            delta=paired_change(b, a, confidence),
        )
        for category, (b, a) in pairs.items()
    ]
    return Comparison(
        name=name,
        n=sum(c.n for c in categories),
        before=float(np.mean([c.before for c in categories])),
        after=float(np.mean([c.after for c in categories])),
        delta=macro_change([c.delta for c in categories]),
        categories=categories,
    )


def _said(name: str, change: Interval) -> str:
    return f"{name} {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _gated(tasks: Sequence[TaskComparison]) -> list[tuple[str, Interval]]:
    """The gains on those tasks of lmms-eval that have a say: the change where higher is better, else its opposite."""
    gains = []
    for task in tasks:
        if not task.gate:
            continue
        if task.delta is None:
            raise ValueError(f"{task.task} has gate, but no paired change")
        d = task.delta
        gains.append((task.task, d if task.higher_is_better else Interval(value=-d.value, low=-d.high, high=-d.low)))
    return gains


def judge(comparisons: Sequence[Comparison], gate: Gate, tasks: Sequence[TaskComparison] = ()) -> tuple[bool, str]:
    """The gate's verdict and its reason in one line.

    Accepted when on every benchmark (without any: on the probe) the low end of the interval of the change in macro
    accuracy is above -maxRegression, and so is that of the gain on every task of lmms-eval that has `gate`.
    """
    benchmarks = [c for c in comparisons if c.name != PROBE]
    looked_at = [(c.name, c.delta) for c in benchmarks or comparisons] + _gated(tasks)
    if not looked_at:
        raise ValueError("nothing to judge by")
    bound = -gate.max_regression
    failed = [(name, change) for name, change in looked_at if not change.low > bound]
    level = f"{gate.confidence:.0%}"
    if failed:
        return False, (
            f"rejected: the low end of the {level} interval is not above {bound:+.3f}: "
            f"{'; '.join(_said(*one) for one in failed)}"
        )
    return True, (
        f"accepted: change in macro accuracy {'; '.join(_said(*one) for one in looked_at)}, low end of the {level} "
        f"interval above {bound:+.3f}"
    )
