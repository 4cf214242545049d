"""Which target is begun next, and which candidates are kept: no I/O, no clock.

Candidates are begun and judged in any order and at any pace; what is kept is decided in the order of their numbers, so
that it depends on neither: of each category the first ones that pass, up to its quota. What was begun beyond them, for
nobody knew yet how many would pass, is Surplus.

A category that is out of reach gets samples for a warm-up beside its quota: sound candidates that are too hard or too
easy for GRPO, and those that its quota has no room for. All others get some beside theirs, for retention.
"""

import copy
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dpe_api.artifacts import CategorySamples, Quota
from dpe_api.training_spec import Warmup
from dpe_jobs.generation.roles import Feedback, Order, Rejection, Target

NO_SOURCE = "NoGenerator"
BUDGET_USED = "MaxCandidates"
SUPPLY_USED = "Supply"
SURPLUS = Rejection("Surplus", "")
SMALLEST_BLOCK = 32  # targets: what a planner is asked for at a time, at least


class Decision(NamedTuple):
    """What becomes of a candidate."""

    rejection: Rejection | None
    """None: it is kept."""
    warmup: bool = False
    """It is kept for the warm-up, and not for GRPO."""


@dataclass(slots=True)
class Line:
    """How far one category is. Numbers below `settled` are decided, those below `begun` were begun."""

    category: str
    quota: int
    cap: int
    """Most candidates for the quota: its share of maxCandidates, so that a hopeless category starves no other."""
    warmup: int = 0
    """Samples that are wanted for the warm-up."""
    reachable: bool = True
    """False: out of reach. Its samples for the warm-up are what that is for; those of others are for retention."""
    warmup_cap: int = 0
    """Most candidates for them, beyond `cap`."""
    supplied: bool = True
    """Some source can bring pictures for it."""
    scarce: bool = False
    """All sources together supply less than is wanted: the quota is all that can be had."""
    begun: int = 0
    judged: int = 0
    passed: int = 0
    """Of the judged: without a reason against them."""
    unfit: int = 0
    """Of the judged: sound, and too hard or too easy for GRPO."""
    settled: int = 0
    kept: int = 0
    warmed: int = 0
    """Kept for the warm-up."""
    rejected: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    """Begun, and given up before anything was made: no candidates."""
    ended: str | None = None
    """Why no more are begun although some are missing."""
    feedback: Feedback = field(default_factory=Feedback)
    _queue: deque[Target] = field(default_factory=deque)
    _planned: int = 0
    _planning: bool = False
    _snapshots: dict[int, Feedback] = field(default_factory=dict)
    """Feedback as it was when the key's number was next to be decided."""
    _waiting: dict[int, tuple[bool, bool, bool]] = field(default_factory=dict)
    """Judged and not decided: whether it passed, whether it is unfit, and whether a candidate came of it."""

    def __post_init__(self) -> None:
        self._snapshots[0] = Feedback()

    @property
    def block(self) -> int:
        """Targets that are planned at a time."""
        return max(SMALLEST_BLOCK, math.ceil((self.quota + self.warmup) / 2))

    @property
    def met(self) -> bool:
        """The quota is met."""
        return self.kept >= self.quota

    @property
    def closed(self) -> bool:
        """The quota takes no more: it is met, or its candidates are used up."""
        return self.met or self.settled >= self.cap

    @property
    def full(self) -> bool:
        """The quota takes no more, and the warm-up has what it asks for."""
        return self.closed and self.warmed >= self.warmup

    @property
    def open(self) -> int:
        """Begun and not decided."""
        return self.begun - self.settled

    @property
    def candidates(self) -> int:
        """Targets that something was made of."""
        return self.settled - self.dropped

    @property
    def shortfall_reason(self) -> str | None:
        """Why there are not more, or None."""
        if not self.supplied:
            return NO_SOURCE
        if not self.met:
            return self.ended or BUDGET_USED
        return SUPPLY_USED if self.scarce else None

    def wanted(self) -> int:
        """How many more to begin now: what is missing, divided by the share that passed so far.

        By the rule of succession (Laplace 1814), once one has failed: where all pass, none is begun beyond the need.
        """
        if not self.supplied or self.full or self.ended:
            return 0
        spare = max(self.passed - self.quota, 0)  # the warm-up takes these as well
        return max(
            self._more(self.quota - self.passed, self.passed, self.cap),
            self._more(self.warmup - self.unfit - spare, self.passed + self.unfit, self.cap + self.warmup_cap),
        )

    def _more(self, missing: int, good: int, cap: int) -> int:
        if missing <= 0:
            return 0
        share = (good + 1) / (self.judged + 2) if good < self.judged else 1.0
        return min(math.ceil(missing / share) - (self.begun - self.judged), cap - self.begun)

    def order(self) -> Order | None:
        """The next block that its planner is to be asked for, when it is needed and may be planned."""
        if self._planning or self._queue or self.wanted() <= 0:
            return None
        # one block behind: while the planner learns from a block, the next one is under way
        feedback = self._snapshots.get(max(0, self._planned - self.block))
        if feedback is None:
            return None
        self._planning = True
        most = self.cap + self.warmup_cap
        return Order(self.category, self._planned, min(self.block, most - self._planned), feedback)

    def plan(self, targets: Sequence[Target]) -> None:
        """Take in what the planner said to the last order."""
        expected = range(self._planned, self._planned + len(targets))
        if not targets or any(
            t.category != self.category or t.number != n for t, n in zip(targets, expected, strict=True)
        ):
            raise ValueError(f"the plan of {self.category} from {self._planned} has other categories or numbers")
        self._snapshots = {n: f for n, f in self._snapshots.items() if n >= self._planned}
        self._queue.extend(targets)
        self._planned += len(targets)
        self._planning = False

    def begin(self) -> Target | None:
        """The next target to begin; None when none is wanted or none is planned."""
        if not self._queue or self.wanted() <= 0:
            return None
        self.begun += 1
        return self._queue.popleft()

    def judge(self, number: int, *, passed: bool, unfit: bool = False, made: bool = True) -> None:
        """A verdict has come. `unfit`: it is sound, and nothing for GRPO. `made`: a candidate came of the target."""
        self.judged += 1
        self.passed += passed
        self.unfit += unfit
        self._waiting[number] = passed, unfit, made

    @property
    def next_is_judged(self) -> bool:
        """The lowest undecided number may be decided."""
        return self.settled in self._waiting

    def settle(self, target: Target, rejection: Rejection | None, unfit: Rejection | None = None) -> Decision:
        """Decide on the lowest undecided number. `unfit` is why GRPO cannot use a sound candidate."""
        if target.number != self.settled:
            raise ValueError(f"{self.category} {target.number} is decided before {self.settled}")
        passed, was_unfit, made = self._waiting.pop(self.settled)
        if rejection is not None:  # perhaps only now: it was found to repeat an earlier one
            self.passed -= passed
            self.unfit -= was_unfit
        warmup = made and rejection is None and (unfit is not None or self.closed) and self.warmed < self.warmup
        rejection = rejection or unfit
        if warmup:
            self.warmed += 1
            rejection = None
        elif not made:
            self.dropped += 1
            rejection = SURPLUS
        elif self.full:  # whatever it is: how many there are depends on who was faster
            rejection = Rejection(SURPLUS.reason, ": ".join(rejection or ("it passed", "the quota is full")))
            self.rejected[SURPLUS.reason] += 1
        elif rejection is None:
            self.kept += 1
        else:
            self.rejected[rejection.reason] += 1
        self.settled += 1
        # planners are told of what the difficulty filter said: that it serves a warm-up does not make it fit
        self.feedback.add(target, unfit if warmup else rejection)
        if self.settled % self.block == 0:
            self._snapshots[self.settled] = copy.deepcopy(self.feedback)
        return Decision(rejection, warmup)


