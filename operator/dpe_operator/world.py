"""What the operator knows about one iteration at one instant, as plain values: the input of `decide`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol

from dpe_api.artifacts import ExitReport, IterationId, Manifest, Progress
from dpe_api.names import KIND, PLURAL, RUN_KIND, RUN_PLURAL, Stage
from dpe_api.status import Status
from dpe_api.trace import trace_id
from dpe_operator.queueing import Entry

CYCLE = "IterationCycle"  # reason of a Problem
GRACE_S = 30  # terminationGracePeriodSeconds of every pod
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
STUCK_AFTER = timedelta(seconds=GRACE_S + 30)  # a pod that is still terminating then sits on a lost node


@dataclass(frozen=True, slots=True)
class Iteration:
    """Identity of a DPEIteration."""

    namespace: str
    name: str
    uid: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    review: str = ""
    """Its annotation dpe.dev/review; empty: it has none."""
    created: datetime = _LONG_AGO
    deleting: bool = False

    kind: ClassVar[str] = KIND
    plural: ClassVar[str] = PLURAL

    @property
    def id(self) -> IterationId:
        """The form that artifacts carry."""
        return IterationId(namespace=self.namespace, name=self.name, uid=self.uid)


@dataclass(frozen=True, slots=True)
class Run:
    """Identity of a DPERun."""

    namespace: str
    name: str
    uid: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False

    kind: ClassVar[str] = RUN_KIND
    plural: ClassVar[str] = RUN_PLURAL


Resource = Iteration | Run


class Named(Protocol):
    """A resource, or whoever looks after one."""

    @property
    def kind(self) -> str:
        """Of the resource."""

    @property
    def namespace(self) -> str:
        """Of the resource."""

    @property
    def name(self) -> str:
        """Of the resource."""

    @property
    def uid(self) -> str:
        """Of the resource."""


def about(it: Named) -> dict[str, str]:
    """Whom a line of the log is about, in fields of their own; a run has no trace."""
    if it.kind == RUN_KIND:
        return {"namespace": it.namespace, "run": it.name}
    return {"namespace": it.namespace, "iteration": it.name, "trace_id": trace_id(it.uid)}


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A Job of this iteration. `ended_at`: it has failed or completed, its last pods may still be stopping."""

    name: str
    uid: str
    stage: Stage
    attempt: int
    created: datetime
    ended_at: datetime | None = None
    complete: bool = False
    message: str = ""
    deleting: bool = False
    suspended: bool = False
    """Its queue holds it back, or has let it in without the Job controller having seen that."""
    let_in_at: datetime | None = None
    """When the Job controller saw that its queue had let it in; None also when it was never held back."""
    served_by: str | None = None
    """Name of the model server that it was given."""
    pods: int | None = None
    """How many of them it runs."""

    @property
    def is_live(self) -> bool:
        """It may still have running pods and nobody has told it to stop."""
        return self.ended_at is None and not self.deleting


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that has ended."""

    exit_code: int
    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container that cannot start yet, and since when."""

    reason: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of this iteration; also one that has vanished, as it was last seen."""

    name: str
    uid: str
    stage: Stage
    attempt: int
    created: datetime
    phase: str = "Pending"
    ready: bool = False
    ready_changed: datetime | None = None
    scheduled_at: datetime | None = None
    unschedulable: str = ""
    """The scheduler's message."""
    waiting: Waiting | None = None
    started_at: datetime | None = None
    """Start of its first container."""
    main_started_at: datetime | None = None
    """Start of its stage, after the container that fetches a model for it."""
    ended: tuple[Ended, ...] = ()
    disrupted: str | None = None
    """Reason and message of condition DisruptionTarget."""
    deleted_at: datetime | None = None
    """When its deletion was asked for."""
    gone: bool = False
    """It no longer exists."""

    @property
    def is_over(self) -> bool:
        """No container of it runs or will run."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    def is_stuck(self, now: datetime) -> bool:
        """Told to stop long ago and still there: its node is lost."""
        return not self.is_over and self.deleted_at is not None and now - self.deleted_at >= STUCK_AFTER


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an iteration cannot start: a CamelCase reason, and a message that names the field, the value and the mend."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Previous:
    """The iteration that `spec.model.iterationRef` names."""

    name: str
    status: Status
    unreadable: str = ""
    """Why its status is not understood; empty: it is."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was seen. Jobs and pods were listed before the store was read."""

    iteration: Iteration
    jobs: tuple[JobSeen, ...] = ()
    pods: tuple[PodSeen, ...] = ()
    foreign: frozenset[str] = frozenset()
    """Names of children that exist and belong to somebody else."""
    not_admitted: Mapping[str, str] = field(default_factory=dict)
    """What the API server said when it did not take a child a moment ago, by the child's name."""
    manifests: Mapping[Stage, Manifest] = field(default_factory=dict)
    progress: Mapping[Stage, Progress] = field(default_factory=dict)
    exits: Mapping[tuple[Stage, int], tuple[ExitReport, ...]] = field(default_factory=dict)
    """Exit reports by stage and attempt, of the attempts that have ended."""
    served: Mapping[str, str] = field(default_factory=dict)
    """Address of the model that kept servers have taken, by the name of the pod."""
    draft: Manifest | None = None
    """Of a generation that is to be reviewed; not read again once the status tells of it."""
    reviewed: str | None = None
    """ETag of reviewed.parquet; None: there is none."""
    problems: tuple[Problem, ...] = ()
    """Of an iteration that has not started yet."""
    previous: Previous | None = None
    others: tuple[Entry, ...] = ()
    """Iterations that run or wait, where the platform limits how many run at once; this one may be among them."""
    store_error: str | None = None
    """The object store did not answer: what it holds is unknown."""
    watching_since: datetime | None = None
    """Since when the store has answered without interruption; progress before that was not seen."""

    def jobs_of(self, stage: Stage) -> list[JobSeen]:
        """Jobs of one stage, oldest attempt first."""
        return sorted((j for j in self.jobs if j.stage is stage), key=lambda j: j.attempt)

    def job(self, stage: Stage, attempt: int) -> JobSeen | None:
        """The Job of one attempt."""
        return next((j for j in self.jobs if j.stage is stage and j.attempt == attempt), None)

    def pods_of(self, stage: Stage, attempt: int | None = None) -> list[PodSeen]:
        """Pods of one stage, or of one attempt."""
        return [p for p in self.pods if p.stage is stage and attempt in (None, p.attempt)]
