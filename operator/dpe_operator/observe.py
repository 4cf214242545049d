"""Collects what `decide` looks at.

The cluster comes first, then the store: whatever a Job published before it was seen to end is seen, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from dpe_api.artifacts import ExitReport, Manifest, Progress
from dpe_api.names import BATCH_STAGES, Stage
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
    """

    pods: dict[str, PodSeen] = field(default_factory=dict)
    """Last sight of pods, by uid: one that vanishes is known by it."""
    watching_since: datetime | None = None
    conflicts: frozenset[str] = frozenset()
    """Names that could not be created because somebody else has them."""


@dataclass(slots=True)
class _StoreView:
    manifests: dict[Stage, Manifest] = field(default_factory=dict)
    progress: dict[Stage, Progress] = field(default_factory=dict)
    exits: dict[tuple[Stage, int], tuple[ExitReport, ...]] = field(default_factory=dict)


def iteration_uid(pod: dict[str, Any]) -> str | None:
    """The iteration that a pod belongs to."""
    uid: str | None = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_UID)
    return uid


def remember(memory: Memory, pod: dict[str, Any], *, gone: bool) -> None:
    """Note a pod as a watch shows it: a DisruptionTarget is often seen for a second only."""
    seen = pod_seen(pod, gone=gone)
    if seen is not None:
        memory.pods[seen.uid] = seen


def identity(body: dict[str, Any]) -> Iteration:
    """Identity of a DPEIteration."""
    metadata = body["metadata"]
    return Iteration(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=metadata.get("labels") or {},
        created=moment(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
    )


def _merge_pods(memory: Memory, listed: Iterable[dict[str, Any]], uid: str) -> tuple[PodSeen, ...]:
    """Listed pods, and those remembered that are listed no more."""
    now = {}
    for body in listed:
        if iteration_uid(body) == uid:
            seen = pod_seen(body)
            if seen is not None:
                now[seen.uid] = seen
    for known_uid, pod in list(memory.pods.items()):
        if known_uid not in now and not pod.gone:
            memory.pods[known_uid] = replace(pod, gone=True)
    memory.pods.update(now)
    return tuple(memory.pods.values())


def _ended_attempts(status: Status, jobs: Iterable[JobSeen]) -> list[tuple[Stage, int]]:
    """Attempts that have ended and are not judged yet."""
    jobs = list(jobs)
    live = {(j.stage, j.attempt) for j in jobs if j.is_live}
    known = {(s.name, s.attempt) for s in status.stages if s.state is StageState.RUNNING}
    newer = {(j.stage, j.attempt) for j in jobs if j.attempt > status.stage_status(j.stage).attempt}
    return sorted((known | newer) - live)


def _shards(status: Status, stage: Stage) -> int:
    """Pods of a stage that tell of their progress each for itself."""
    return status.resolved.spec.generation.shards if status.resolved and stage is Stage.GENERATION else 1


async def _read_store(storage: Storage, status: Status, root: str, jobs: Iterable[JobSeen]) -> _StoreView:
    view = _StoreView()
    for stage in BATCH_STAGES:
        entry = status.stage_status(stage)
        if entry.state is StageState.DONE:
            continue
        folder = f"{root}/{stage}"
        try:
            manifest = await storage.manifest(folder)
        except ValidationError as error:
            manifest = Manifest(stage=str(stage), created_at=datetime.now(UTC), summary={"unreadable": str(error)})
        if manifest is None:
            if entry.attempt:
                progress = await storage.progress(folder, _shards(status, stage))
                if progress is not None:
                    view.progress[stage] = progress
            break
        view.manifests[stage] = manifest
    for stage, attempt in _ended_attempts(status, jobs):
        view.exits[stage, attempt] = await storage.exits(root, stage, attempt)
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
    """One look at everything. ApiException: the API server refused; a store that is away is part of the result."""
    listed = await gateway.jobs(iteration)
    pods = await gateway.pods(iteration)
    jobs = tuple(j for body in listed if owned_by(body, iteration) and (j := job_seen(body)) is not None)
    foreign = {body["metadata"]["name"] for body in listed if not owned_by(body, iteration)}
    seen = Observed(
        iteration=iteration,
        jobs=jobs,
        pods=_merge_pods(memory, pods, iteration.uid),
        foreign=frozenset(foreign) | memory.conflicts,
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
        watching_since=memory.watching_since,
    )
