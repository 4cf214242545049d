"""A small simulated world: API server, Job controller, scheduler, kubelets and store, as far as `decide` can tell."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.unit.operator import given

from dpe_api.artifacts import ExitReport, Manifest
from dpe_api.generation_spec import Review
from dpe_api.names import BATCH_STAGES, LABEL_ATTEMPT, LABEL_STAGE, Stage
from dpe_api.spec import Spec
from dpe_api.status import Phase, StageState, Status
from dpe_operator.decide import decide
from dpe_operator.manifests.common import ANNOTATION_SERVED_BY, candidate_uri
from dpe_operator.plan import Child, Plan
from dpe_operator.platform import Platform
from dpe_operator.queueing import Entry
from dpe_operator.world import Ended, Iteration, JobSeen, Observed, PodSeen


class Crash(Exception):
    """The operator dies here."""


@dataclass
class World:
    """Everything outside the operator. Times are simulated."""

    spec: Spec
    platform: Platform
    iteration: Iteration = given.ITERATION
    accepted: bool = True
    now: datetime = given.T0
    status: Status = field(default_factory=Status)
    version: int = 0
    jobs: dict[str, JobSeen] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    objects: set[tuple[str, str]] = field(default_factory=set)
    manifests: dict[Stage, Manifest] = field(default_factory=dict)
    exits: dict[tuple[Stage, int], list[ExitReport]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    store_is_away: bool = False
    answers_since: datetime = given.T0
    filled: set[str] = field(default_factory=set)
    """Jobs whose pods were made: with backoffLimit 0 they are never made again."""
    lost: set[str] = field(default_factory=set)
    queue_is_open: bool = True
    """Kueue lets Jobs in as soon as they are created."""
    count: int = 0
    others: tuple[Entry, ...] = ()
    """Iterations beside this one, where how many run is limited."""
    draft: Manifest | None = None
    """Of a generation that is to be reviewed."""
    reviewed: str | None = None
    """ETag of reviewed.parquet."""
    weights: dict[str, str] = field(default_factory=dict)
    """Whose answers a model server gives, by the uid of its pod: base or candidate."""
    served: dict[str, str] = field(default_factory=dict)
    """What kept servers said in the store: address of the model, by the name of the pod."""
    answered: set[tuple[Stage, str]] = field(default_factory=set)
    """Whose answers the stages that published had asked for."""
    takes_weights: bool = True
    """Kept servers do."""

    # the operator's side

    def look(self, status: Status) -> Observed:
        """What an operator that starts now, with this status, sees: nothing remembered."""
        seen = Observed(
            self.iteration,
            jobs=tuple(self.jobs.values()),
            pods=tuple(self.pods.values()),
            store_error="the store is away" if self.store_is_away else None,
            watching_since=self.answers_since,
            others=self.others,
        )
        if self.store_is_away:
            return seen
        unread = {}
        for stage in BATCH_STAGES:
            if status.stage_status(stage).state is not StageState.DONE:
                if stage not in self.manifests:
                    break
                unread[stage] = self.manifests[stage]
        draft = self.draft if status.review is None else None
        exits = {k: tuple(v) for k, v in self.exits.items()}
        return replace(
            seen, manifests=unread, exits=exits, served=dict(self.served), draft=draft, reviewed=self.reviewed
        )

    def plan(self, status: Status | None = None) -> Plan:
        """What the operator would do now."""
        known = self.status if status is None else status
        return decide(self.spec, known, self.look(known), self.platform, self.now)

    def apply(self, plan: Plan, version: int | None = None, die_after: int | None = None) -> None:
        """Do it in the order that the gateway does. Crash after so many steps; a stale version is refused."""
        version = self.version if version is None else version
        steps: list[Callable[[], None]] = [lambda c=c: self._create(c) for c in plan.create]  # type: ignore[misc]
        steps += [lambda n=n: self.notes.setdefault(n.key, n.message) and None for n in plan.notes]  # type: ignore[misc]
        if plan.status is not None:
            steps.append(lambda: self._write(plan.status, version))
        steps += [lambda r=r: self._delete(r.name, r.uid) for r in plan.delete]  # type: ignore[misc]
        for number, step in enumerate(steps):
            if number == die_after:
                raise Crash
            step()

    def turn(self) -> Plan:
        """One whole pass of the operator."""
        plan = self.plan()
        self.apply(plan)
        return plan

    def _write(self, status: Status | None, version: int) -> None:
        if version != self.version:
            raise Crash("conflict")
        assert status is not None
        self.status, self.version = status, version + 1

    def _create(self, child: Child) -> None:
        if (child.kind, child.name) in self.objects:
            return
        self.objects.add((child.kind, child.name))
        if child.kind != "Job":
            return
        labels = child.body["metadata"]["labels"]
        self.count += 1
        self.jobs[child.name] = JobSeen(
            name=child.name,
            uid=f"job-{self.count}",
            stage=Stage(labels[LABEL_STAGE]),
            attempt=int(labels[LABEL_ATTEMPT]),
            created=self.now,
            suspended=child.body["spec"].get("suspend", False) and not self.queue_is_open,
            served_by=child.body["metadata"]["annotations"].get(ANNOTATION_SERVED_BY),
            pods=child.body["spec"]["parallelism"],
        )
        self.sizes[child.name] = child.body["spec"]["parallelism"]

    def _delete(self, name: str, uid: str) -> None:
        job = self.jobs.get(name)
        if job is None or job.uid != uid:
            return
        del self.jobs[name]
        self.objects -= {(k, name) for k in ("Job", "ConfigMap", "Service")}
        for pod in self.pods_of(job):
            self.stop_pod(pod.uid)

    # the cluster's side

    def pods_of(self, job: JobSeen) -> list[PodSeen]:
        """Pods of one Job."""
        return [p for p in self.pods.values() if (p.stage, p.attempt) == (job.stage, job.attempt)]

    def change(self, uid: str, **changes: object) -> None:
        """Change a pod."""
        if uid in self.pods:
            self.pods[uid] = replace(self.pods[uid], **changes)  # type: ignore[arg-type]

    def stop_pod(self, uid: str) -> None:
        """Its deletion is asked for; one that has not started or has ended goes at once."""
        pod = self.pods.get(uid)
        if pod is not None and (pod.started_at is None or pod.is_over):
            del self.pods[uid]
        elif pod is not None and pod.deleted_at is None:
            self.change(uid, deleted_at=self.now)

    def lose(self, uid: str) -> None:
        """Its node is gone: told to stop, it never ends, and a replacement may run beside it."""
        self.lost.add(uid)
        self.change(uid, deleted_at=self.pods[uid].deleted_at or self.now)

    def end_pod(self, uid: str, code: int, *, report: bool = True) -> None:
        """Its container ends."""
        pod = self.pods.get(uid)
        if pod is None or pod.is_over:
            return
        end = Ended(code, "Said", "why", self.now)
        self.change(uid, phase="Failed" if code else "Succeeded", ready=False, ended=(end,))
        if code and report:
            said = ExitReport(
                attempt=pod.attempt, pod=pod.name, exit_code=code, reason="Said", message="why", at=self.now
            )
            self.exits.setdefault((pod.stage, pod.attempt), []).append(said)

    def control(self) -> None:
        """One pass of the Job controller, the garbage collector and the kubelets' terminations."""
        for pod in list(self.pods.values()):
            if pod.uid in self.lost:
                continue
            if pod.deleted_at is not None and not pod.is_over and self.now - pod.deleted_at >= timedelta(seconds=5):
                self.end_pod(pod.uid, 143)
            elif pod.deleted_at is not None and pod.is_over:
                del self.pods[pod.uid]
        for job in list(self.jobs.values()):
            self._control_job(job)

    def _control_job(self, job: JobSeen) -> None:
        pods = self.pods_of(job)
        if job.suspended and self.queue_is_open:
            self.jobs[job.name] = replace(job, suspended=False, let_in_at=self.now)
            return  # its pods are made in another pass
        if job.ended_at is not None or job.suspended:
            return
        failed = [p for p in pods if p.phase == "Failed" or p.deleted_at is not None]
        missing = job.uid in self.filled and len(pods) < self.sizes[job.name]
        if failed or missing:
            self.jobs[job.name] = replace(job, ended_at=self.now, message="BackoffLimitExceeded")
            for pod in pods:
                if not pod.is_over:
                    self.stop_pod(pod.uid)
        elif len(pods) == self.sizes[job.name] and all(p.phase == "Succeeded" for p in pods):
            self.jobs[job.name] = replace(job, ended_at=self.now, complete=True)
        elif not pods:
            self.filled.add(job.uid)
            for index in range(self.sizes[job.name]):
                self.count += 1
                uid = f"pod-{self.count}"
                self.pods[uid] = PodSeen(
                    name=f"{job.name}-{index}-{uid}", uid=uid, stage=job.stage, attempt=job.attempt, created=self.now
                )

    def evict_job(self, name: str) -> None:
        """Kueue takes the place back: it suspends the Job, and the Job controller stops the pods."""
        job = self.jobs[name]
        if job.ended_at is None and not job.suspended:
            self.jobs[name] = replace(job, suspended=True)
            self.filled.discard(job.uid)
            for pod in self.pods_of(job):
                self.stop_pod(pod.uid)

    def run_pods(self) -> None:
        """Schedule and start what waits; servers become ready."""
        for pod in list(self.pods.values()):
            if pod.started_at is None and pod.deleted_at is None:
                self.change(
                    pod.uid,
                    phase="Running",
                    **dict.fromkeys(("scheduled_at", "started_at", "main_started_at"), self.now),
                )
            elif pod.stage.is_serving and not pod.is_over and pod.deleted_at is None:
                self._load(pod)
                self.change(pod.uid, ready=True, ready_changed=pod.ready_changed or self.now)

    def _load(self, pod: PodSeen) -> None:
        """A server loads its model when it starts; one that is kept takes the candidate, and then says so."""
        keeps = self.spec.serving is not None and self.spec.serving.keep_running and pod.stage is Stage.SERVE_BASE
        follows = keeps and Stage.TRAINING in self.manifests and self.takes_weights and not self.store_is_away
        if pod.uid not in self.weights:
            self.weights[pod.uid] = "candidate" if follows or pod.stage is Stage.SERVE_CANDIDATE else "base"
        elif follows and self.weights[pod.uid] == "base":
            self.weights[pod.uid] = "candidate"
        elif follows:
            self.served[pod.name] = candidate_uri(self.status.artifacts or "")

    def finish_work(self) -> None:
        """Batch stages that run publish and end well."""
        for job in list(self.jobs.values()):
            pods = self.pods_of(job)
            if job.stage.is_serving or not job.is_live or self.store_is_away:
                continue
            if pods and all(p.phase == "Running" and p.deleted_at is None for p in pods):
                server = self.jobs.get(job.served_by or "")
                answering = [] if server is None else [p for p in self.pods_of(server) if p.ready and not p.is_over]
                self.answered |= {(job.stage, self.weights[p.uid]) for p in answering}
                self.publish(job.stage)
                for pod in pods:
                    self.end_pod(pod.uid, 0)

    def set_store(self, *, away: bool) -> None:
        """The store goes away, or comes back."""
        if self.store_is_away and not away:
            self.answers_since = self.now
        self.store_is_away = away

    def publish(self, stage: Stage) -> None:
        """The manifest appears; the first one stays. Of a generation that is to be reviewed first that of the draft."""
        reviewed = self.spec.generation is not None and self.spec.generation.review is Review.REQUIRED
        if stage is Stage.GENERATION and reviewed and self.status.review is None:
            self.draft = self.draft or given.manifest(stage)
            return
        self.manifests.setdefault(stage, given.manifest(stage, **_gate(stage, self.accepted)))

    def say(self, word: str, reviewed: str | None = None) -> None:
        """A person annotates the iteration, and uploads marks."""
        self.iteration = replace(self.iteration, review=word)
        self.reviewed = reviewed or self.reviewed

    def pass_time(self, seconds: float) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    def behave(self, steps: int = 400) -> None:
        """From now on nothing goes wrong; runs until a final phase, or so many steps."""
        self.set_store(away=False)
        self.queue_is_open = self.takes_weights = True
        self.spec = self.spec.model_copy(update={"suspend": False})
        for step in range(steps):
            self.turn()
            if self.status.phase is Phase.AWAITING_REVIEW:
                self.say("accepted", f"corrected-{step}")
            if self.status.phase.is_final and not any(j.is_live for j in self.jobs.values()):
                return
            self.control()
            self.run_pods()
            self.finish_work()
            self.control()
            self.pass_time(6)


def _gate(stage: Stage, accepted: bool) -> dict[str, bool]:
    return {"accepted": accepted} if stage is Stage.EVALUATION else {}
