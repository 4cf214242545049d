"""The place that one iteration or run has in this process."""

import asyncio
import random
import time
from dataclasses import dataclass, field

from dpe_api.names import KIND
from dpe_operator.observe import Memory
from dpe_operator.plan import Charge
from dpe_operator.tracing import Untold


@dataclass(slots=True)
class Loop:
    """One iteration's or one run's place in this process."""

    namespace: str
    name: str
    uid: str
    kind: str = KIND
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """It is not looked at any more."""
    memory: Memory = field(default_factory=Memory)
    generation: int = 0
    review: str = ""
    """The annotation dpe.dev/review that was looked at last."""
    refers_to: str | None = None
    """The iteration that it is to begin with, in the same namespace."""
    is_read: bool = False
    """What it refers to is known."""
    is_gone: bool = False
    """There is no such iteration any more."""
    unclaimed_since: float | None = None
    """time.monotonic() since which it waits for kopf's finalizer; None: it has it."""
    held_since: float | None = None
    """time.monotonic() since which a new message of a stage waits to be written; None: none does."""
    due: float = field(default_factory=time.monotonic)
    """time.monotonic() by which the next look should have begun; infinite: it waits for events alone."""
    running: tuple[Charge, ...] = ()
    """GPU time of the attempts that go on, as of the last look."""
    untold: Untold | None = None
    """What its deletion would end, as of the last look."""
    deleted: bool = False
    """It has ended since its object is deleted; an operator that stops leaves it to the next one."""
    trust: float = field(default_factory=lambda: random.uniform(0.5, 1.0))
    """Its share of the longest time without a list: iterations that began together do not list together for ever."""

    def end(self, *, deleted: bool) -> None:
        """Make this look the last one."""
        self.deleted = self.deleted or deleted
        self.ended.set()
        self.wake.set()

    @property
    def waits_for_events(self) -> bool:
        """No time is set for its next look."""
        return self.due == float("inf")
