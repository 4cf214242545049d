"""Collects what `decide` looks at.

The cluster comes first, then the store: whatever a Job published before it was seen to end is seen, too.
"""

import json
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from dpe_api.artifacts import ExitReport, Manifest, Progress
from dpe_api.generation_spec import Review
from dpe_api.names import ANNOTATION_REVIEW, BATCH_STAGES, DRAFT, REVIEWED, Stage
from dpe_api.spec import Spec
from dpe_api.status import StageState, Status
from dpe_operator.gateway import Gateway
from dpe_operator.manifests.common import ANNOTATION_UID
from dpe_operator.platform import Platform
from dpe_operator.pods import job_seen, moment, owned_by, pod_seen
from dpe_operator.preconditions import outside_problems, previous_iteration
from dpe_operator.resolve import problems as spec_problems
from dpe_operator.storage import Storage, StoreRefused, StoreUnavailable
from dpe_operator.world import Iteration, JobSeen, Observed, PodSeen


@dataclass(slots=True)
class Memory:
    """What an operator remembers of one iteration beside the API server and the store. Losing it costs a detail of a
    message or the charge of one attempt, never correctness.

    Jobs and pods are kept up to date by events and by what our own writes bring back, and listed where something may
    have been missed: at first, after a deletion (pods not seen yet may go on), after an error, and now and then.
    """

    jobs: dict[str, JobSeen] = field(default_factory=dict)
    """Of this iteration, by uid."""
    foreign_jobs: dict[str, str] = field(default_factory=dict)
    """Names by uid of Jobs that carry the iteration's label and belong to somebody else."""
    pods: dict[str, PodSeen] = field(default_factory=dict)
    """Last sight of pods, by uid: one that vanishes is known by it."""
    versions: dict[str, int] = field(default_factory=dict)
    """resourceVersion of the newest sight by uid: a list may be older than an event that came while it was read."""
    _body: bytes | None = None
    """The iteration as it was last seen, as JSON: a tenth of what the objects take. None: read it."""
    _body_version: int = 0
    listed_at: float | None = None
    """time.monotonic() of the last list that nothing has put in doubt."""
    doubted_at: float = float("-inf")
    """time.monotonic() of the last doubt: what a list that began before brings is not enough."""
    watching_since: datetime | None = None
    conflicts: frozenset[str] = frozenset()
    """Names that could not be created because somebody else has them."""
    refused: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By the name of a child or of a run's next iteration: what the API server said when it did not take it, and
    time.monotonic() until which it is not tried again."""

    def refuse(self, name: str, why: str, seconds: float) -> None:
        """Note what the API server said against a child, and for how long that holds."""
        self.refused[name] = why, time.monotonic() + seconds

    def not_admitted(self) -> dict[str, str]:
        """What was said, by name."""
        return {name: why for name, (why, _) in self.refused.items()}

    def forgive(self) -> None:
        """Try again what was refused, if it is time."""
        now = time.monotonic()
        self.refused = {name: refusal for name, refusal in self.refused.items() if refusal[1] > now}

    def doubt(self) -> None:
        """The next look reads and lists again."""
        self.listed_at, self._body, self.doubted_at = None, None, time.monotonic()

    def is_recent(self, seconds: float) -> bool:
        """Nothing puts in doubt what is known, and it is not longer ago that all of it was read."""
        return self.listed_at is not None and time.monotonic() - self.listed_at < seconds

    def see_iteration(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Note the iteration itself, as a watch, a read or the answer to our own write shows it."""
        if gone:
            self.forget_iteration()
        elif self._body is None or _version(body) > self._body_version:  # of our own writes the event follows
            metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
            self._body, self._body_version = json.dumps({**body, "metadata": metadata}).encode(), _version(body)

    def iteration(self) -> dict[str, Any] | None:
        """The iteration as it was last seen; None: read it. What is decided on an older one cannot be written down."""
        return None if self._body is None else json.loads(self._body)

    def forget_iteration(self) -> None:
        """It is gone."""
        self._body = None

    def _is_news(self, metadata: dict[str, Any]) -> bool:
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        if version < self.versions.get(uid, 0):
            return False
        self.versions[uid] = version
        return True

    def see_pod(self, pod: dict[str, Any], iteration_uid: str, *, gone: bool = False) -> bool:
        """Note a pod as a watch or a list shows it: a DisruptionTarget is often seen for a second only.

        True: there is something new to decide on. Most events of a pod tell of nothing that matters here.
        """
        if (pod["metadata"].get("annotations") or {}).get(ANNOTATION_UID) != iteration_uid:
            return False
        seen = pod_seen(pod, gone=gone)
        if seen is None or not self._is_news(pod["metadata"]):
            return False
        known = self.pods.get(seen.uid)
        if known is not None and known.deleted_at is not None and seen.deleted_at is not None:
            # when the kubelet has killed it, it deletes it again, and that moment is after the end that it brought
            seen = replace(seen, deleted_at=min(known.deleted_at, seen.deleted_at))
        self.pods[seen.uid] = seen
        return seen != known

    def see_job(self, job: dict[str, Any], iteration_uid: str, *, gone: bool = False) -> bool:
        """Note a Job as a watch, a list or the answer to our own request shows it. True: as of pods."""
        uid = job["metadata"]["uid"]
        if not self._is_news(job["metadata"]):
            return False
        known = self.jobs.pop(uid, None), self.foreign_jobs.pop(uid, None)
        if not gone and not owned_by(job, iteration_uid):
            self.foreign_jobs[uid] = job["metadata"]["name"]
        elif not gone and (seen := job_seen(job)) is not None:
            self.jobs[uid] = seen
        return known != (self.jobs.get(uid), self.foreign_jobs.get(uid))

    def miss_jobs(self, there: Set[str], version: int) -> bool:
        """Note that a list of this resourceVersion has no others than those. True: one is gone."""
        gone = self._missing([*self.jobs, *self.foreign_jobs], there, version)
        for uid in gone:
            self.jobs.pop(uid, None)
            self.foreign_jobs.pop(uid, None)
        return bool(gone)

    def miss_pods(self, there: Set[str], version: int) -> bool:
        """The same of pods."""
        gone = self._missing([uid for uid, pod in self.pods.items() if not pod.gone], there, version)
        for uid in gone:
            self.pods[uid] = replace(self.pods[uid], gone=True)
        return bool(gone)

    def _missing(self, known: Iterable[str], there: Set[str], version: int) -> list[str]:
        return [uid for uid in known if uid not in there and self.versions.get(uid, 0) <= version]


