"""The life of one stage: adopt, judge, start, stop, finish. Pure: a Turn collects what is to be done."""

from dataclasses import replace
from datetime import datetime, timedelta

from dpe_api.names import BATCH_STAGES, Stage, child_name
from dpe_api.status import StageProgress, StageState, Status
from dpe_operator import kept
from dpe_operator.conditions import QUEUED, shorten
from dpe_operator.failures import NO_PROGRESS, Outcome, Verdict, backoff_s, disruption_delay_s, judge, longest_wait
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt
from dpe_operator.plan import Charge, ChildRef
from dpe_operator.summaries import InvalidManifest, absorb
from dpe_operator.turn import Turn
from dpe_operator.world import JobSeen, PodSeen

LINGER = timedelta(seconds=60)  # for the pods of a finished stage to end by themselves
KEPT_ATTEMPTS = 3  # newest failed Jobs of a stage that are kept for `kubectl logs`
SERVER_OF = {
    Stage.DIAGNOSIS: Stage.SERVE_BASE,
    Stage.GENERATION: Stage.SERVE_BASE,
    Stage.EVALUATION: Stage.SERVE_CANDIDATE,
}


def _gpu_time(turn: Turn, stage: Stage) -> Charge | None:
    """GPU time of the newest attempt so far, from its first pod's placement to its last pod's end; None without any."""
    gpus = turn.gpus(stage)
    pods = [p for p in turn.pods(stage) if p.scheduled_at is not None]
    if not gpus or not pods:
        return None
    start = min(p.scheduled_at for p in pods if p.scheduled_at is not None)
    ends = [max((e.at for e in p.ended), default=turn.now) if p.is_over else turn.now for p in pods]
    pool = turn.resolved.spec.training.pool if stage is Stage.TRAINING else turn.resolved.spec.serving.pool
    return Charge(stage, pool, round(gpus * max(0.0, (max(ends) - start).total_seconds()), 1))


def running_charges(turn: Turn) -> tuple[Charge, ...]:
    """GPU time so far of attempts that run, which no status holds yet."""
    entries = [entry for entry in turn.status.stages if entry.state is StageState.RUNNING]
    return tuple(charge for entry in entries if (charge := _gpu_time(turn, entry.name)) is not None)


def _charge_time(turn: Turn, stage: Stage) -> None:
    """Add the GPU time of an attempt that has just ended."""
    charge = _gpu_time(turn, stage)
    if charge is None:
        return
    cost = turn.status.cost
    total = cost.model_copy(update={"gpu_seconds": round(cost.gpu_seconds + charge.gpu_seconds, 1)})
    turn.status = turn.status.model_copy(update={"cost": total})
    turn.charges.append(charge)


def _fail(turn: Turn, stage: Stage, message: str) -> None:
    turn.update(stage, state=StageState.FAILED, message=message, next_attempt_time=None)


def _ask_again(turn: Turn, outcome: Outcome) -> None:
    """A review that cannot be applied is nobody's failure: whoever made it corrects it."""
    assert turn.status.review is not None
    entry, problem = turn.entry(Stage.GENERATION), shorten(str(outcome))
    turn.note("ReviewRefused", problem, f"{entry.attempt}", warning=True)
    turn.update(Stage.GENERATION, state=StageState.PENDING, next_attempt_time=None, message=problem)
    review = turn.status.review.model_copy(update={"refused": turn.status.review.applied, "problem": problem})
    turn.status = turn.status.model_copy(update={"review": review})