def warmups(quotas: Sequence[Quota], warmup: Warmup | None) -> dict[str, int]:
    """Samples wanted for the warm-up, by category, none more than its sources can add to its quota.

    Of each category out of reach as many as the spec says; of all others together, in equal parts, as many as make up
    the share of retention samples.
    """
    if warmup is None:
        return {}

    def at_most(quota: Quota, samples: int) -> int:
        return samples if quota.supply is None else min(samples, max(quota.supply - quota.quota, 0))

    wanted = {q.name: at_most(q, warmup.samples_per_category) for q in quotas if not q.reachable}
    others = [quota for quota in quotas if quota.reachable]
    beside = sum(wanted.values()) * warmup.retention_share / (1 - warmup.retention_share)
    return wanted | {q.name: at_most(q, math.ceil(beside / len(others))) for q in others}


class Schedule:
    """All categories."""

    def __init__(
        self,
        quotas: Iterable[Quota],
        supplied: Iterable[str],
        max_candidates: int,
        target: int | None = None,
        warmup: Mapping[str, int] | None = None,
    ) -> None:
        """`supplied` are the categories that some source has; `target` is what is wanted, if the quotas may be less.

        `warmup` are the samples for the warm-up, beside the quotas.
        """
        beside = warmup or {}
        # a category that no source supplies has no quota, and is still told of
        wanted = [q for q in quotas if q.quota > 0 or q.supply == 0 or beside.get(q.name, 0) > 0]
        planned, known = sum(quota.quota for quota in wanted), set(supplied)
        together = max(planned + sum(beside.values()), 1)
        self.target = planned if target is None else target
        """Samples wanted."""
        self.lines = {
            q.name: Line(
                category=q.name,
                quota=q.quota,
                cap=max_candidates * q.quota // together,
                warmup=beside.get(q.name, 0),
                reachable=q.reachable,
                warmup_cap=max_candidates * beside.get(q.name, 0) // together,
                supplied=q.name in known,
                scarce=planned < self.target,
            )
            for q in wanted
        }

    @property
    def kept(self) -> int:
        """Samples kept so far."""
        return sum(line.kept for line in self.lines.values())

    @property
    def warmed(self) -> int:
        """Samples kept for the warm-up so far."""
        return sum(line.warmed for line in self.lines.values())

    @property
    def sure(self) -> int:
        """Samples that are kept or will be, as far as they are judged."""
        return sum(min(line.passed, line.quota) for line in self.lines.values())

    @property
    def judged(self) -> int:
        """Verdicts so far."""
        return sum(line.judged for line in self.lines.values())

    @property
    def open(self) -> int:
        """Targets that are begun and not decided."""
        return sum(line.open for line in self.lines.values())

    @property
    def planned(self) -> int:
        """Sum of the quotas."""
        return sum(line.quota for line in self.lines.values())

    @property
    def done(self) -> bool:
        """Every quota is met, has used its part of the budget or was ended; and all that was begun is decided."""
        return not self.open and all(line.wanted() <= 0 for line in self.lines.values())

    def orders(self) -> Iterator[Order]:
        """Blocks to be planned now."""
        for line in self.lines.values():
            order = line.order()
            if order is not None:
                yield order

    def begin(self) -> Target | None:
        """The target to begin next: of the category that has most left to do, by its share of what it needs."""
        for line in sorted(self.lines.values(), key=lambda line: line.passed / max(line.quota, 1)):
            target = line.begin()
            if target is not None:
                return target
        return None

    def end(self, reason: str) -> None:
        """Begin nothing more."""
        for line in self.lines.values():
            line.ended = line.ended or reason

    def report(self) -> list[CategorySamples]:
        """What became of each quota."""
        return [
            CategorySamples(
                name=name,
                quota=line.quota,
                candidates=line.candidates,
                kept=line.kept,
                warmup=line.warmed,
                rejected=dict(sorted(line.rejected.items())),
                shortfall_reason=line.shortfall_reason,
            )
            for name, line in self.lines.items()
        ]
