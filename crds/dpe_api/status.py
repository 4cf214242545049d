"""`status` of a DPEIteration: what the operator reports. It stays below 32 KiB whatever the size of the run."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from dpe_api.artifacts import CategoryChange, Interval
from dpe_api.base import ApiModel
from dpe_api.names import Stage
from dpe_api.spec import ResolvedSpec

MAX_CATEGORIES_IN_STATUS = 64


class Phase(StrEnum):
    """Where the iteration is."""

    PENDING = "Pending"
    DIAGNOSING = "Diagnosing"
    GENERATING = "Generating"
    AWAITING_REVIEW = "AwaitingReview"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    SUSPENDED = "Suspended"

    @property
    def is_final(self) -> bool:
        """Nothing is started any more."""
        return self in (Phase.SUCCEEDED, Phase.REJECTED, Phase.FAILED)


class StageState(StrEnum):
    """Where one stage is. `Backoff`: an attempt ended, the next one waits for `nextAttemptTime`."""

    PENDING = "Pending"
    RUNNING = "Running"
    BACKOFF = "Backoff"
    DONE = "Done"
    FAILED = "Failed"


class StageProgress(ApiModel):
    """How far the running attempt is, from its progress.json."""

    done: int
    """Finished items or steps."""
    total: int
    """All items or steps."""
    unit: Annotated[str, Field(max_length=32)] = "items"
    """What is counted."""
    rate: float = 0.0
    """Items per second."""
    eta_seconds: float | None = None
    """Remaining time at that rate."""


class StageStatus(ApiModel):
    """One stage."""

    name: Stage
    """Stage name."""
    state: StageState = StageState.PENDING
    """Pending, Running, Backoff, Done or Failed."""
    attempt: int = 0
    """Number of the newest attempt, from 1; 0 before the first."""
    failures: int = 0
    """Attempts that failed of their own; at most spec.retry.maxAttempts."""
    disruptions: int = 0
    """Attempts lost to eviction, preemption or node loss; not charged."""
    start_time: datetime | None = None
    """When the first attempt was created."""
    completion_time: datetime | None = None
    """When the stage was done."""
    next_attempt_time: datetime | None = None
    """End of the backoff."""
    kept_from: int | None = None
    """Of serve-candidate: the attempt of serve-base whose servers were kept and serve the candidate."""
    progress: StageProgress | None = None
    """How far the stage is."""
    artifact: Annotated[str, Field(max_length=1024)] | None = None
    """s3:// folder of what the stage published."""
    message: Annotated[str, Field(max_length=1024)] | None = None
    """What it waits for, or why it failed."""

    @property
    def job_key(self) -> tuple[Stage, int]:
        """Stage and attempt that the Job of the newest attempt was made for."""
        return (self.name, self.attempt) if self.kept_from is None else (Stage.SERVE_BASE, self.kept_from)


class CategoryDiagnosis(ApiModel):
    """One category of the diagnosis and its part in the mixture."""

    name: Annotated[str, Field(max_length=128)]
    n: int
    errors: int
    accuracy: float
    low: float
    high: float
    pass_rate: float | None = None
    weight: float
    quota: int
    reachable: bool = True


class DiagnosisStatus(ApiModel):
    """What was found before training."""

    overall: Interval
    categories: list[CategoryDiagnosis] = Field(default_factory=list)
    reused: bool = False
    """Taken from the re-diagnosis of the referenced iteration."""
    weaknesses: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] = Field(
        default_factory=list
    )
    """The most frequent ones, in words."""


class SamplesStatus(ApiModel):
    """What generation brought."""

    candidates: int = 0
    kept: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    """Rejected candidates by reason."""
    shortfall: int = 0
    kept_by_category: dict[str, int] = Field(default_factory=dict)
    shortfall_by_category: dict[str, str] = Field(default_factory=dict)
    """How many samples a category lacks, why, and what most of its candidates were rejected for."""


class EvaluationStatus(ApiModel):
    """The paired comparison on one benchmark."""

    name: str
    n: int
    before: float
    after: float
    delta: Interval
    categories: list[CategoryChange] = Field(default_factory=list)


class TaskStatus(ApiModel):
    """The comparison on one task of lmms-eval."""

    task: str
    metric: str
    n: int
    before: float
    after: float
    delta: Interval | None = None
    """Paired by question; left out where lmms-eval keeps no score of each question."""
    gate: bool = False
    """Whether the gate looked at it."""