def _apply_outcome(turn: Turn, stage: Stage, outcome: Outcome) -> None:
    """Write down how the running attempt ended."""
    entry = turn.entry(stage)
    _charge_time(turn, stage)
    where = f"{stage} attempt {entry.attempt}"
    key = f"{stage}/{entry.attempt}"
    if outcome.verdict is Verdict.DISRUPTED:
        disruptions = entry.disruptions + 1
        delay = disruption_delay_s(turn.platform.backoff, disruptions)
        turn.note("Disrupted", f"{where} was lost, not charged. {outcome}", key, warning=True)
        turn.update(
            stage,
            state=StageState.BACKOFF,
            disruptions=disruptions,
            next_attempt_time=turn.now + timedelta(seconds=delay),
            message=f"attempt {entry.attempt} was lost. {outcome}",
        )
        return
    if outcome.verdict is Verdict.FATAL and stage is Stage.GENERATION and turn.status.review is not None:
        _ask_again(turn, outcome)
        return
    # the server that was kept is an attempt to save time: one of its own follows, with all its attempts
    failures = entry.failures + (0 if entry.kept_from is not None else 1)
    turn.note("AttemptFailed", f"{where} failed. {outcome}", key, warning=True)
    turn.update(stage, failures=failures)
    if outcome.verdict is Verdict.FATAL:
        _fail(turn, stage, str(outcome))
    elif failures >= turn.spec.retry.max_attempts:
        _fail(turn, stage, f"{outcome} (after {failures} failed attempts)")
    else:
        delay = backoff_s(turn.platform.backoff, failures)
        turn.update(
            stage,
            state=StageState.BACKOFF,
            next_attempt_time=turn.now + timedelta(seconds=delay),
            message=f"attempt {entry.attempt} failed, the next one starts in {delay:g} s. {outcome}",
        )


def finish_from_manifest(turn: Turn, stage: Stage) -> bool:
    """Mark a batch stage Done when its manifest exists, whatever happened to its pod. True when it is Done."""
    entry = turn.entry(stage)
    if entry.state is StageState.DONE:
        return True
    manifest = turn.seen.manifests.get(stage)
    if manifest is None or entry.state is StageState.FAILED:
        return False
    newest = max((j.attempt for j in turn.seen.jobs_of(stage)), default=0)
    if entry.state is StageState.RUNNING:
        _charge_time(turn, stage)
    try:
        turn.status, line = absorb(turn.status, stage, manifest)
    except InvalidManifest as error:
        _fail(turn, stage, f"InvalidManifest: {error}")
        return False
    turn.update(
        stage,
        state=StageState.DONE,
        attempt=max(entry.attempt, newest),
        start_time=entry.start_time or turn.now.replace(microsecond=0),
        completion_time=turn.now.replace(microsecond=0),
        next_attempt_time=None,
        artifact=f"{turn.status.artifacts}/{stage}",
        progress=entry.progress
        and entry.progress.model_copy(update={"done": entry.progress.total, "eta_seconds": None}),
        message=line,
    )
    turn.note("StageDone", f"{stage}: {line}", f"{stage}")
    return True


def is_ready(turn: Turn, stage: Stage) -> bool:
    """The running attempt of a model server answers on all its replicas."""
    job = turn.job(stage)
    pods = [p for p in turn.pods(stage) if p.ready and not p.is_over and p.deleted_at is None]
    runs = turn.entry(stage).state is StageState.RUNNING and job is not None and job.is_live
    return runs and len(pods) >= turn.pod_count(stage) and not kept.is_changing(turn, stage)


def _server_is_lost(turn: Turn, stage: Stage, job: JobSeen | None, *, ended: bool) -> bool:
    """The model server that this attempt was given is no longer the one that runs (or, at its end, not ready)."""
    server = SERVER_OF.get(stage)
    if server is None or job is None or job.served_by is None:
        return False
    if turn.entry(server).state is not StageState.RUNNING or job.served_by != turn.job_name(server):
        return True
    return ended and not is_ready(turn, server)


def _is_evicted(turn: Turn, stage: Stage, job: JobSeen | None, pods: list[PodSeen]) -> bool:
    """Its queue has suspended the Job again after its pods had run. Pods that have just been let in do not count: Jobs
    are listed before pods.
    """
    if job is None or not job.is_live or not job.suspended:
        return False
    progress = turn.seen.progress.get(stage)
    has_run = bool(pods) or (progress is not None and progress.attempt == job.attempt)
    return has_run and all(p.is_over or p.deleted_at is not None for p in pods)


def _outcome(turn: Turn, stage: Stage, job: JobSeen | None, pods: list[PodSeen]) -> Outcome | None:
    reports = turn.seen.exits.get(turn.entry(stage).job_key, ())
    outcome = judge(job, pods, reports, turn.pod_count(stage), turn.now)
    if outcome is not None and outcome.verdict is Verdict.FATAL:
        return outcome
    if _server_is_lost(turn, stage, job, ended=outcome is not None):
        return Outcome(Verdict.DISRUPTED, "ServerLost", f"the model server {job.served_by if job else ''} is gone")
    if outcome is None and _is_evicted(turn, stage, job, pods):
        return Outcome(Verdict.DISRUPTED, "Evicted", "its queue has suspended the Job: the next attempt queues anew")
    if outcome is not None or job is None or not job.is_live:
        return outcome
    waits = longest_wait(job, pods, turn.seen.progress.get(stage), turn.seen.watching_since, turn.platform.deadlines)
    waits = waits or kept.wait(turn, stage)
    if waits is None:
        return None
    wait, limit_s = waits
    if turn.now >= wait.until:
        outcome = wait.outcome(limit_s)
        return replace(outcome, message=outcome.message + kept.hint(turn, stage, wait.reason))
    turn.moments.append(wait.until)
    return None


