"""One look at one iteration: what is known, and what is to be done about it."""

from dataclasses import dataclass, field
from datetime import datetime

from dpe_api.names import Stage, child_name
from dpe_api.spec import Spec
from dpe_api.status import Resolved, StageStatus, Status
from dpe_operator.conditions import shorten
from dpe_operator.plan import Charge, Child, ChildRef, Note
from dpe_operator.platform import Platform
from dpe_operator.world import JobSeen, Observed, PodSeen


@dataclass(slots=True)
class Turn:
    """One look at one iteration. The operator's pure functions read `seen` and collect here what to do."""

    spec: Spec
    status: Status
    resolved: Resolved
    seen: Observed
    platform: Platform
    now: datetime
    create: list[Child] = field(default_factory=list)
    delete: list[ChildRef] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    moments: list[datetime] = field(default_factory=list)
    """When to look again at the latest."""

    def entry(self, stage: Stage) -> StageStatus:
        """The stage's entry in the status."""
        return self.status.stage_status(stage)

    def job_name(self, stage: Stage) -> str:
        """Name of the Job and the Service of its newest attempt."""
        return child_name(self.seen.iteration.name, *self.entry(stage).job_key)

    def job(self, stage: Stage) -> JobSeen | None:
        """The Job of its newest attempt."""
        return self.seen.job(*self.entry(stage).job_key)

    def pods(self, stage: Stage) -> list[PodSeen]:
        """The pods of that."""
        return self.seen.pods_of(*self.entry(stage).job_key)

    def update(self, stage: Stage, **changes: object) -> StageStatus:
        """Change the stage's entry."""
        if isinstance(changes.get("message"), str):
            changes["message"] = shorten(str(changes["message"]))
        new = self.entry(stage).model_copy(update=changes)
        stages = [new if s.name is stage else s for s in self.status.stages]
        self.status = self.status.model_copy(update={"stages": stages})
        return new

    def note(self, reason: str, message: str, key: str, *, warning: bool = False) -> None:
        """Plan an Event."""
        self.notes.append(Note(reason, shorten(message), f"{reason}/{key}", warning))

    def pod_count(self, stage: Stage) -> int:
        """Pods of one attempt."""
        if stage.is_serving:
            return self.resolved.spec.serving.replicas
        if stage is Stage.GENERATION:
            # a review is applied by one pod
            return 1 if self.status.review is not None else self.resolved.spec.generation.shards
        return self.resolved.spec.training.nodes if stage is Stage.TRAINING else 1

    def gpus(self, stage: Stage) -> int:
        """GPUs of one attempt."""
        if stage.is_serving:
            return self.resolved.spec.serving.gpus_per_replica * self.pod_count(stage)
        return self.resolved.spec.training.gpus_per_node * self.pod_count(stage) if stage is Stage.TRAINING else 0
