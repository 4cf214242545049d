"""Which target is begun next, and which candidates are kept: no I/O, no clock.

Candidates are begun and judged in any order and at any pace; what is kept is decided in the order of their numbers, so
that it depends on neither: of each category the first ones that pass, up to its quota. What was begun beyond them, for
nobody knew yet how many would pass, is Surplus.
"""

import copy
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dpe_api.artifacts import CategorySamples, Quota
from dpe_jobs.generation.roles import Feedback, Order, Rejection, Target

NO_SOURCE = "NoGenerator"
BUDGET_USED = "MaxCandidates"
SUPPLY_USED = "Supply"
SURPLUS = Rejection("Surplus", "")
SMALLEST_BLOCK = 32  # targets: what a planner is asked for at a time, at least


@dataclass(slots=True)
class Line:
    """How far one category is. Numbers below `settled` are decided, those below `begun` were begun."""

    category: str
    quota: int
    cap: int
    """Most candidates: its share of maxCandidates, so that a hopeless category starves no other."""
    supplied: bool = True
    """Some source can bring pictures for it."""
    scarce: bool = False
    """All sources together supply less than is wanted: the quota is all that can be had."""
    begun: int = 0
    judged: int = 0
    passed: int = 0
    """Of the judged: without a reason against them."""
    settled: int = 0
    kept: int = 0
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
    _waiting: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    """Judged and not decided: whether it passed, and whether a candidate came of it."""

    def __post_init__(self) -> None:
        self._snapshots[0] = Feedback()

    @property
    def block(self) -> int:
        """Targets that are planned at a time."""
        return max(SMALLEST_BLOCK, math.ceil(self.quota / 2))

    @property
    def full(self) -> bool:
        """The quota is met."""
        return self.kept >= self.quota

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
        if not self.full:
            return self.ended or BUDGET_USED
        return SUPPLY_USED if self.scarce else None

    def wanted(self) -> int:
        """How many more to begin now: what is missing, divided by the share that passed so far.

        By the rule of succession (Laplace 1814), once one has failed: where all pass, none is begun beyond the need.
        """
        missing = self.quota - self.passed
        if not self.supplied or self.full or self.ended or missing <= 0:
            return 0
        share = (self.passed + 1) / (self.judged + 2) if self.passed < self.judged else 1.0
        return min(math.ceil(missing / share) - (self.begun - self.judged), self.cap - self.begun)

    def order(self) -> Order | None:
        """The next block that its planner is to be asked for, when it is needed and may be planned."""
        if self._planning or self._queue or self.wanted() <= 0:
            return None
        # one block behind: while the planner learns from a block, the next one is under way
        feedback = self._snapshots.get(max(0, self._planned - self.block))
        if feedback is None:
            return None
        self._planning = True
        return Order(self.category, self._planned, min(self.block, self.cap - self._planned), feedback)

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

    def judge(self, number: int, *, passed: bool, made: bool = True) -> None:
        """A verdict has come. `made`: a candidate came of the target."""
        self.judged += 1
        self.passed += passed
        self._waiting[number] = passed, made

    @property
    def next_is_judged(self) -> bool:
        """The lowest undecided number may be decided."""
        return self.settled in self._waiting

    def settle(self, target: Target, rejection: Rejection | None) -> Rejection | None:
        """Decide on the lowest undecided number; returns the final reason, None when it is kept."""
        if target.number != self.settled:
            raise ValueError(f"{self.category} {target.number} is decided before {self.settled}")
        passed, made = self._waiting.pop(self.settled)
        if passed and rejection is not None:
            self.passed -= 1  # only now it was found to repeat an earlier one
        if not made:
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
        self.feedback.add(target, rejection)
        if self.settled % self.block == 0:
            self._snapshots[self.settled] = copy.deepcopy(self.feedback)
        return rejection


class Schedule:
    """All categories."""

    def __init__(
        self,
        quotas: Iterable[Quota],
        supplied: Iterable[str],
        max_candidates: int,
        target: int | None = None,
    ) -> None:
        """`supplied` are the categories that some source has; `target` is what is wanted, if the quotas may be less."""
        # a category that no source supplies has no quota, and is still told of
        wanted = [quota for quota in quotas if quota.quota > 0 or quota.supply == 0]
        planned, known = sum(quota.quota for quota in wanted), set(supplied)
        self.target = planned if target is None else target
        """Samples wanted."""
        self.lines = {
            q.name: Line(
                category=q.name,
                quota=q.quota,
                cap=max_candidates * q.quota // max(planned, 1),
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
                rejected=dict(sorted(line.rejected.items())),
                shortfall_reason=line.shortfall_reason,
            )
            for name, line in self.lines.items()
        ]
