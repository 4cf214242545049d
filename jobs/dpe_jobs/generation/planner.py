"""The programmatic planner: blocks of targets, aimed by the diagnosis's weak slices, spread over the sources.

A block follows from the report, from what became of the targets before it, and from seeds alone.
"""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dpe_api.artifacts import Quota, Slice
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.roles import Aim, Difficulty, Feedback, Order, Target, ordinals
from dpe_jobs.generation.sources import Supply
from dpe_jobs.seeds import derive

MOST_REPEATS = 3  # of a weak value, for each time that another one comes
BARREN = 12  # candidates without one that was kept, after which a value or a source is given up for another one
SILENT = 12  # targets in a row without an answer of their source, after which it gets one a block


def repeats(weak: Slice) -> int:
    """How often a weak value comes for each time that another one does: the ratio of their error rates, rounded.

    clamp(round((1 - accuracy of the slice) / (1 - accuracy of the rest)), 1, 3)
    """
    rest = max(1.0 - weak.rest, 1e-9)
    return min(MOST_REPEATS, max(1, round((1.0 - weak.accuracy.value) / rest)))


def choose_knobs(
    options: Mapping[str, Sequence[str]],
    number: int,
    seed: int,
    weights: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """A value for each knob: every value once, or as often as its weight says, in drawn order, before any comes again.

    A knob may stand for several: their names and values joined by the unit separator.
    """
    chosen = {}
    for name, values in options.items():
        own = (weights or {}).get(name, {})
        deck = [value for value in values for _ in range(own.get(value, 1))]
        block, place = divmod(number, len(deck))
        random.Random(derive(seed, name, block)).shuffle(deck)
        chosen[name] = deck[place]
    return chosen


def barren(tried: Counter[str]) -> bool:
    """Whether so many brought none that another way is better."""
    return not tried[""] and tried.total() >= BARREN


def lively(name: str, values: Sequence[str], feedback: Feedback) -> list[str]:
    """The values of a knob that are worth another try: all of them when none is."""
    good = [v for v in values if not barren(feedback.by_knob.get((name, v), Counter()))]
    return good or list(values)


@dataclass(slots=True)
class _Category:
    """What is remembered of one category between blocks."""

    quota: Quota
    slices: tuple[Slice, ...]
    supplies: tuple[Supply, ...]
    taken: Counter[str]
    """Targets by source."""
    asked: Counter[tuple[str, ...]]
    """Pictures by source and what is looked for there."""


_JOIN = "\x1f"


def _joint(options: Mapping[str, Sequence[str]], slices: Sequence[Slice]) -> dict[str, list[str]]:
    """Knobs, those that a slice of two facets ties together joined into one. Each knob is in one group only."""
    groups: dict[str, list[str]] = {name: list(values) for name, values in options.items()}
    for weak in slices:
        names = sorted(weak.facets)
        if len(names) == 2 and all(name in groups and _JOIN not in name for name in names):
            first, second = (groups.pop(name) for name in names)
            groups[_JOIN.join(names)] = [_JOIN.join((a, b)) for a in first for b in second]
    return groups


def _weights(groups: Mapping[str, Sequence[str]], slices: Sequence[Slice]) -> dict[str, dict[str, int]]:
    """Repeats of the values that lie in a weak slice; of several slices the largest counts."""
    weights: dict[str, dict[str, int]] = {}
    for group, values in groups.items():
        names = group.split(_JOIN)
        for weak in slices:
            if not weak.facets.keys() <= set(names):
                continue
            for value in values:
                if weak.facets.items() <= dict(zip(names, value.split(_JOIN), strict=True)).items():
                    own = weights.setdefault(group, {})
                    own[value] = max(own.get(value, 1), repeats(weak))
    return weights


class RulePlanner:
    """Plans by rules; implements `roles.Planner`."""

    def __init__(self, findings: Findings, supplies: Sequence[Supply], seed: int) -> None:
        """`seed` is that of this round's generation."""
        self._findings, self._seed = findings, seed
        self._categories = {
            quota.name: _Category(
                quota=quota,
                # a strong category's samples are anchors: they are spread evenly
                slices=() if quota.retention else findings.slices(quota.name),
                supplies=tuple(s for s in supplies if s.supplies(quota.name)),
                taken=Counter(),
                asked=Counter(),
            )
            for quota in findings.quotas
        }

    async def plan(self, order: Order) -> list[Target]:
        """The next block of a category."""
        asked: set[str] = set()
        return [self._target(order, order.first + i, asked) for i in range(order.count)]

    def _target(self, order: Order, number: int, asked: set[str]) -> Target:
        """`asked`: the sources that have a target of this block."""
        own = self._categories[order.category]
        supply = self._source(own, order.feedback, asked)
        asked.add(supply.name)
        knobs = self._knobs(own, supply, order.feedback)
        target = Target(
            category=order.category,
            number=number,
            kind=supply.kind,
            source=supply.name,
            knobs=knobs,
            aim=self._aim(own, knobs, number),
            seed=derive(self._seed, order.category, number),
            retention=own.quota.retention,
            difficulty=_difficulty(order.feedback),
            query=" ".join(knobs.values()),
            ordinals=ordinals(own.asked, [(supply.name, wanted) for wanted in supply.looks_for(order.category, knobs)]),
        )
        own.taken[supply.name] += 1
        return target

    @staticmethod
    def _source(own: _Category, feedback: Feedback, asked: Collection[str]) -> Supply:
        """The source that is furthest behind its share; one that brings nothing, or no more, is passed over.

        So is one that gave no answer so often, but for one target of each block, which asks whether it is back.
        """
        good = [
            s
            for s in own.supplies
            if not barren(feedback.by_source.get(s.name, Counter()))
            and (feedback.unanswered[s.name] < SILENT or s.name not in asked)
            and ((limit := s.limit(own.quota.name)) is None or own.taken[s.name] < limit)
        ]
        among = good or own.supplies
        return min(among, key=lambda s: ((own.taken[s.name] + 1) / s.share, own.supplies.index(s)))

    def _knobs(self, own: _Category, supply: Supply, feedback: Feedback) -> dict[str, str]:
        category = own.quota.name
        options = {n: lively(n, v, feedback) for n, v in supply.knobs(category).items()}
        groups = _joint(options, own.slices)
        seed = derive(self._seed, category, "knobs", supply.name)
        chosen = choose_knobs(groups, own.taken[supply.name], seed, _weights(groups, own.slices))
        return {
            name: value
            for group, values in chosen.items()
            for name, value in zip(group.split(_JOIN), values.split(_JOIN), strict=True)
        }

    def _aim(self, own: _Category, knobs: Mapping[str, str], number: int) -> Aim:
        """The weakest slice that the knobs lie in; else one of the category's weaknesses, in proportion."""
        category = own.quota.name
        for weak in own.slices:
            if weak.facets and weak.facets.items() <= knobs.items():
                return self._findings.aim_at(weak, category, knobs)
        return self._findings.aim(category, number, knobs)


def _difficulty(feedback: Feedback) -> Difficulty:
    """Harder when more were too easy than too hard, and the other way round."""
    easy, hard = feedback.rejected["TooEasy"], feedback.rejected["TooHard"]
    if easy == hard:
        return Difficulty.SAME
    return Difficulty.HARDER if easy > hard else Difficulty.EASIER
