"""The next step of one run, as a pure function: wait for the round that runs, end, or begin the next."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dpe_api.names import Stage, round_name
from dpe_api.run_spec import OnRejected, RunSpec
from dpe_api.run_status import Round, RunPhase, RunStatus
from dpe_api.status import Phase
from dpe_operator.conditions import (
    ACCEPTED,
    COMPLETE,
    FAILED,
    QUEUED,
    SUSPENDED,
    condition,
    end_of_life,
    shorten,
    with_condition,
)
from dpe_operator.plan import Note
from dpe_operator.runs import table
from dpe_operator.runs.iteration import next_iteration
from dpe_operator.runs.world import RoundSeen, RunPlan, RunSeen
from dpe_operator.summaries import percent


@dataclass(slots=True)
class _Turn:
    """One look at one run. Functions below collect here what to do."""

    spec: RunSpec
    status: RunStatus
    seen: RunSeen
    now: datetime
    resync: timedelta
    notes: list[Note] = field(default_factory=list)
    plan: RunPlan = field(default_factory=RunPlan)

    def note(self, reason: str, message: str, key: str, *, warning: bool = False) -> None:
        self.notes.append(Note(reason, shorten(message), f"{reason}/{key}", warning))

    def update(self, **changes: object) -> None:
        self.status = self.status.model_copy(update=changes)

    def set_condition(self, kind: str, value: bool, reason: str, message: str) -> None:
        generation = self.seen.run.generation
        conditions = with_condition(self.status.conditions, kind, value, reason, message, generation, self.now)
        self.update(conditions=conditions)

    def is_true(self, kind: str) -> bool:
        found = condition(self.status.conditions, kind)
        return found is not None and found.status == "True"

    def wait(self, phase: RunPhase, message: str | None) -> None:
        """Nothing to do until something happens, or the resync comes."""
        self.update(phase=phase, message=None if message is None else shorten(message))


def decide(spec: RunSpec, status: RunStatus, seen: RunSeen, now: datetime, resync: timedelta) -> RunPlan:
    """Choose the next step of one run. Pure: no clock, no cluster."""
    if seen.run.deleting:
        return RunPlan()
    if status.phase.is_complete:
        return _after_the_end(spec, status, seen, now)
    turn = _Turn(spec, table.summarise(status, spec, seen.rounds), seen, now, resync)
    _tell_results(turn, status.rounds)
    _advance(turn)
    if turn.status.start_time is None and (turn.status.rounds or turn.plan.create is not None):
        # also when the status of the look that created the first round was never written
        turn.update(start_time=now.replace(microsecond=0))
    after = table.fit(turn.status.model_copy(update={"observed_generation": seen.run.generation}))
    again, removes = _look_again(turn, after)
    return RunPlan(
        create=turn.plan.create,
        suspend=turn.plan.suspend,
        delete=turn.plan.delete,
        status=None if after == status else after,
        notes=tuple(turn.notes),
        remove_run=removes,
        look_again_in=again,
    )


def _look_again(turn: _Turn, after: RunStatus) -> tuple[timedelta | None, bool]:
    """When to look again, and whether a failed run's time to live is over."""
    if after.phase is not RunPhase.FAILED:
        return turn.resync, False
    due = end_of_life(after.completion_time, turn.spec.ttl_seconds_after_finished)
    if due is None:
        return turn.resync, False
    return min(turn.resync, max(due - turn.now, timedelta(0))), turn.now >= due


def _tell_results(turn: _Turn, before: list[Round]) -> None:
    """An Event for each round that has been judged since."""
    known = {(r.round, r.retry) for r in before if r.phase in table.JUDGED}
    for entry in turn.status.rounds:
        if entry.phase not in table.JUDGED or (entry.round, entry.retry) in known:
            continue
        accepted = entry.phase is Phase.SUCCEEDED
        said = f"round {entry.round}, {entry.iteration}: {_result(entry)}"
        name = "RoundAccepted" if accepted else "RoundRejected"
        turn.note(name, said, f"{entry.round}/{entry.retry}", warning=not accepted)


def _result(entry: Round) -> str:
    if entry.before is None or entry.after is None or entry.change is None:
        return str(entry.phase)
    low, high = (f"{100 * value:+.1f}" for value in (entry.change.low, entry.change.high))
    return f"accuracy {percent(entry.before)} to {percent(entry.after)}, change {low} to {high} points"


