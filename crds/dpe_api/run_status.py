"""`status` of a DPERun: the table of its rounds. It stays below 32 KiB whatever the number of rounds."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.artifacts import Interval
from dpe_api.base import ApiModel
from dpe_api.status import Condition, Cost, Phase


class RunPhase(StrEnum):
    """Where the run is. `Rejected`: it is complete, and no round brought a better model."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    SUSPENDED = "Suspended"

    @property
    def is_complete(self) -> bool:
        """No further round will begin."""
        return self in (RunPhase.SUCCEEDED, RunPhase.REJECTED)


class Round(ApiModel):
    """One round, by its newest iteration. When the table gets long, old rounds keep their verdict alone."""

    round: int
    """From 1."""
    iteration: Annotated[str, Field(max_length=40)]
    """Name of its DPEIteration."""
    uid: Annotated[str, Field(max_length=64)] | None = None
    """Of that DPEIteration."""
    retry: int = 0
    """How often the round was tried before, each time rejected."""
    phase: Phase = Phase.PENDING
    """Of that DPEIteration."""
    before: float | None = None
    """Macro accuracy of the model that the round began with, on the first benchmark, else the probe."""
    after: float | None = None
    """Macro accuracy of its candidate on the same items."""
    change: Interval | None = None
    """Of the macro accuracy, paired on the same items, with its interval."""
    accepted: bool | None = None
    """The gate's word."""
    kept: int | None = None
    """Samples that were trained on."""
    target: int | None = None
    """Samples that were wanted."""
    model: Annotated[str, Field(max_length=1024)] | None = None
    """The model that stands after this round: its candidate, or after a rejection the one before."""
    artifacts: Annotated[str, Field(max_length=1024)] | None = None
    """s3:// folder of what the iteration wrote."""
    cost: Cost = Field(default_factory=Cost)
    """What it cost."""
    earlier_cost: Cost | None = None
    """What the round's tries before this one cost."""
    start_time: datetime | None = None
    """When the iteration was accepted."""
    completion_time: datetime | None = None
    """When it reached a final phase."""

    @property
    def spent(self) -> Cost:
        """Of all tries."""
        return self.cost if self.earlier_cost is None else self.cost + self.earlier_cost


class RunModel(ApiModel):
    """The model that the run stands for."""

    uri: Annotated[str, Field(max_length=1024)]
    """The newest accepted candidate; the base while there is none."""
    round: int
    """Round that made it; 0: the base."""


class RunStatus(ApiModel):
    """Status of a DPERun."""

    observed_generation: int | None = None
    """metadata.generation that this status is about."""
    phase: RunPhase = RunPhase.PENDING
    """Where the run is."""
    message: Annotated[str, Field(max_length=1024)] | None = None
    """What it waits for."""
    rounds: list[Round] = Field(default_factory=list)
    """Each round that has begun, in order."""
    progress: str | None = None
    """Finished rounds of maxIterations, for the printer columns."""
    accuracy_first: str | None = None
    """Macro accuracy of the base in percent, for the printer columns."""
    accuracy_latest: str | None = None
    """Macro accuracy of the accepted model in percent, for the printer columns."""
    rounds_without_gain: int = 0
    """Finished rounds in a row, up to now, that brought no gain."""
    model: RunModel | None = None
    """The model that the run stands for."""
    page: Annotated[str, Field(max_length=1024)] | None = None
    """run.html of the newest evaluated round: accuracy over the rounds."""
    cost: Cost = Field(default_factory=Cost)
    """What all rounds cost."""
    start_time: datetime | None = None
    """When the first round was created."""
    completion_time: datetime | None = None
    """When the run ended."""
    conditions: list[Condition] = Field(default_factory=list)
    """Complete, Failed, Suspended."""
