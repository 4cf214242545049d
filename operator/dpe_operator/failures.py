"""Why an attempt ended, whether it is charged, and how long a wait may last. Pure.

A Job alone cannot tell a disruption from a crash in a gang: the peer of an evicted pod fails too. So the verdict looks
at all pods of the attempt, at the exit reports that vanished pods left in the store, and at what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dpe_api.artifacts import ExitReport, Progress
from dpe_api.names import Exit, Stage
from dpe_operator.platform import Backoff, Deadlines
from dpe_operator.world import STUCK_AFTER, JobSeen, PodSeen

NO_PROGRESS = "NoProgress"
UNSCHEDULABLE = "Unschedulable"


class Verdict(StrEnum):
    """`fatal`: another attempt would find the same; `charged`: retry, counted; `disrupted`: retry, not counted."""

    FATAL = "fatal"
    CHARGED = "charged"
    DISRUPTED = "disrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    verdict: Verdict
    reason: str
    message: str

    def __str__(self) -> str:
        """One line for status and events."""
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class _End:
    pod: str
    exit_code: int
    reason: str
    message: str
    at: datetime
    by_deletion: bool
    """The pod had been told to stop before it ended."""


def _covers(report: ExitReport, pod: PodSeen) -> bool:
    # the host name of an indexed pod is JOB-INDEX, its own name has a random tail
    return pod.name == report.pod or pod.name.startswith(report.pod + "-")


def _ends(pods: Sequence[PodSeen], reports: Sequence[ExitReport]) -> list[_End]:
    """One entry per container that did not end well; a pod whose container state was lost is known by its report."""
    ends = []
    for pod in pods:
        for end in pod.ended:
            if end.exit_code != Exit.DONE:
                by_deletion = pod.deleted_at is not None and pod.deleted_at <= end.at
                ends.append(_End(pod.name, end.exit_code, end.reason, end.message, end.at, by_deletion))
    for report in reports:
        if not any(_covers(report, pod) and pod.ended for pod in pods) and report.exit_code != Exit.DONE:
            deleted = any(_covers(report, pod) and pod.deleted_at and pod.deleted_at <= report.at for pod in pods)
            ends.append(_End(report.pod, report.exit_code, report.reason, report.message, report.at, deleted))
    return sorted(ends, key=lambda e: e.at)


def _vanished(pods: Sequence[PodSeen], reports: Sequence[ExitReport], expected: int) -> bool:
    """Some pod of the attempt ended and left neither a container state nor an exit report."""
    unknown = [p for p in pods if p.gone and not p.ended and not any(_covers(r, p) for r in reports)]
    known = len([p for p in pods if p not in unknown])
    known += len([r for r in reports if not any(_covers(r, p) for p in pods)])
    return bool(unknown) or known < expected


def _is_replaced(pod: PodSeen, pods: Sequence[PodSeen]) -> bool:
    """Its Job, whose pods do not need each other, went on with another pod of the same index."""
    index = pod.name.rpartition("-")[0]
    return any(p.name.rpartition("-")[0] == index and p.created > pod.created for p in pods)


def _why_no_node(pod: PodSeen) -> str:
    return pod.unschedulable or "waits for a node"


def _message(end: _End) -> str:
    return f"pod {end.pod}: {end.message or f'ended with exit code {end.exit_code}'}"


def _verdict(
    job: JobSeen | None, pods: Sequence[PodSeen], reports: Sequence[ExitReport], expected: int, now: datetime
) -> Outcome:
    """The root cause, looked for in this order; exit 76 is always somebody else's consequence."""
    ends = _ends(pods, reports)
    for end in ends:
        if end.exit_code in (Exit.BAD_DATA, Exit.BAD_CONFIG):
            return Outcome(Verdict.FATAL, end.reason, _message(end))
    for pod in pods:
        if pod.disrupted is not None and not _is_replaced(pod, pods):
            return Outcome(Verdict.DISRUPTED, "PodDisrupted", f"pod {pod.name}: {pod.disrupted}")
    for end in ends:
        if end.exit_code not in (Exit.PEER_GONE, Exit.STOPPED) and not end.by_deletion:
            return Outcome(Verdict.CHARGED, end.reason, _message(end))
    if job is not None and job.complete and not ends:
        return Outcome(
            Verdict.CHARGED, "NothingPublished", f"Job {job.name} ended with exit code 0 but left nothing behind"
        )
    for pod in pods:
        if pod.is_stuck(now):
            return Outcome(Verdict.DISRUPTED, "NodeLost", f"pod {pod.name} does not stop: its node is lost")
    if job is None or job.deleting:
        return Outcome(Verdict.DISRUPTED, "JobDeleted", "its Job was deleted")
    if any(e.exit_code == Exit.PEER_GONE for e in ends):  # the others hold no GPUs for ever while one waits for its own
        for pod in pods:
            if pod.scheduled_at is None:
                return Outcome(Verdict.DISRUPTED, UNSCHEDULABLE, f"pod {pod.name}: {_why_no_node(pod)}")
    if any(p.deleted_at is not None for p in pods) or any(e.exit_code == Exit.STOPPED for e in ends):
        return Outcome(Verdict.DISRUPTED, "PodStopped", "a pod was told to stop from outside")
    if _vanished(pods, reports, expected):
        return Outcome(Verdict.DISRUPTED, "PodVanished", "a pod vanished without a trace")
    if ends:
        return Outcome(Verdict.CHARGED, ends[0].reason, _message(ends[0]))
    return Outcome(Verdict.CHARGED, "JobFailed", job.message or f"Job {job.name} failed")