class ModelStatus(ApiModel):
    """The model that this iteration stands for: the candidate, or the base when the candidate was rejected."""

    uri: str
    accepted: bool
    candidate_uri: str | None = None


class EndpointCost(ApiModel):
    """What the agents of generation took from one endpoint."""

    name: Annotated[str, Field(max_length=63)]
    tokens: int
    cost: float | None = None
    """In the currency of the endpoint's prices; left out where it has none."""
    budget_spent: bool = False
    """Generation ended early because the endpoint's budget was used up."""


class Cost(ApiModel):
    """What it cost so far."""

    gpu_seconds: float = 0.0
    tokens: int = 0
    endpoints: Annotated[list[EndpointCost], Field(max_length=32)] = Field(default_factory=list)
    """By endpoint, as far as agents of generation used it."""

    def __add__(self, other: "Cost") -> "Cost":
        """Of both."""
        return Cost(gpu_seconds=round(self.gpu_seconds + other.gpu_seconds, 1), tokens=self.tokens + other.tokens)


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class QueueStatus(ApiModel):
    """It could run, but the platform lets only so many iterations run at once."""

    position: int
    """1 is the next one; counted among those that wait for the same namespace or pool."""
    pools: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=2)] = Field(default_factory=list)
    """Node pools that it will use."""


class ReviewStatus(ApiModel):
    """Samples that wait for a person, with `spec.generation.review: required`."""

    draft: Annotated[str, Field(max_length=1024)]
    """s3:// folder with review.parquet and gallery.html; reviewed.parquet is looked for there."""
    samples: Annotated[str, Field(max_length=1024)]
    """What the draft holds, in a line."""
    applied: Annotated[str, Field(max_length=256)] | None = None
    """Annotation and ETag of reviewed.parquet as they were when they were last applied."""
    refused: Annotated[str, Field(max_length=256)] | None = None
    """The same, where they could not be applied: nothing is done until either changes."""
    problem: Annotated[str, Field(max_length=1024)] | None = None
    """Why not: file, row, column, value and mend."""


class Resolved(ApiModel):
    """What the iteration runs with, fixed when it was accepted."""

    round: int
    """0 for a model by uri, else one more than the referenced iteration's."""
    model_uri: str
    """The model to improve."""
    reuse_diagnosis: str | None = None
    """Artifact folder whose answers describe that model already."""
    previous: str | None = None
    """Folder of the referenced iteration's artifacts."""
    spec: ResolvedSpec
    """The spec with every section filled in."""


class Status(ApiModel):
    """Status of a DPEIteration."""

    observed_generation: int | None = None
    """metadata.generation that this status is about."""
    phase: Phase = Phase.PENDING
    """Where the iteration is."""
    stage: Stage | None = None
    """The batch stage that runs or comes next."""
    queue: QueueStatus | None = None
    """Its place in the queue, while it waits for others to finish."""
    resolved: Resolved | None = None
    """What the iteration runs with."""
    artifacts: str | None = None
    """s3:// folder of everything that this iteration wrote."""
    stages: list[StageStatus] = Field(default_factory=list)
    """Each stage, in order."""
    accuracy_before: str | None = None
    """Macro accuracy in percent, for the printer columns."""
    accuracy_after: str | None = None
    """Macro accuracy in percent, for the printer columns."""
    diagnosis: DiagnosisStatus | None = None
    """What was found before training."""
    samples: SamplesStatus | None = None
    """What generation brought."""
    review: ReviewStatus | None = None
    """What a person is asked to look at; left out before, and once it is done."""
    evaluation: list[EvaluationStatus] = Field(default_factory=list)
    """The comparison on each benchmark."""
    lmms_eval: list[TaskStatus] = Field(default_factory=list)
    """The comparison on each public benchmark that lmms-eval asked."""
    model: ModelStatus | None = None
    """The model that this iteration stands for."""
    cost: Cost = Field(default_factory=Cost)
    """What it cost so far."""
    start_time: datetime | None = None
    """When the iteration was accepted."""
    completion_time: datetime | None = None
    """When it reached a final phase."""
    conditions: list[Condition] = Field(default_factory=list)
    """Accepted, Complete, Failed, Suspended, ModelAccepted."""

    def stage_status(self, stage: Stage) -> StageStatus:
        """The entry of one stage; a fresh one when it has none yet."""
        return next((s for s in self.stages if s.name is stage), StageStatus(name=stage))