def _advance(turn: _Turn) -> None:
    current = turn.status.rounds[-1] if turn.status.rounds else None
    seen = None if current is None else turn.seen.named(current.iteration)
    if current is None:
        return _begin(turn, 1, 0)
    if current.phase in table.JUDGED:
        return _after_round(turn, current)
    if seen is None:
        return _begin_anew(turn, current)
    if seen.deleting:
        return turn.wait(RunPhase.RUNNING, f"{seen.name} is being deleted: round {current.round} begins anew after it")
    if current.phase is Phase.FAILED:
        return _fail(turn, current, seen)
    return _accompany(turn, current, seen)


# while a round runs


def _accompany(turn: _Turn, current: Round, seen: RoundSeen) -> None:
    """A round that runs: pass suspension on, and say what it waits for."""
    if _is_orphan(turn, seen):
        turn.plan = RunPlan(delete=seen)
        turn.note(
            "PreviousDeleted", f"{seen.name} continues from {seen.reference}, which was deleted: begun anew", seen.uid
        )
        return turn.wait(RunPhase.RUNNING, f"{seen.name} is begun anew: {seen.reference} was deleted")
    if turn.spec.suspend:
        if not seen.suspended:
            turn.plan = RunPlan(suspend=(seen, True))
        return _suspend(turn, None if current.phase is Phase.SUSPENDED else f"waits until {seen.name} has stopped")
    if seen.suspended and seen.suspended_by_run:
        turn.plan = RunPlan(suspend=(seen, False))
    _resume(turn)
    return turn.wait(RunPhase.RUNNING, _waits_for(seen))


def _is_orphan(turn: _Turn, seen: RoundSeen) -> bool:
    """It waits for an iteration that is gone, and would for ever."""
    return seen.status.resolved is None and seen.reference is not None and turn.seen.named(seen.reference) is None


def _waits_for(seen: RoundSeen) -> str | None:
    admitted = condition(seen.status.conditions, ACCEPTED)
    if admitted is not None and admitted.status == "False":
        return f"{seen.name} cannot start: {admitted.reason}: {admitted.message}"
    if seen.status.phase is Phase.AWAITING_REVIEW:
        return f"{seen.name} awaits review: {seen.status.stage_status(Stage.GENERATION).message}"
    held = condition(seen.status.conditions, SUSPENDED)
    if held is not None and held.status == "True" and held.reason == QUEUED:
        return f"{seen.name} waits for its place: {held.message}"
    if seen.status.phase is Phase.SUSPENDED and seen.suspended and not seen.suspended_by_run:
        return f"{seen.name} is suspended by itself, not by the run: set its spec.suspend to false"
    return None


def _begin_anew(turn: _Turn, current: Round) -> None:
    """The iteration of an unfinished round is gone: somebody deleted it."""
    turn.note(
        "IterationDeleted",
        f"{current.iteration} was deleted before its round was judged: it begins anew",
        f"{current.uid}",
        warning=True,
    )
    if turn.is_true(FAILED):
        turn.set_condition(FAILED, False, "Restarted", f"{current.iteration} was deleted: its round begins anew")
        turn.update(completion_time=None)
    _begin(turn, current.round, current.retry)


def _suspend(turn: _Turn, message: str | None) -> None:
    if not turn.is_true(SUSPENDED):
        turn.note("Suspended", "the round that runs is suspended, and no other begins", f"{turn.seen.run.generation}")
    turn.set_condition(SUSPENDED, True, "SuspendRequested", "spec.suspend is true")
    turn.wait(RunPhase.SUSPENDED, message)


def _resume(turn: _Turn) -> None:
    if turn.is_true(SUSPENDED):
        turn.note("Resumed", "spec.suspend is false", f"{turn.seen.run.generation}")
        turn.set_condition(SUSPENDED, False, "Resumed", "spec.suspend is false")


# between rounds


def _after_round(turn: _Turn, last: Round) -> None:
    """End, try once more, or go on."""
    ended = _ends(turn.spec, turn.status, last)
    if ended is not None:
        return _complete(turn, *ended)
    if last.phase is Phase.REJECTED and turn.spec.on_rejected is OnRejected.RETRY:
        return _begin(turn, last.round, last.retry + 1)
    return _begin(turn, last.round + 1, 0)


