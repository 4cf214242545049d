"""observe -> decide -> act, for one run."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from dpe_api.names import LABEL_RETRY, LABEL_ROUND
from dpe_api.run_spec import RunSpec
from dpe_api.run_status import RunStatus
from dpe_api.status import Status
from dpe_operator.conditions import shorten
from dpe_operator.gateway import Created, Gateway, NotAdmitted, owned
from dpe_operator.loops import Loop
from dpe_operator.observe import Memory
from dpe_operator.observe import identity as iteration_identity
from dpe_operator.reconcile import Operator
from dpe_operator.runs.decide import decide
from dpe_operator.runs.iteration import ANNOTATION_SUSPENDED
from dpe_operator.runs.table import is_settled
from dpe_operator.runs.world import RoundSeen, RunPlan, RunSeen
from dpe_operator.stored import read_spec, unreadable
from dpe_operator.world import Iteration, Run, about

log = logging.getLogger(__name__)


class UnreadableRound(Exception):
    """The status of one of the run's iterations is not understood."""


def identity(body: dict[str, Any]) -> Run:
    """Identity of a DPERun."""
    metadata = body["metadata"]
    return Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=metadata.get("labels") or {},
        deleting="deletionTimestamp" in metadata,
    )


def round_seen(body: dict[str, Any], known: RunStatus) -> RoundSeen | None:
    """One of the run's iterations; None when its labels do not tell its round. UnreadableRound.

    Where the table takes nothing more from it, its status does not matter: what a newer operator judged does not keep
    an older one from the rounds after it.
    """
    metadata, spec = body["metadata"], body["spec"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    number, retry = labels.get(LABEL_ROUND, ""), labels.get(LABEL_RETRY, "0")
    if not number.isdecimal() or not retry.isdecimal():
        said = "%s: labels %s and %s are no numbers: not counted"
        log.warning(said, metadata["name"], LABEL_ROUND, LABEL_RETRY, extra=about(iteration_identity(body)))
        return None
    try:
        status = Status.model_validate(body.get("status") or {})
    except ValidationError as error:
        if not is_settled(known.rounds, int(number), int(retry)):
            raise UnreadableRound(f"DPEIteration {metadata['name']}: {unreadable(error)}") from error
        status = Status()
    return RoundSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        round=int(number),
        retry=int(retry),
        status=status,
        reference=((spec.get("model") or {}).get("iterationRef") or {}).get("name"),
        seed=spec.get("seed"),
        suspended=bool(spec.get("suspend")),
        suspended_by_run=ANNOTATION_SUSPENDED in annotations,
        deleting="deletionTimestamp" in metadata,
    )


async def observe(gateway: Gateway, memory: Memory, run: Run, known: RunStatus) -> RunSeen:
    """One look at the run's iterations. UnreadableRound."""
    listed = await gateway.iterations_of(run)
    rounds = [round_seen(body, known) for body in listed if owned(body, run)]
    foreign = {body["metadata"]["name"] for body in listed if not owned(body, run)}
    return RunSeen(
        run=run,
        rounds=tuple(r for r in rounds if r is not None),
        foreign=frozenset(foreign) | memory.conflicts,
        not_admitted=memory.not_admitted(),
    )


def _iteration(run: Run, seen: RoundSeen) -> Iteration:
    return Iteration(run.namespace, seen.name, seen.uid)


async def _begin(operator: Operator, loop: Loop, run: Run, plan: RunPlan) -> bool:
    """Create the next iteration. False: it was not created, and the run is to be looked at again."""
    if plan.create is None:
        return True
    try:
        created = await operator.gateway.begin_round(run, plan.create)
    except NotAdmitted as error:
        loop.memory.refuse(error.name, str(error), 0.0)
        return False
    if created is Created.FOREIGN:
        loop.memory.conflicts = frozenset({plan.create["metadata"]["name"]})
    return created is not Created.FOREIGN


async def reconcile_run(operator: Operator, loop: Loop) -> float | None:
    """One pass. Seconds until the next one, None: only when woken. Conflict: read again at once."""
    gateway = operator.gateway
    body = await gateway.run(loop.namespace, loop.name)
    if body is None or body["metadata"]["uid"] != loop.uid:
        return None
    run, written, version = identity(body), body.get("status") or {}, body["metadata"]["resourceVersion"]
    loop.generation = run.generation
    resync_s = operator.platform.resync_seconds
    try:
        spec, status = read_spec(RunSpec, body["spec"]), RunStatus.model_validate(written)
    except ValidationError as error:
        # the API server has checked both by the same models: it serves a definition of another version
        log.error(
            "%s/%s: is of another version than this operator: %s", run.namespace, run.name, error, extra=about(run)
        )
        return resync_s
    try:
        seen = await observe(gateway, loop.memory, run, status)
    except UnreadableRound as error:
        log.warning("%s/%s: %s", run.namespace, run.name, error, extra=about(run))
        waits = status.model_copy(update={"message": shorten(str(error))})
        if waits != status and not status.phase.is_complete:
            await gateway.write_status(run, version, written, waits.wire())
        return resync_s
    plan = decide(spec, status, seen, datetime.now(UTC), timedelta(seconds=resync_s))
    if not await _begin(operator, loop, run, plan):
        return 0.0
    if plan.suspend is not None:
        seen_round, suspend = plan.suspend
        mark = {"metadata": {"annotations": {ANNOTATION_SUSPENDED: "true" if suspend else None}}}
        await gateway.change(_iteration(run, seen_round), {**mark, "spec": {"suspend": suspend}})
    for note in plan.notes:
        await gateway.note(run, note)
        log.info("%s/%s: %s: %s", run.namespace, run.name, note.reason, note.message, extra=about(run))
    if plan.status is not None:
        await gateway.write_status(run, version, written, plan.status.wire())
    if plan.delete is not None:
        await gateway.remove(_iteration(run, plan.delete))
    if plan.remove_run and await operator.is_waited_for(run.namespace, *(r.name for r in seen.rounds)):
        plan = replace(plan, look_again_in=timedelta(seconds=resync_s))  # its iterations would go with it
    elif plan.remove_run:
        await gateway.remove(run)
    loop.memory.conflicts = frozenset()
    loop.memory.refused.clear()
    return None if plan.look_again_in is None else plan.look_again_in.total_seconds()
