"""The next step of one iteration, as a pure function.

serve-base -> diagnosis -> generation -> (serve-base gone) -> training -> serve-candidate -> evaluation -> (gone) -> end
"""

from datetime import datetime, timedelta

from dpe_api.names import BATCH_STAGES, Stage, artifact_root
from dpe_api.spec import Spec
from dpe_api.status import Phase, QueueStatus, Resolved, StageState, StageStatus, Status
from dpe_operator import kept, review
from dpe_operator.conditions import (
    ACCEPTED,
    COMPLETE,
    FAILED,
    MODEL_ACCEPTED,
    QUEUED,
    SUSPENDED,
    condition,
    end_of_life,
    shorten,
    with_condition,
)
from dpe_operator.plan import ChildRef, Note, Plan
from dpe_operator.platform import Platform
from dpe_operator.queueing import Entry, Place, Standing, place
from dpe_operator.resolve import problems, resolve
from dpe_operator.stages import (
    SERVER_OF,
    finish_from_manifest,
    is_ready,
    may_linger,
    retire_server,
    running_charges,
    settle,
    start,
    still_stopping,
    stop,
    sweep,
)
from dpe_operator.summaries import fit
from dpe_operator.turn import Turn
from dpe_operator.world import CYCLE, Observed, Problem

PHASES = {
    Stage.DIAGNOSIS: Phase.DIAGNOSING,
    Stage.GENERATION: Phase.GENERATING,
    Stage.TRAINING: Phase.TRAINING,
    Stage.EVALUATION: Phase.EVALUATING,
}
_SERVERS = (Stage.SERVE_BASE, Stage.SERVE_CANDIDATE)


def decide(spec: Spec, status: Status, seen: Observed, platform: Platform, now: datetime) -> Plan:
    """Choose the next step of one iteration. Pure: no clock, no cluster, no store."""
    if seen.iteration.deleting:
        turn = None if status.resolved is None else Turn(spec, status, status.resolved, seen, platform, now)
        return Plan(running=() if turn is None else running_charges(turn))
    if status.phase.is_final:
        return _after_the_end(spec, status, seen, platform, now)
    if status.resolved is None:
        return _admit(spec, status, seen, platform, now)
    turn = Turn(spec, status, status.resolved, seen, platform, now)
    _advance(turn)
    sweep(turn)
    return _plan(turn, status)


def _plan(turn: Turn, before: Status) -> Plan:
    after = turn.status.model_copy(update={"observed_generation": turn.seen.iteration.generation})
    after = before if after == before else fit(after)
    busy = any(s.state is StageState.RUNNING for s in after.stages) or bool(turn.delete)
    waiting = any(still_stopping(turn, stage) for stage in Stage)
    default_s = turn.platform.poll_seconds if busy or waiting else turn.platform.resync_seconds
    due = [max(0.05, (moment - turn.now).total_seconds()) for moment in turn.moments]
    return Plan(
        create=tuple(turn.create),
        delete=tuple(turn.delete),
        status=None if after == before else after,
        notes=tuple(turn.notes),
        charges=tuple(turn.charges),
        running=running_charges(turn),
        look_again_in=timedelta(seconds=min([default_s, *due])),
    )


# the queue


def _pools(resolved: Resolved) -> list[str]:
    return sorted({resolved.spec.serving.pool, resolved.spec.training.pool})


def _place(spec: Spec, resolved: Resolved, seen: Observed, platform: Platform) -> Place:
    """Its place among those that run or wait."""
    it = seen.iteration
    own = Entry(it.namespace, it.name, spec.priority, it.created, frozenset(_pools(resolved)), Standing.WAITS)
    return place(own, seen.others, platform)


def _queued(status: Status, resolved: Resolved, found: Place, generation: int) -> tuple[Status, str, tuple[Note, ...]]:
    """The status of one that waits for its turn, what it waits for, and an Event when it begins to wait."""
    message = f"position {found.position}: {found.why}"
    # the position moves on in the status; the Event is one
    notes = (Note(QUEUED, message, f"{QUEUED}/{generation}"),) if status.queue is None else ()
    queue = QueueStatus(position=found.position, pools=_pools(resolved))
    return status.model_copy(update={"queue": queue}), message, notes


# before the start