def _adopt(turn: Turn, stage: Stage, job: JobSeen) -> None:
    """Take over an attempt that was created but never written down."""
    entry = turn.entry(stage)
    turn.update(
        stage,
        state=StageState.RUNNING,
        attempt=job.attempt,
        kept_from=None,
        start_time=entry.start_time or job.created,
        next_attempt_time=None,
        message=None,
    )
    if stage is Stage.TRAINING:
        _take_size(turn, job.pods)


def settle(turn: Turn, stage: Stage) -> None:
    """Bring the entry up to what is seen: adopt newer attempts, judge the ones that have ended."""
    while turn.entry(stage).state not in (StageState.DONE, StageState.FAILED):
        entry = turn.entry(stage)
        newer = [j for j in turn.seen.jobs_of(stage) if j.attempt > entry.attempt]
        if entry.state is StageState.RUNNING:
            outcome = _outcome(turn, stage, turn.job(stage), turn.pods(stage))
            if outcome is None and newer:
                outcome = Outcome(Verdict.DISRUPTED, "Superseded", f"{newer[0].name} was started")
            if outcome is None:
                break
            _apply_outcome(turn, stage, outcome)
        elif newer:
            _adopt(turn, stage, newer[0])
        else:
            break
    show_progress(turn, stage)


def show_progress(turn: Turn, stage: Stage) -> None:
    """Progress and what is waited for, of the running attempt."""
    entry = turn.entry(stage)
    if entry.state is not StageState.RUNNING:
        return
    progress = turn.seen.progress.get(stage)
    if progress is not None and progress.attempt == entry.attempt:
        shown = StageProgress(
            done=progress.done,
            total=progress.total,
            unit=shorten(progress.unit, 32),
            rate=progress.rate,
            eta_seconds=progress.eta_seconds,
        )
        turn.update(stage, progress=shown)
    job = turn.job(stage)
    message = None
    if job is not None and job.suspended:
        message = f"{QUEUED}: Job {job.name} is suspended until its queue lets it in" + kept.hint(turn, stage, QUEUED)
    elif job is not None and job.is_live:
        waits = longest_wait(job, turn.pods(stage), None, None, turn.platform.deadlines) or kept.wait(turn, stage)
        if waits is not None and waits[0].reason != NO_PROGRESS:
            wait = waits[0]
            message = f"{wait.reason}: {wait.message}" + kept.hint(turn, stage, wait.reason)
    turn.update(stage, message=message)


def _has_succeeded(turn: Turn, job: JobSeen) -> bool:
    """All its pods have ended well, so that none will follow: its own status says so a second or two later."""
    pods = turn.seen.pods_of(job.stage, job.attempt)
    return sum(pod.phase == "Succeeded" for pod in pods) >= turn.pod_count(job.stage)


def still_stopping(turn: Turn, stage: Stage) -> list[str]:
    """Names of what is left of earlier attempts and may still run; a pod on a lost node does not count."""
    left: list[str] = []
    for of in kept.served_by(stage):
        left += [j.name for j in turn.seen.jobs_of(of) if j.is_live and not _has_succeeded(turn, j)]
        left += [p.name for p in turn.seen.pods_of(of) if not p.is_over and not p.is_stuck(turn.now)]
    return left


def _take_size(turn: Turn, nodes: int | None = None) -> None:
    """Nodes and GPUs of a training are what the spec says when an attempt begins: they may change between two.

    `nodes`: those of an attempt that runs already.
    """
    wanted, spec = turn.spec.training, turn.resolved.spec
    if wanted is None:  # taken from the iteration that this one continues
        return
    size = {"nodes": nodes or wanted.nodes, "gpus_per_node": wanted.gpus_per_node}
    training = spec.training.model_copy(update=size)
    turn.resolved = turn.resolved.model_copy(update={"spec": spec.model_copy(update={"training": training})})
    turn.status = turn.status.model_copy(update={"resolved": turn.resolved})


