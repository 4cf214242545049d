"""The table of rounds in a run's status: from the iterations that were seen, and within its size. Pure."""

from collections.abc import Iterable, Sequence

from dpe_api.artifacts import Interval
from dpe_api.run_spec import RunSpec
from dpe_api.run_status import Round, RunModel, RunStatus
from dpe_api.status import Cost, EvaluationStatus, Phase, Status
from dpe_operator.runs.world import RoundSeen
from dpe_operator.summaries import STATUS_LIMIT, headline_set, percent, size

JUDGED = (Phase.SUCCEEDED, Phase.REJECTED)
"""Phases of an iteration whose round is finished: nothing that happens to the iteration later changes its result."""
PAGE = "evaluation/run.html"  # below an iteration's artifacts
_DETAILED = (24, 16, 8, 1)  # newest rounds that keep everything when the table gets too long


def _headline(status: Status) -> EvaluationStatus | None:
    if status.resolved is None:
        return None
    name = headline_set(status.resolved.spec)
    return next((e for e in status.evaluation if e.name == name), None)


def row(seen: RoundSeen, earlier_cost: Cost | None) -> Round:
    """The entry of a round, from its iteration's status."""
    status = seen.status
    compared = _headline(status)
    judged = status.model if status.phase in JUDGED else None
    return Round(
        round=seen.round,
        iteration=seen.name,
        uid=seen.uid,
        retry=seen.retry,
        phase=status.phase,
        before=None if compared is None else compared.before,
        after=None if compared is None else compared.after,
        change=None if compared is None else compared.delta,
        accepted=None if judged is None else judged.accepted,
        kept=None if status.samples is None else status.samples.kept,
        target=None if status.resolved is None else status.resolved.spec.generation.target_samples,
        model=None if judged is None else judged.uri,
        artifacts=status.artifacts,
        cost=status.cost,
        earlier_cost=earlier_cost,
        start_time=status.start_time,
        completion_time=status.completion_time,
    )


def is_settled(rounds: Iterable[Round], number: int, retry: int) -> bool:
    """Whether nothing of a try of a round goes into the table any more: it is judged, or a further try has begun."""
    known = next((r for r in rounds if r.round == number), None)
    return known is not None and (retry < known.retry or (retry == known.retry and known.phase in JUDGED))


def _updated(known: Round | None, seen: RoundSeen) -> Round:
    """The entry of a round after a look at one of its iterations."""
    if known is None:
        return row(seen, None)
    if is_settled([known], seen.round, seen.retry):
        return known
    if seen.uid == known.uid:
        return row(seen, known.earlier_cost)
    # a further try, or the same one begun anew after its iteration was deleted
    return row(seen, known.spent)


def fold(rounds: Sequence[Round], seen: Iterable[RoundSeen]) -> list[Round]:
    """The table with what was seen. A round stays when its iteration is gone; an older try does not come back."""
    table = {r.round: r for r in rounds}
    for iteration in sorted(seen, key=lambda r: (r.round, r.retry)):
        # what is judged counts also while it goes: nothing would bring its verdict back
        if not iteration.deleting or iteration.status.phase in JUDGED:
            table[iteration.round] = _updated(table.get(iteration.round), iteration)
    return [table[number] for number in sorted(table)]


def has_gained(entry: Round) -> bool:
    """An accepted candidate whose change of macro accuracy is above 0 with the confidence of its interval."""
    return entry.accepted is True and entry.change is not None and entry.change.low > 0


def rounds_without_gain(rounds: Sequence[Round]) -> int:
    """Finished rounds in a row, up to the newest, that brought none."""
    count = 0
    for entry in reversed([r for r in rounds if r.phase in JUDGED]):
        if has_gained(entry):
            break
        count += 1
    return count


def accepted_round(rounds: Sequence[Round]) -> Round | None:
    """The newest round whose candidate was accepted."""
    return next((r for r in reversed(rounds) if r.accepted), None)


def latest_accuracy(rounds: Sequence[Round]) -> float | None:
    """Macro accuracy of the model that stands; None before anything was judged."""
    best = accepted_round(rounds)
    if best is not None:
        return best.after
    return next((r.before for r in reversed(rounds) if r.before is not None), None)


def total_cost(rounds: Sequence[Round]) -> Cost:
    """What all tries of all rounds cost."""
    return sum((r.spent for r in rounds), Cost())


def summarise(status: RunStatus, spec: RunSpec, seen: Sequence[RoundSeen]) -> RunStatus:
    """The status with its table, and with what follows from the table."""
    rounds = fold(status.rounds, seen)
    finished = [r for r in rounds if r.phase in JUDGED]
    best, latest = accepted_round(rounds), latest_accuracy(rounds)
    # details of old rounds are dropped: what a later one began with is not what the run began with
    first = next((r.before for r in rounds if r.round == 1 and r.before is not None), None)
    diagnosed = next((s.status.accuracy_before for s in seen if s.round == 1 and s.status.accuracy_before), None)
    evaluated = next((r.artifacts for r in reversed(finished) if r.artifacts), None)
    return status.model_copy(
        update={
            "rounds": rounds,
            "progress": f"{len(finished)}/{spec.max_iterations}",
            "accuracy_first": (status.accuracy_first or diagnosed) if first is None else percent(first),
            "accuracy_latest": status.accuracy_latest if latest is None else percent(latest),
            "rounds_without_gain": rounds_without_gain(rounds),
            "model": RunModel(uri=spec.model.uri, round=0)
            if best is None or best.model is None
            else RunModel(uri=best.model, round=best.round),
            "page": f"{evaluated}/{PAGE}" if evaluated else None,
            "cost": total_cost(rounds),
        }
    )


def fit(status: RunStatus) -> RunStatus:
    """The status within its limit: of the oldest rounds only the verdict stays, their artifacts hold the rest."""
    best = accepted_round(status.rounds)
    for keep in _DETAILED:
        if size(status) <= STATUS_LIMIT:
            break
        old, new = status.rounds[:-keep], status.rounds[-keep:]
        status = status.model_copy(update={"rounds": [*(r if r is best else _verdict(r) for r in old), *new]})
    return status


def _verdict(entry: Round) -> Round:
    """What the course of the run depends on."""
    return Round(
        round=entry.round,
        iteration=entry.iteration,
        retry=entry.retry,
        phase=entry.phase,
        after=None if entry.after is None else round(entry.after, 4),
        change=None if entry.change is None else _rounded(entry.change),
        accepted=entry.accepted,
        cost=entry.spent,
    )


def _rounded(change: Interval) -> Interval:
    return Interval(value=round(change.value, 4), low=round(change.low, 4), high=round(change.high, 4))