def _ends(spec: RunSpec, status: RunStatus, last: Round) -> tuple[str, str] | None:
    """Reason and message when the run ends after this round; None when it goes on."""
    rejected, stop, cost = last.phase is Phase.REJECTED, spec.stop, status.cost
    accuracy = table.latest_accuracy(status.rounds)
    if rejected and spec.on_rejected is OnRejected.STOP:
        return "RoundRejected", f"round {last.round} was rejected and spec.onRejected is stop"
    if stop.target_accuracy is not None and accuracy is not None and accuracy >= stop.target_accuracy:
        return "TargetReached", f"accuracy {percent(accuracy)} is at least spec.stop.targetAccuracy"
    if stop.gpu_seconds is not None and cost.gpu_seconds >= stop.gpu_seconds:
        return (
            "BudgetUsed",
            f"{cost.gpu_seconds:.0f} GPU seconds are used, spec.stop.gpuSeconds is {stop.gpu_seconds:g}",
        )
    if stop.tokens is not None and cost.tokens >= stop.tokens:
        return "BudgetUsed", f"{cost.tokens} tokens are used, spec.stop.tokens is {stop.tokens}"
    if rejected and spec.on_rejected is OnRejected.RETRY:
        if last.retry < spec.retries:
            return None
        return "RetriesUsed", f"round {last.round} was rejected {last.retry + 1} times"
    if stop.no_gain_rounds is not None and status.rounds_without_gain >= stop.no_gain_rounds:
        return "NoGain", f"{status.rounds_without_gain} rounds in a row brought no gain"
    if last.round >= spec.max_iterations:
        return "MaxIterations", f"{last.round} rounds are finished"
    return None


def _begin(turn: _Turn, number: int, retry: int) -> None:
    """Create the iteration of a round."""
    if turn.spec.suspend:
        return _suspend(turn, None)
    _resume(turn)
    name = round_name(turn.seen.run.name, number, retry)
    if name in turn.seen.foreign:
        message = f"DPEIteration {name} exists and is not this run's: delete it, or give the run another name"
        turn.note("NameTaken", message, name, warning=True)
        return turn.wait(RunPhase.PENDING if not turn.status.rounds else RunPhase.RUNNING, message)
    if (why := turn.seen.not_admitted.get(name)) is not None:
        message = f"the API server does not take DPEIteration {name}: {why}{_no_change(turn)}"
        turn.note("NotAdmitted", message, name, warning=True)
        return turn.wait(RunPhase.PENDING if not turn.status.rounds else RunPhase.RUNNING, message)
    body, origin = next_iteration(turn.spec, turn.status, turn.seen, number, retry)
    turn.plan = RunPlan(create=body)
    tries = f", retry {retry}" if retry else ""
    turn.note(
        "RoundStarted", f"round {number}{tries}: {name} from {origin}", f"{number}/{retry}/{_count(turn, number)}"
    )
    return turn.wait(RunPhase.RUNNING, None)


def _no_change(turn: _Turn) -> str:
    """What to do where a template that was taken once is not taken any more, as after an upgrade of the definition."""
    if turn.status.start_time is None:
        return ""
    return (
        "; spec.template cannot be changed any more: where it is about that, create a new DPERun from status.model.uri"
    )


def _count(turn: _Turn, number: int) -> str:
    """Tells the Event of a round that begins anew from that of its first beginning."""
    known = next((r for r in turn.status.rounds if r.round == number), None)
    return "" if known is None else f"{known.uid}"


# the end


def _complete(turn: _Turn, reason: str, message: str) -> None:
    model = turn.status.model
    better = model is not None and model.round > 0
    accuracy = f"; accuracy {turn.status.accuracy_first} at first, {turn.status.accuracy_latest} now"
    said = message + (accuracy if turn.status.accuracy_latest else "")
    turn.note("Complete", f"{reason}: {said}", "end")
    if turn.is_true(SUSPENDED):
        _resume(turn)
    turn.set_condition(COMPLETE, True, reason, said)
    turn.update(completion_time=turn.now.replace(microsecond=0))
    turn.wait(RunPhase.SUCCEEDED if better else RunPhase.REJECTED, None)


def _fail(turn: _Turn, current: Round, seen: RoundSeen) -> None:
    """The iteration has failed. The run goes on when that is deleted: its round then begins anew."""
    why = condition(seen.status.conditions, FAILED)
    message = f"{seen.name}: {why.message if why is not None else 'it has failed'}"
    turn.note("Failed", message, f"{current.round}/{seen.uid}", warning=True)
    turn.set_condition(FAILED, True, why.reason if why is not None else "IterationFailed", message)
    if turn.status.completion_time is None:
        turn.update(completion_time=turn.now.replace(microsecond=0))
    turn.wait(RunPhase.FAILED, f"mend the cause, then delete DPEIteration {seen.name}: its round begins anew")


def _after_the_end(spec: RunSpec, status: RunStatus, seen: RunSeen, now: datetime) -> RunPlan:
    """Remove the run when its time is over. The status does not change any more."""
    noted = status.model_copy(update={"observed_generation": seen.run.generation})
    new = None if noted == status else noted
    due = end_of_life(status.completion_time, spec.ttl_seconds_after_finished)
    if due is None:
        return RunPlan(status=new)
    return RunPlan(status=new, remove_run=True) if now >= due else RunPlan(status=new, look_again_in=due - now)
