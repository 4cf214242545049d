"""From the API server's JSON to JobSeen and PodSeen. Pure."""

import json
from datetime import UTC, datetime
from typing import Any

from dpe_api.names import LABEL_ATTEMPT, LABEL_STAGE, Stage
from dpe_operator.conditions import shorten
from dpe_operator.manifests.common import ANNOTATION_SERVED_BY, FETCH_MODEL, MAIN
from dpe_operator.world import Ended, JobSeen, PodSeen, Waiting

Json = dict[str, Any]
_JOB_END = ("FailureTarget", "SuccessCriteriaMet", "Failed", "Complete")


def moment(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def _stage_and_attempt(metadata: Json) -> tuple[Stage, int] | None:
    labels = metadata.get("labels") or {}
    try:
        return Stage(labels[LABEL_STAGE]), int(labels[LABEL_ATTEMPT])
    except (KeyError, ValueError):
        return None  # somebody else's object that carries the iteration's label


def _true(conditions: list[Json], *kinds: str) -> list[Json]:
    return [c for c in conditions if c["type"] in kinds and c["status"] == "True"]


def job_seen(job: Json) -> JobSeen | None:
    """A Job, or None when it is not one of a stage."""
    metadata, status = job["metadata"], job.get("status") or {}
    which = _stage_and_attempt(metadata)
    if which is None:
        return None
    conditions = status.get("conditions") or []
    ends = _true(conditions, *_JOB_END)
    ended_at = min((moment(c["lastTransitionTime"]) for c in ends), default=None)
    failed = [c for c in ends if c["type"] in ("Failed", "FailureTarget")]
    held = next((c for c in conditions if c["type"] == "Suspended"), None)
    is_held = held is not None and held["status"] == "True"
    return JobSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        stage=which[0],
        attempt=which[1],
        created=moment(metadata["creationTimestamp"]),
        ended_at=ended_at,
        complete=bool(ends) and not failed,
        message=failed[0].get("message", "") if failed else "",
        deleting="deletionTimestamp" in metadata,
        suspended=bool((job.get("spec") or {}).get("suspend")) or is_held,
        let_in_at=moment(held["lastTransitionTime"]) if held is not None and not is_held else None,
        served_by=(metadata.get("annotations") or {}).get(ANNOTATION_SERVED_BY),
        pods=(job.get("spec") or {}).get("parallelism"),
    )


def owned_by(thing: Json, iteration_uid: str) -> bool:
    """Whether this very iteration, not a namesake, owns the object."""
    return any(o.get("uid") == iteration_uid for o in thing["metadata"].get("ownerReferences") or [])


def _ended(name: str, state: Json) -> Ended | None:
    end = state.get("terminated")
    if end is None or end.get("finishedAt") is None:
        return None
    code, text = int(end["exitCode"]), end.get("message") or ""
    reason = end.get("reason") or "Error"
    try:
        said = json.loads(text)
        reason, text = str(said["reason"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        # the container could not say it itself: killed, or it died before it could
        last = text.strip().splitlines()[-1:]
        text = f"container {name} ended with exit code {code} ({reason})" + "".join(f": {line}" for line in last)
        reason = "ContainerFailed" if reason == "Error" else reason
    return Ended(exit_code=code, reason=reason, message=shorten(text), at=moment(end["finishedAt"]))


def _deleted_at(metadata: Json) -> datetime | None:
    if "deletionTimestamp" not in metadata:
        return None
    # the API server writes the moment when the grace period will be over
    grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
    return datetime.fromtimestamp(moment(metadata["deletionTimestamp"]).timestamp() - grace, tz=UTC)


def pod_seen(pod: Json, *, gone: bool = False) -> PodSeen | None:
    """A pod, or None when it is not one of a stage. `gone`: it was last seen like this and exists no more."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    which = _stage_and_attempt(metadata)
    if which is None:
        return None
    conditions = status.get("conditions") or []
    by_type = {c["type"]: c for c in conditions}
    scheduled = _true(conditions, "PodScheduled")
    disruption = _true(conditions, "DisruptionTarget")
    ready = by_type.get("Ready")
    states = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ended = [e for s in states if (e := _ended(s["name"], s.get("state") or {})) is not None]
    # what a mesh or an agent has put into the pod starts when it likes
    own = {s["name"]: s for s in states if s["name"] in (MAIN, FETCH_MODEL)}
    scheduled_at = moment(scheduled[0]["lastTransitionTime"]) if scheduled else None
    return PodSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        stage=which[0],
        attempt=which[1],
        created=moment(metadata["creationTimestamp"]),
        phase=status.get("phase") or "Pending",
        ready=ready is not None and ready["status"] == "True",
        ready_changed=moment(ready["lastTransitionTime"]) if ready and ready.get("lastTransitionTime") else None,
        scheduled_at=scheduled_at,
        unschedulable="" if scheduled else (by_type.get("PodScheduled") or {}).get("message", ""),
        waiting=_waiting(list(own.values()), ended, scheduled_at),
        started_at=min(_starts(list(own.values())), default=None),
        main_started_at=min(_starts([own[MAIN]] if MAIN in own else []), default=None),
        ended=tuple(ended),
        disrupted=": ".join(filter(None, (disruption[0].get("reason"), disruption[0].get("message"))))
        if disruption
        else None,
        deleted_at=_deleted_at(metadata),
        gone=gone,
    )


def _starts(states: list[Json]) -> list[datetime]:
    return [moment(start) for s in states if (start := _start_of(s.get("state") or {})) is not None]


def _start_of(state: Json) -> str | None:
    running = state.get("running") or state.get("terminated") or {}
    start: str | None = running.get("startedAt")
    return start


def _waiting(states: list[Json], ended: list[Ended], scheduled_at: datetime | None) -> Waiting | None:
    """What the first container that is neither running nor ended waits for; nothing while one runs."""
    if scheduled_at is None or any("running" in (s.get("state") or {}) for s in states):
        return None
    for state in states:
        waits = (state.get("state") or {}).get("waiting")
        if waits is not None:
            since = max([scheduled_at, *(e.at for e in ended)])
            return Waiting(waits.get("reason") or "Waiting", shorten(waits.get("message") or "", 512), since)
    return None