def judge(
    job: JobSeen | None, pods: Sequence[PodSeen], reports: Sequence[ExitReport], expected: int, now: datetime
) -> Outcome | None:
    """How the attempt ended; None while it runs, or while its last pods have not said why they stop.

    `expected` is the number of pods of the attempt.
    """
    if job is not None and job.is_live:
        if any(p.is_stuck(now) for p in pods):
            return _verdict(job, pods, reports, expected, now)
        return None
    since = job.ended_at if job is not None else None
    settling = [p for p in pods if not p.is_over and not p.is_stuck(now)]
    if settling and (since is None or now - since < STUCK_AFTER):
        return None
    return _verdict(job, pods, reports, expected, now)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a running attempt waits for, and until when it may."""

    reason: str
    message: str
    until: datetime

    def outcome(self, limit_s: float) -> Outcome:
        """What an attempt that waited too long ended with."""
        return Outcome(Verdict.CHARGED, self.reason, f"{self.message} (given up after {limit_s:g} s)")


def _pod_wait(
    pod: PodSeen, stage: Stage, progress: Progress | None, starts: Sequence[datetime], deadlines: Deadlines
) -> tuple[Wait, int] | None:
    """What one pod waits for. No progress is expected before the latest of `starts`."""

    def wait(reason: str, message: str, since: datetime, limit_s: int) -> tuple[Wait, int]:
        return Wait(reason, f"pod {pod.name}: {message}", since + timedelta(seconds=limit_s)), limit_s

    if pod.scheduled_at is None:
        return wait(UNSCHEDULABLE, _why_no_node(pod), pod.created, deadlines.scheduling)
    if pod.waiting is not None:
        reason = "ImagePull" if "Image" in pod.waiting.reason else "ContainerNotStarted"
        why = ": ".join(t for t in (pod.waiting.reason, pod.waiting.message) if t)
        return wait(reason, why, pod.waiting.since, deadlines.image_pull)
    if pod.started_at is None:
        return wait("ContainerNotStarted", "waits for its containers", pod.scheduled_at, deadlines.image_pull)
    if pod.main_started_at is None:
        return wait("ModelNotFetched", "fetches its model from the store", pod.started_at, deadlines.model_download)
    if stage.is_serving:
        if pod.ready:
            return None
        since = max(pod.main_started_at, pod.ready_changed or pod.main_started_at)
        return wait("NotReady", "the model server is not ready yet", since, deadlines.startup)
    moments = [pod.main_started_at, *starts]
    if progress is not None and progress.attempt == pod.attempt:
        moments.append(progress.updated_at)
    done = "" if progress is None else f" since {progress.done} of {progress.total} {progress.unit}"
    return wait(NO_PROGRESS, f"no progress{done}", max(moments), deadlines.no_progress)


def _without_pods(job: JobSeen, pods: Sequence[PodSeen], deadlines: Deadlines) -> list[tuple[Wait, int]]:
    """The wait for pods, or for the Job controller to see that the last of them has ended.

    It is a second or two behind, more after an outage: what ended the pods is told by them, when it has seen it.
    """
    ends = [m for p in pods for m in (*(e.at for e in p.ended), p.deleted_at) if m is not None]
    if pods and not ends:
        return []  # vanished without a trace
    since = max([job.let_in_at or job.created, *ends])
    until = since + timedelta(seconds=deadlines.scheduling)
    return [(Wait("NoPods", f"Job {job.name} has no pod", until), deadlines.scheduling)]


def longest_wait(
    job: JobSeen,
    pods: Sequence[PodSeen],
    progress: Progress | None,
    watching_since: datetime | None,
    deadlines: Deadlines,
) -> tuple[Wait, int] | None:
    """The wait that ends first, with its limit in seconds; None when nothing is waited for.

    A suspended Job waits for whoever suspended it (a queue), without a deadline.
    """
    if job.suspended:
        return None
    live = [p for p in pods if not p.is_over]
    starts = [p.main_started_at for p in live if p.main_started_at is not None]
    if watching_since is not None:
        starts.append(watching_since)
    waits = [w for p in live if (w := _pod_wait(p, job.stage, progress, starts, deadlines)) is not None]
    if any(p.main_started_at is None for p in live):  # no pod of a gang gets on before all of them run
        waits = [w for w in waits if w[0].reason != NO_PROGRESS]
    if not live:
        waits = _without_pods(job, pods, deadlines)
    return min(waits, key=lambda w: w[0].until, default=None)


def backoff_s(backoff: Backoff, failures: int) -> float:
    """Seconds until the attempt after the n-th charged failure."""
    return min(backoff.cap, backoff.base * 2.0 ** (min(failures, 32) - 1))


def disruption_delay_s(backoff: Backoff, disruptions: int) -> float:
    """Seconds until the attempt after the n-th disruption: none at first, so that one lost node costs no time."""
    return 0.0 if disruptions <= 1 else backoff_s(backoff, disruptions - 1)
