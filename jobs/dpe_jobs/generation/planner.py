"""The programmatic planner: quotas become targets, wave after wave, until they are met or the budget is used.

Each wave follows from what became of the earlier ones and from seeds alone, and is settled in its own order: a run that
was killed and resumed plans, draws and keeps the same samples as one that was not.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dpe_api.artifacts import CategorySamples, Quota
from dpe_jobs.generation.render import Generator, choose_program
from dpe_jobs.runtime import BadConfig
from dpe_jobs.seeds import derive

NO_GENERATOR = "NoGenerator"
BUDGET_USED = "MaxCandidates"
SUPPLY_USED = "Supply"
SURPLUS = "Surplus"


@dataclass(frozen=True, slots=True)
class Target:
    """One sample to make."""

    category: str
    number: int
    """Within its category, from 0, over all waves."""
    knobs: Mapping[str, str]
    """What the program is told to draw and to ask."""
    weakness: str
    """What the diagnosis found, in words."""
    retention: bool
    """A strong category: whatever its difficulty, it is kept."""
    seed: int
    """Of everything else that is drawn for it."""


@dataclass(slots=True)
class Tally:
    """How far one category is."""

    quota: int
    cap: int
    """Most candidates: its share of maxCandidates, so that a hopeless category starves no other."""
    program: Generator | None
    retention: bool
    weakness: str
    scarce: bool = False
    """All sources together supply less than the target: the quota is all that can be had."""
    planned: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def shortfall_reason(self) -> str | None:
        """Why there are not more, or None. Without a program there are none, whoever got the quota."""
        if self.program is None:
            return NO_GENERATOR
        if self.kept < self.quota:
            return BUDGET_USED
        return SUPPLY_USED if self.scarce else None

    def wave(self) -> int:
        """How many candidates to try next: what is missing, divided by the share kept so far (Laplace 1814)."""
        missing = self.quota - self.kept
        if missing <= 0 or self.program is None:
            return 0
        kept_share = (self.kept + 1) / (self.planned + 2) if self.planned else 1.0
        return min(math.ceil(missing / kept_share), self.cap - self.planned)


def choose_knobs(options: Mapping[str, Sequence[str]], number: int, seed: int) -> dict[str, str]:
    """A value for each knob: every value once, in drawn order, before any comes again."""
    chosen = {}
    for name, values in options.items():
        block, place = divmod(number, len(values))
        order = list(values)
        random.Random(derive(seed, name, block)).shuffle(order)
        chosen[name] = order[place]
    return chosen


class Plan:
    """The quotas of one iteration and how far they are met."""

    def __init__(
        self,
        quotas: Sequence[Quota],
        programs: Sequence[Generator],
        weaknesses: Mapping[str, str],
        max_candidates: int,
        seed: int,
        target: int | None = None,
    ) -> None:
        """`seed` is that of this round's generation; `target` is what is wanted, when the quotas may be less.

        BadConfig: the programs can supply none of the categories.
        """
        # a category that no source supplies has no quota, and is still told of
        wanted = [quota for quota in quotas if quota.quota > 0 or quota.supply == 0]
        planned = sum(quota.quota for quota in wanted)
        self._seed = seed
        self.target = planned if target is None else target
        """Samples wanted."""
        self.tallies = {
            q.name: Tally(
                quota=q.quota,
                cap=max_candidates * q.quota // max(planned, 1),
                program=choose_program(programs, q.name),
                retention=q.retention,
                weakness=weaknesses.get(q.name, "never asked"),
                scarce=planned < self.target,
            )
            for q in wanted
        }
        if all(tally.program is None for tally in self.tallies.values()):
            supplied = sorted({c for program in programs for c in program.categories()})
            raise BadConfig(
                NO_GENERATOR,
                f"spec.generation.sources: {', '.join(p.name for p in programs)} can supply {', '.join(supplied)}; the "
                f"probe's categories are {', '.join(self.tallies)}: add a source for them, or use their names",
            )

    @property
    def kept(self) -> int:
        """Samples kept so far."""
        return sum(tally.kept for tally in self.tallies.values())

    def next_wave(self) -> list[Target]:
        """Targets to try next; empty when every quota is met or has used its part of the budget."""
        wave = []
        for category, tally in self.tallies.items():
            count = tally.wave()
            wave += [self._target(category, tally, tally.planned + i) for i in range(count)]
            tally.planned += count
        return wave

    def _target(self, category: str, tally: Tally, number: int) -> Target:
        assert tally.program is not None
        return Target(
            category=category,
            number=number,
            knobs=choose_knobs(tally.program.knobs(category), number, derive(self._seed, category, "knobs")),
            weakness=tally.weakness,
            retention=tally.retention,
            seed=derive(self._seed, category, number),
        )

    def settle(self, category: str, reason: str | None) -> str | None:
        """Count one candidate, in the order of its wave; `reason` is that of its rejection.

        Returns the final reason, None when it is kept: what passes after the quota is full is surplus.
        """
        tally = self.tallies[category]
        if reason is None and tally.kept >= tally.quota:
            reason = SURPLUS
        if reason is None:
            tally.kept += 1
        else:
            tally.rejected[reason] += 1
        return reason

    def report(self) -> list[CategorySamples]:
        """What became of each quota."""
        return [
            CategorySamples(
                name=name,
                quota=tally.quota,
                candidates=tally.planned,
                kept=tally.kept,
                rejected=dict(sorted(tally.rejected.items())),
                shortfall_reason=tally.shortfall_reason,
            )
            for name, tally in self.tallies.items()
        ]