@dataclass(slots=True)
class _StoreView:
    manifests: dict[Stage, Manifest] = field(default_factory=dict)
    progress: dict[Stage, Progress] = field(default_factory=dict)
    exits: dict[tuple[Stage, int], tuple[ExitReport, ...]] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    draft: Manifest | None = None
    reviewed: str | None = None


def _version(body: dict[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


def identity(body: dict[str, Any]) -> Iteration:
    """Identity of a DPEIteration."""
    metadata = body["metadata"]
    return Iteration(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=metadata.get("labels") or {},
        review=(metadata.get("annotations") or {}).get(ANNOTATION_REVIEW, ""),
        created=moment(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
    )


def _ended_attempts(status: Status, jobs: Iterable[JobSeen]) -> list[tuple[Stage, int]]:
    """Attempts that have ended and are not judged yet."""
    jobs = list(jobs)
    live = {(j.stage, j.attempt) for j in jobs if j.is_live}
    known = {s.job_key for s in status.stages if s.state is StageState.RUNNING}
    newer = {(j.stage, j.attempt) for j in jobs if j.attempt > status.stage_status(j.stage).attempt}
    return sorted((known | newer) - live)


def _shards(status: Status, stage: Stage) -> int:
    """Pods of a stage that tell of their progress each for itself. One alone applies a review."""
    if stage is not Stage.GENERATION or status.resolved is None or status.review is not None:
        return 1
    return status.resolved.spec.generation.shards


def _is_reviewed(status: Status) -> bool:
    """A person is to look at its samples."""
    return status.resolved is not None and status.resolved.spec.generation.review is Review.REQUIRED


async def _manifest(storage: Storage, folder: str, stage: Stage) -> Manifest | None:
    """What a stage published there, if anything; one that cannot be read has a summary that nobody takes."""
    try:
        return await storage.manifest(folder)
    except ValidationError as error:
        return Manifest(stage=str(stage), created_at=datetime.now(UTC), summary={"unreadable": str(error)})


async def _read_store(storage: Storage, status: Status, root: str, jobs: Iterable[JobSeen]) -> _StoreView:
    view = _StoreView()
    for stage in BATCH_STAGES:
        entry = status.stage_status(stage)
        if entry.state is StageState.DONE:
            continue
        folder = f"{root}/{stage}"
        manifest = await _manifest(storage, folder, stage)
        if manifest is None:
            if stage is Stage.GENERATION and _is_reviewed(status):
                draft = f"{folder}/{DRAFT}"
                view.reviewed = await storage.etag(f"{draft}/{REVIEWED}")
                if status.review is None:
                    view.draft, folder = await _manifest(storage, draft, stage), draft
            if entry.attempt:
                progress = await storage.progress(folder, _shards(status, stage))
                if progress is not None:
                    view.progress[stage] = progress
            break
        view.manifests[stage] = manifest
    for stage, attempt in _ended_attempts(status, jobs):
        view.exits[stage, attempt] = await storage.exits(root, stage, attempt)
    candidate = status.stage_status(Stage.SERVE_CANDIDATE)
    if candidate.state is StageState.RUNNING and candidate.kept_from is not None:
        view.served = await storage.served(root, *candidate.job_key)
    return view


async def observe(
    gateway: Gateway,
    storage: Storage,
    platform: Platform,
    memory: Memory,
    iteration: Iteration,
    spec: Spec,
    status: Status,
) -> Observed:
    """One look at everything that is known and stored. A store that is away is part of the result."""
    jobs = tuple(memory.jobs.values())
    seen = Observed(
        iteration=iteration,
        jobs=jobs,
        pods=tuple(memory.pods.values()),
        foreign=frozenset(memory.foreign_jobs.values()) | memory.conflicts,
        not_admitted=memory.not_admitted(),
    )
    if status.phase.is_final:
        return seen
    try:
        if status.resolved is None:
            seen = replace(seen, previous=await previous_iteration(gateway, iteration.namespace, spec))
            startable = not spec_problems(spec, seen.previous, platform)
            found = await outside_problems(
                gateway, storage, platform, iteration, spec, seen.previous, startable=startable
            )
            return replace(seen, problems=tuple(found))
        view = await _read_store(storage, status, status.artifacts or "", jobs)
    except (StoreUnavailable, StoreRefused) as error:
        memory.watching_since = None
        return replace(seen, store_error=str(error))
    memory.watching_since = memory.watching_since or datetime.now(UTC)
    return replace(
        seen,
        manifests=view.manifests,
        progress=view.progress,
        exits=view.exits,
        served=view.served,
        draft=view.draft,
        reviewed=view.reviewed,
        watching_since=memory.watching_since,
    )