def _admit(spec: Spec, status: Status, seen: Observed, platform: Platform, now: datetime) -> Plan:
    """Accept, or say why not. Nothing is created before the resolved spec has been written down."""
    generation = seen.iteration.generation
    look_again_in = timedelta(seconds=platform.resync_seconds)
    against = list(seen.problems)
    if not any(p.reason == CYCLE for p in against):  # which says more than that the other one has not finished
        against = [*problems(spec, seen.previous, platform), *against]
    # an outage of the store is nobody's fault: who waits keeps the place, or those who look first would get in
    queue = status.queue if seen.store_error is not None and not against else None
    if seen.store_error is not None:
        against.append(Problem("StoreUnavailable", f"{seen.store_error}: waits until it answers"))
    new = status.model_copy(
        update={"observed_generation": generation, "phase": Phase.PENDING, "stage": None, "queue": queue}
    )
    if against:
        first = against[0]
        message = "; ".join(p.message for p in against)
        conditions = with_condition(new.conditions, ACCEPTED, False, first.reason, message, generation, now)
        new = new.model_copy(update={"conditions": conditions})
        notes = (Note("NotAccepted", shorten(message), f"NotAccepted/{generation}/{first.reason}", warning=True),)
        return Plan(
            status=None if new == status else new, notes=notes if new != status else (), look_again_in=look_again_in
        )
    if spec.suspend:
        conditions = with_condition(
            new.conditions, SUSPENDED, True, "SuspendRequested", "spec.suspend is true", generation, now
        )
        new = new.model_copy(update={"conditions": conditions, "phase": Phase.SUSPENDED})
        return Plan(status=None if new == status else new, look_again_in=look_again_in)
    conditions = new.conditions
    if condition(conditions, SUSPENDED) is not None:
        conditions = with_condition(conditions, SUSPENDED, False, "Resumed", "", generation, now)
    resolved = resolve(spec, seen.previous)
    found = _place(spec, resolved, seen, platform)
    if not found.is_free:
        waits, message, told = _queued(status, resolved, found, generation)
        conditions = with_condition(conditions, ACCEPTED, False, QUEUED, message, generation, now)
        new = new.model_copy(update={"queue": waits.queue, "conditions": conditions})
        return Plan(status=None if new == status else new, notes=told, look_again_in=look_again_in)
    store = platform.object_store
    own = seen.iteration
    root = artifact_root(store.bucket, store.prefix, own.namespace, own.name, own.uid)
    message = f"round {resolved.round} from {resolved.model_uri}"
    conditions = with_condition(conditions, ACCEPTED, True, "Accepted", message, generation, now)
    new = new.model_copy(
        update={
            "resolved": resolved,
            "artifacts": root,
            "phase": Phase.DIAGNOSING,
            "stage": Stage.DIAGNOSIS,
            "stages": [StageStatus(name=stage) for stage in Stage],
            "start_time": now.replace(microsecond=0),
            "conditions": conditions,
        }
    )
    notes = (Note("Accepted", f"{message}; artifacts go to {root}", "Accepted"),)
    return Plan(status=fit(new), notes=notes, look_again_in=timedelta(0))


# while it runs


def _advance(turn: Turn) -> None:
    """One step through the stages."""
    for stage in BATCH_STAGES:
        if not finish_from_manifest(turn, stage):
            break
    current = next((s for s in BATCH_STAGES if turn.entry(s).state is not StageState.DONE), None)
    review.look(turn, current)
    if turn.entry(current or Stage.EVALUATION).state is StageState.FAILED:
        return _fail(turn, current or Stage.EVALUATION)
    if turn.seen.store_error is not None and current is not None:
        return _wait_for_store(turn, current)
    # who waits for a person, and what applies the person's marks, asks no model
    needed = None if current is None or turn.status.review is not None else SERVER_OF.get(current)
    for running in (needed, current):
        if running is not None:
            settle(turn, running)
            if turn.entry(running).state is StageState.FAILED:
                return _fail(turn, running)
    if turn.spec.suspend:
        return _suspend(turn, current)
    if turn.status.phase is Phase.SUSPENDED and not _may_resume(turn):
        return None
    _resume(turn)
    reviewed = turn.status.review is not None
    kept.hand_over(turn, needed)
    past = [s for s in _SERVERS if s is not needed and _is_past(s, current, reviewed=reviewed)]
    gone = [retire_server(turn, s) for s in past if not kept.stays(turn, s, current)]
    if current is None:
        return _finish(turn) if all(gone) else None
    turn.status = turn.status.model_copy(update={"phase": PHASES[current], "stage": current})
    if turn.status.review is not None and not review.is_accepted(turn):
        return _fail(turn, current) if turn.entry(current).state is StageState.FAILED else None
    if needed is not None:
        trainers = still_stopping(turn, Stage.TRAINING)  # published, but not yet off their GPUs
        if trainers and turn.entry(needed).state is not StageState.RUNNING:
            turn.update(needed, message=f"waits until {trainers[0]} has stopped")
            return None
        start(turn, needed)
        ready = is_ready(turn, needed)
        if not ready and turn.entry(current).state is not StageState.RUNNING:
            turn.update(current, message=f"waits for {needed} to be ready")
        if not ready:
            return None
    elif not all(gone):
        if turn.entry(current).state is not StageState.RUNNING:  # a server that was kept is lost beside it
            turn.update(current, message="waits until the model server is gone")
        return None
    return start(turn, current)


