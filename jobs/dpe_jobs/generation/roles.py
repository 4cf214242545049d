"""The four agents of generation as the pipeline sees them: planner, selector, writer, validator.

Each is a model behind an endpoint or a program; both have the same form. What they raise decides what becomes of a
target: `Rejected` and `NoImage` end the candidate with a reason, `RequestFailed` counts as an error of the service
(never as a bad candidate), `BudgetSpent` ends the stage cleanly with what it has. A candidate that was begun must come
out the same when it is begun again: what depends on anything but the target and `target.seed` goes into a ledger.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.images import Origin, Picture
from dpe_jobs.generation.render import Written

REQUEST_FAILED, SOURCE_FAILED = "RequestFailed", "SourceFailed"
"""Reasons that are errors of a service: a model gave no answer; nor did a search, or the host of an image."""
MOST_EXAMPLES = 8  # rejections that a planner is shown whole


class Rejection(NamedTuple):
    """Why a candidate is not kept."""

    reason: str
    """One CamelCase word; they are counted by it."""
    detail: str
    """For a person, and for a planner's next attempt."""


class Rejected(Exception):
    """Raised by a selector or a writer that can make nothing of this target."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


class Difficulty(StrEnum):
    """How hard a question is to be for the model that is trained, next to what it was asked so far."""

    EASIER = "easier"
    SAME = "same"
    HARDER = "harder"


@dataclass(frozen=True, slots=True)
class Aim:
    """A weakness of the diagnosis that a target works on."""

    text: str
    """In words; those of an endpoint's attribution are data, never instructions."""
    facets: Mapping[str, str] = field(default_factory=dict)
    """The weak slice; empty: the category as a whole."""
    examples: tuple[str, ...] = ()
    """Ids of probe questions that show it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One sample to make."""

    category: str
    number: int
    """Within its category, from 0: of two that pass the lower one is kept."""
    kind: SourceKind
    source: str
    """The source that is to bring the picture, as `Origin.source` names it."""
    knobs: Mapping[str, str]
    """What the picture is to show or the question to ask: knobs of a program, or facets in an endpoint's words."""
    aim: Aim
    seed: int
    """Of everything that is drawn for it."""
    retention: bool = False
    """A strong category: whatever its difficulty, it is kept."""
    difficulty: Difficulty = Difficulty.SAME
    query: str = ""
    """What to look for in a pool or a search, in words."""
    question_type: AnswerType | None = None
    """None: as the writer sees fit."""
    ordinals: tuple[int, ...] = (0,)
    """Of each picture that it needs: how often its category asked the same source for the same before. So no two
    targets take the same picture. An edit may need several."""

    @property
    def ordinal(self) -> int:
        """Of a target that needs one picture."""
        return self.ordinals[0]


def ordinals(asked: Counter[tuple[str, ...]], keys: Iterable[tuple[str, ...]]) -> tuple[int, ...]:
    """How often each was asked for before, by `asked`, where it is counted."""
    found = []
    for key in keys:
        found.append(asked[key])
        asked[key] += 1
    return tuple(found)


@dataclass(slots=True)
class Feedback:
    """What became of a category's earlier targets, counted in the order of their numbers."""

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    """Reasons by `Target.source`, without errors of a service; the empty reason counts those that were kept."""
    by_knob: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    """Reasons by knob and value, without errors of a service."""
    unanswered: Counter[str] = field(default_factory=Counter)
    """How many of the newest targets in a row ended with SourceFailed, by `Target.source`."""
    examples: list[tuple[Target, Rejection]] = field(default_factory=list)
    """The newest few."""

    def add(self, target: Target, rejection: Rejection | None) -> None:
        """Count one."""
        reason = "" if rejection is None else rejection.reason
        if rejection is None:
            self.kept += 1
        else:
            self.rejected[reason] += 1
            self.examples = [*self.examples, (target, rejection)][-MOST_EXAMPLES:]
        if reason == SOURCE_FAILED:
            self.unanswered[target.source] += 1
        if reason in (REQUEST_FAILED, SOURCE_FAILED):
            return  # it says nothing about the source's pictures, nor about what was looked for
        self.unanswered[target.source] = 0
        self.by_source.setdefault(target.source, Counter())[reason] += 1
        for knob in target.knobs.items():
            self.by_knob.setdefault(knob, Counter())[reason] += 1


@dataclass(frozen=True, slots=True)
class Order:
    """A block of targets that a planner is asked for."""

    category: str
    first: int
    """Number of the first one."""
    count: int
    feedback: Feedback
    """Of the targets before some earlier number, always the same one: a plan must not depend on who was faster."""


class Planner(Protocol):
    """Says what to make."""

    async def plan(self, order: Order) -> Sequence[Target]:
        """Exactly `order.count` targets of `order.category`, numbered from `order.first`, whatever a model proposes.

        Called for one block of a category after the other.
        """


class Selector(Protocol):
    """Finds or makes a picture."""

    async def select(self, target: Target) -> Picture:
        """The picture for a target; NoImage when there is none, Rejected when it may not be used."""


class Writer(Protocol):
    """Asks about a picture."""

    async def write(self, target: Target, picture: Picture) -> Written:
        """Question and answer; Rejected when nothing on target can be asked about this picture."""


class Validator(Protocol):
    """Says whether a question can go to training."""

    async def validate(self, target: Target, picture: Picture, written: Written) -> Rejection | None:
        """None when it is good. It looks at `picture.image`: of an edited picture that is the edited one."""


class Safety(Protocol):
    """Says whether a sample may be trained on at all."""

    async def check(self, target: Target, image: bytes, origin: Origin, written: Written) -> Rejection | None:
        """None when it may. `image` is the file that would be trained on."""
