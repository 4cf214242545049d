"""Accuracy over rounds: of the model that stood, and of each candidate. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from dpe_api.artifacts import Interval
from dpe_jobs.rounds.read import RoundFound


@dataclass(frozen=True, slots=True)
class Point:
    """A model on one category, or on the macro average."""

    round: int
    """0: the model that the first round began with."""
    accuracy: Interval
    accepted: bool = True
    """It stood after its round; a rejected candidate did not."""


@dataclass(frozen=True, slots=True)
class Series:
    """One category over the rounds."""

    name: str
    points: tuple[Point, ...]
    change: Interval | None
    """From the first model to the one that stands now: difference of two intervals on the same items (Newcombe 1998,
    method 10, which takes them as independent: paired items make it wider than it need be)."""
    forgotten: float
    """Best accuracy of an earlier model that stood, minus that of the one that stands now; 0 when it is the best
    (Chaudhry 2018)."""
    lost_in: tuple[int, ...]
    """Rounds whose accepted candidate was worse than its base here, by the paired interval."""
    quotas: tuple[int | None, ...]
    """By round; None: not in the mixture."""
    kept: tuple[int | None, ...]

    @property
    def now(self) -> Interval | None:
        """Accuracy of the model that stands."""
        standing = [p.accuracy for p in self.points if p.accepted]
        return standing[-1] if standing else None


def newcombe(before: Interval, after: Interval) -> Interval:
    """Difference after - before, with an interval from those of both (Newcombe 1998, method 10)."""
    value = after.value - before.value
    low = value - ((after.value - after.low) ** 2 + (before.high - before.value) ** 2) ** 0.5
    high = value + ((after.high - after.value) ** 2 + (before.value - before.low) ** 2) ** 0.5
    return Interval(value=value, low=low, high=high)


def _series(name: str, rounds: Sequence[RoundFound], points: Sequence[Point]) -> Series:
    standing = [p.accuracy for p in points if p.accepted]
    changes = [{c.name: c.delta for c in r.comparison.categories} for r in rounds]
    quotas = [{q.name: q.quota for q in r.diagnosis.quotas} for r in rounds]
    kept = [{c.name: c.kept for c in r.generation.categories} for r in rounds]
    best = max((a.value for a in standing), default=0.0)
    return Series(
        name=name,
        points=tuple(points),
        change=newcombe(standing[0], standing[-1]) if len(standing) > 1 else None,
        forgotten=best - standing[-1].value if standing else 0.0,
        lost_in=tuple(
            number
            for number, (r, change) in enumerate(zip(rounds, changes, strict=True), 1)
            if r.evaluation.accepted and name in change and change[name].high < 0
        ),
        quotas=tuple(q.get(name) for q in quotas),
        kept=tuple(k.get(name) for k in kept),
    )


def comparable(rounds: Sequence[RoundFound]) -> Sequence[RoundFound]:
    """The last rounds that tell accuracy on the same questions: others are no points of one line."""
    first = len(rounds) - 1
    while first and rounds[first - 1].asked_on == rounds[-1].asked_on:
        first -= 1
    return rounds[first:]


def by_category(rounds: Sequence[RoundFound]) -> list[Series]:
    """A series for each category that any round asked, by name."""
    names = {c.name for r in rounds for s in (r.before, r.after) for c in s.categories if c.n}
    found = []
    for name in sorted(names):
        points = [Point(0, c.accuracy) for c in rounds[0].before.categories if c.name == name and c.n]
        for number, r in enumerate(rounds, 1):
            points += [
                Point(number, c.accuracy, r.evaluation.accepted) for c in r.after.categories if c.name == name and c.n
            ]
        found.append(_series(name, rounds, points))
    return found


def macro(rounds: Sequence[RoundFound]) -> Series:
    """The macro average over the rounds."""
    points = [Point(0, rounds[0].before.macro)]
    points += [Point(n, r.after.macro, r.evaluation.accepted) for n, r in enumerate(rounds, 1)]
    lost = tuple(n for n, r in enumerate(rounds, 1) if r.evaluation.accepted and r.comparison.delta.high < 0)
    standing = [p.accuracy for p in points if p.accepted]
    return Series(
        name="macro",
        points=tuple(points),
        change=newcombe(standing[0], standing[-1]) if len(standing) > 1 else None,
        forgotten=max(a.value for a in standing) - standing[-1].value,
        lost_in=lost,
        quotas=tuple(r.generation.target for r in rounds),
        kept=tuple(r.generation.kept for r in rounds),
    )
