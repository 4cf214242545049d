"""Model servers that are kept while the candidate is trained, and then take its weights in place. Pure.

serve-base (diagnosis, generation) -> its Job stays beside training -> serve-candidate is that very Job. Its pods were
told at their start which model comes next, and see for themselves when it is published. They say so in the store when
they answer with its weights: that a pod is ready does not say whose answers it gives. Where the Job is lost or does not
come to answer, serve-candidate gets a Job of its own, as it would without all this.
"""

from datetime import timedelta

from dpe_api.names import Stage
from dpe_api.status import StageState
from dpe_operator.conditions import QUEUED
from dpe_operator.failures import UNSCHEDULABLE, Wait
from dpe_operator.manifests.common import candidate_uri
from dpe_operator.turn import Turn


def served_by(stage: Stage) -> tuple[Stage, ...]:
    """Stages whose Jobs may serve this one."""
    return (Stage.SERVE_CANDIDATE, Stage.SERVE_BASE) if stage is Stage.SERVE_CANDIDATE else (stage,)


def _is_whole(turn: Turn) -> bool:
    """All pods of the base's servers run, and nobody has told them to stop."""
    job, pods = turn.job(Stage.SERVE_BASE), turn.pods(Stage.SERVE_BASE)
    runs = job is not None and job.is_live and not job.suspended
    going = [p for p in pods if not p.is_over and p.deleted_at is None and p.disrupted is None]
    return runs and len(going) == len(pods) >= turn.pod_count(Stage.SERVE_BASE)


def stays(turn: Turn, server: Stage, current: Stage | None) -> bool:
    """A server that no stage asks any more goes on: the candidate that is trained now is to be served by it."""
    wanted = turn.resolved.spec.serving.keep_running and server is Stage.SERVE_BASE and current is Stage.TRAINING
    return wanted and turn.entry(server).state is StageState.RUNNING and _is_whole(turn)


def hand_over(turn: Turn, needed: Stage | None) -> None:
    """Make the Job of serve-base that of serve-candidate, if it was kept until now."""
    base, candidate = turn.entry(Stage.SERVE_BASE), turn.entry(Stage.SERVE_CANDIDATE)
    if needed is not Stage.SERVE_CANDIDATE or not turn.resolved.spec.serving.keep_running:
        return
    is_first = candidate.state is StageState.PENDING and candidate.attempt == 0
    if not is_first or base.state is not StageState.RUNNING or not _is_whole(turn):
        return
    moment = turn.now.replace(microsecond=0)
    turn.update(Stage.SERVE_BASE, state=StageState.DONE, completion_time=moment, message=None)
    turn.update(Stage.SERVE_CANDIDATE, state=StageState.RUNNING, attempt=1, kept_from=base.attempt, start_time=moment)
    name = turn.job_name(Stage.SERVE_CANDIDATE)
    turn.note("StageStarted", f"{needed}: attempt 1 is Job {name}, which takes the weights in place", f"{needed}/1")


def is_changing(turn: Turn, stage: Stage) -> bool:
    """A kept server that has not said yet that it answers with the candidate's weights."""
    if turn.entry(stage).kept_from is None:
        return False
    wanted = candidate_uri(turn.status.artifacts or "")
    return any(turn.seen.served.get(pod.name) != wanted for pod in turn.pods(stage))


def wait(turn: Turn, stage: Stage) -> tuple[Wait, int] | None:
    """What a kept server is waited for, with the limit in seconds; None when it answers, or is none."""
    entry, limit_s = turn.entry(stage), turn.platform.deadlines.startup
    if entry.start_time is None or not is_changing(turn, stage):
        return None
    until = entry.start_time + timedelta(seconds=limit_s)
    return Wait("NotReloaded", f"{turn.job_name(stage)} takes the candidate's weights in place", until), limit_s


def hint(turn: Turn, stage: Stage, reason: str) -> str:
    """What to add to the message of a training that gets no GPUs where kept servers may be why; else nothing."""
    serving, training = turn.resolved.spec.serving, turn.resolved.spec.training
    runs = turn.entry(Stage.SERVE_BASE).state is StageState.RUNNING
    held = turn.gpus(Stage.SERVE_BASE)
    # a queue's quota may be of several pools
    in_the_way = reason == QUEUED or (reason == UNSCHEDULABLE and serving.pool == training.pool)
    if stage is not Stage.TRAINING or not runs or not held or not in_the_way:
        return ""
    return (
        f"; spec.serving.keepRunning holds {held} GPUs of pool {serving.pool} meanwhile: to give them back, set "
        "spec.suspend to true and then to false"
    )