def _is_past(server: Stage, current: Stage | None, *, reviewed: bool = False) -> bool:
    """All stages that need this server are done; a draft that is reviewed needs none."""
    users = [s for s, needs in SERVER_OF.items() if needs is server]
    last = max(BATCH_STAGES.index(s) for s in users)
    return current is None or BATCH_STAGES.index(current) > last - reviewed


def _wait_for_store(turn: Turn, current: Stage) -> None:
    """What the store holds is unknown: nothing is judged, started or stopped until it answers."""
    if turn.spec.suspend:
        return _suspend(turn, current)
    turn.update(current, message=f"StoreUnavailable: {turn.seen.store_error}: waits until it answers")
    return None


def _set_condition(turn: Turn, kind: str, value: bool, reason: str, message: str) -> None:
    conditions = with_condition(
        turn.status.conditions, kind, value, reason, message, turn.seen.iteration.generation, turn.now
    )
    turn.status = turn.status.model_copy(update={"conditions": conditions})


def _suspend(turn: Turn, current: Stage | None) -> None:
    for entry in turn.status.stages:
        stop(turn, entry.name)
    if turn.status.phase is not Phase.SUSPENDED:
        turn.note(
            "Suspended", "running stages are stopped; what is finished is kept", f"{turn.seen.iteration.generation}"
        )
    _set_condition(turn, SUSPENDED, True, "SuspendRequested", "spec.suspend is true")
    turn.status = turn.status.model_copy(update={"phase": Phase.SUSPENDED, "stage": current, "queue": None})


def _may_resume(turn: Turn) -> bool:
    """A suspended iteration has given its place away: it queues again."""
    found = _place(turn.spec, turn.resolved, turn.seen, turn.platform)
    if found.is_free:
        turn.status = turn.status.model_copy(update={"queue": None})
        return True
    turn.status, message, notes = _queued(turn.status, turn.resolved, found, turn.seen.iteration.generation)
    turn.notes.extend(notes)
    _set_condition(turn, SUSPENDED, True, QUEUED, message)
    return False


def _resume(turn: Turn) -> None:
    suspended = condition(turn.status.conditions, SUSPENDED)
    if suspended is not None and suspended.status == "True":
        turn.note("Resumed", "spec.suspend is false", f"{turn.seen.iteration.generation}")
        _set_condition(turn, SUSPENDED, False, "Resumed", "spec.suspend is false")


# the end


def _finish(turn: Turn) -> None:
    model = turn.status.model
    verdict = turn.entry(Stage.EVALUATION).message or ""
    accepted = model is not None and model.accepted
    phase = Phase.SUCCEEDED if accepted else Phase.REJECTED
    note = "GateAccepted" if accepted else "GateRejected"
    turn.note(note, verdict, "gate", warning=not accepted)
    _set_condition(turn, COMPLETE, True, phase.value, verdict)
    _set_condition(turn, MODEL_ACCEPTED, accepted, note, verdict)
    turn.status = turn.status.model_copy(
        update={"phase": phase, "stage": None, "completion_time": turn.now.replace(microsecond=0)}
    )


def _fail(turn: Turn, stage: Stage) -> None:
    message = f"{stage}: {turn.entry(stage).message}"
    reason = (turn.entry(stage).message or "").split(":", 1)[0]
    for entry in turn.status.stages:
        stop(turn, entry.name)
    turn.note("Failed", message, "end", warning=True)
    _set_condition(turn, FAILED, True, reason if reason.isidentifier() else "StageFailed", message)
    turn.status = turn.status.model_copy(
        update={"phase": Phase.FAILED, "stage": stage, "completion_time": turn.now.replace(microsecond=0)}
    )


def _after_the_end(spec: Spec, status: Status, seen: Observed, platform: Platform, now: datetime) -> Plan:
    """Clean up, and remove the resource when its time is over. The status does not change any more."""
    live = [j for j in seen.jobs if j.is_live]
    delete = tuple(ChildRef(j.name, j.uid) for j in live if not may_linger(status, j, now))
    noted = status.model_copy(update={"observed_generation": seen.iteration.generation})
    new = None if noted == status else noted
    if live:
        return Plan(delete=delete, status=new, look_again_in=timedelta(seconds=platform.poll_seconds))
    due = end_of_life(status.completion_time, spec.ttl_seconds_after_finished)
    if due is None:
        return Plan(status=new)
    if now >= due:
        return Plan(status=new, remove_iteration=True)
    return Plan(status=new, look_again_in=due - now)