def start(turn: Turn, stage: Stage) -> None:
    """Create the next attempt when it is due and nothing of an earlier one runs."""
    entry = turn.entry(stage)
    if entry.state not in (StageState.PENDING, StageState.BACKOFF):
        return
    if entry.next_attempt_time is not None and turn.now < entry.next_attempt_time:
        turn.moments.append(entry.next_attempt_time)
        return
    left = still_stopping(turn, stage)
    if left:
        turn.update(stage, message=f"waits until {left[0]} has stopped")
        return
    number = entry.attempt + 1
    name = child_name(turn.seen.iteration.name, stage, number)
    if name in turn.seen.foreign:
        turn.update(stage, message=f"NameTaken: {name} exists and belongs to another owner: delete or rename that one")
        return
    if (why := turn.seen.not_admitted.get(name)) is not None:
        if turn.update(stage, message=f"NotAdmitted: {why}") != entry:
            turn.note("NotAdmitted", f"{stage}: {turn.entry(stage).message}", name, warning=True)
        return
    if stage is Stage.TRAINING:
        _take_size(turn)
    reviewed = stage is Stage.GENERATION and turn.status.review is not None
    server = None if reviewed else SERVER_OF.get(stage)
    attempt = Attempt(
        iteration=turn.seen.iteration,
        platform=turn.platform,
        resolved=turn.resolved,
        root=turn.status.artifacts or "",
        stage=stage,
        number=number,
        server=None if server is None else turn.job_name(server),
        reviewed=reviewed,
    )
    turn.create.extend(build(attempt))
    turn.update(
        stage,
        state=StageState.RUNNING,
        attempt=number,
        kept_from=None,
        start_time=entry.start_time or turn.now.replace(microsecond=0),
        next_attempt_time=None,
        message=None,
        progress=None,
    )
    reason = "StageStarted" if number == 1 else "Retrying"
    turn.note(reason, f"{stage}: attempt {number} runs as Job {name}", f"{stage}/{number}")


def stop(turn: Turn, stage: Stage) -> None:
    """Let go of the running attempt without charging it: the sweep deletes its Job."""
    entry = turn.entry(stage)
    if entry.state is StageState.RUNNING:
        _charge_time(turn, stage)
        turn.update(stage, state=StageState.PENDING, message=None, next_attempt_time=None)


def retire_server(turn: Turn, stage: Stage) -> bool:
    """Stop a model server that nobody needs any more. True when its pods are gone, and with them its GPUs."""
    entry = turn.entry(stage)
    if entry.state is StageState.DONE:
        return True
    newest = max((j.attempt for j in turn.seen.jobs_of(stage)), default=0)
    if entry.state is StageState.RUNNING:
        _charge_time(turn, stage)
        turn.update(stage, state=StageState.PENDING, attempt=max(entry.attempt, newest))
    left = still_stopping(turn, stage)
    if left:
        turn.update(stage, message=f"stops: waits until {left[0]} is gone")
        return False
    turn.update(
        stage,
        state=StageState.DONE,
        attempt=max(entry.attempt, newest),
        completion_time=turn.now.replace(microsecond=0),
        next_attempt_time=None,
        message=None,
    )
    return True


def may_linger(status: Status, job: JobSeen, now: datetime) -> bool:
    """A batch stage that has just published: its pod ends by itself, and its Job stays for the logs."""
    entry = status.stage_status(job.stage)
    done_at = entry.completion_time if entry.state is StageState.DONE else None
    return job.stage in BATCH_STAGES and done_at is not None and now - done_at < LINGER


def sweep(turn: Turn) -> None:
    """Delete every Job that should not run: all but the running attempts, and failed ones beyond the newest few."""
    wanted = {s.job_key for s in turn.status.stages if s.state is StageState.RUNNING}
    for job in turn.seen.jobs:
        if job.deleting or (job.stage, job.attempt) in wanted:
            continue
        entry = turn.entry(job.stage)
        if job.is_live:
            if may_linger(turn.status, job, turn.now):
                turn.moments.append((entry.completion_time or turn.now) + LINGER)
            else:
                turn.delete.append(ChildRef(job.name, job.uid))
        elif job.attempt <= entry.attempt - KEPT_ATTEMPTS:
            turn.delete.append(ChildRef(job.name, job.uid))
