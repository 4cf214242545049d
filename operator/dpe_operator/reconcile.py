"""observe -> decide -> act, for one iteration, until it is gone."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from dpe_api.spec import Spec
from dpe_api.status import Phase, Status
from dpe_operator import metrics, tracing
from dpe_operator.census import Census
from dpe_operator.conditions import ACCEPTED, shorten, with_condition
from dpe_operator.decide import decide
from dpe_operator.gateway import Conflict, Created, Gateway, NotAdmitted, is_refused
from dpe_operator.holding import awaits_claim, held_s
from dpe_operator.loops import Loop
from dpe_operator.observe import identity, observe
from dpe_operator.plan import Child, Note, Plan
from dpe_operator.platform import Platform
from dpe_operator.queueing import Queue, Standing, entry_of
from dpe_operator.shared import Shared
from dpe_operator.storage import Storage
from dpe_operator.stored import field_of, read_spec, unreadable
from dpe_operator.world import Iteration, Observed, about

log = logging.getLogger(__name__)

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # after errors of the API server
CONFLICTS = 3  # so many in a row are tried again at once
LOOKS_PER_S = 10  # beside those that events cause: with many iterations, each is polled less often
LISTS_PER_S = 4  # of few; a crowd is listed at once
UNCLAIMED_S = 1.0  # until an iteration without our finalizer is looked at again, if no event comes first
SOON_S = 3600.0  # a loop whose next look is later than that, or waits for an event, asks for nothing meanwhile
YOUNG_S = 600.0  # in which an operator may not have heard of all iterations yet
STALE_S = 180.0  # a loop that is this late is stuck: requests end after 35 s


@dataclass(slots=True)
class Operator:
    """What all loops share."""

    gateway: Gateway
    storage: Storage
    platform: Platform
    queue: Queue
    tracer: tracing.Tracer = field(default_factory=tracing.Off)
    loops: dict[tuple[str, str], Loop] = field(default_factory=dict)
    """Of iterations, by namespace and name."""
    runs: dict[tuple[str, str], Loop] = field(default_factory=dict)
    """Of runs, by namespace and name."""
    unlisted: set[str] = field(default_factory=set)
    """Namespaces of which the queue knows nothing yet: the API server does not let us look at them."""
    census: Census = field(init=False)
    waiting: Shared[dict[str, str]] = field(init=False)
    """By namespace: iterations that have not begun, and those whose models they are to begin with."""
    began: float = field(default_factory=time.monotonic)
    """time.monotonic() of its start."""

    def __post_init__(self) -> None:
        self.census = Census(self.gateway, self.loops)
        self.waiting = Shared(self._list_waiting)

    def stale(self) -> list[str]:
        """Names of iterations and runs that are not looked at in time."""
        late = time.monotonic() - STALE_S
        loops = [*self.loops.values(), *self.runs.values()]
        return [f"{loop.namespace}/{loop.name}" for loop in loops if loop.due < late]

    def _polled(self) -> int:
        """Iterations that are looked at again and again; those that have ended are not."""
        soon = time.monotonic() + SOON_S
        return sum(loop.due < soon for loop in self.loops.values())

    def pace(self) -> Platform:
        """The platform, with times between looks that grow with the number of iterations."""
        least = self._polled() / LOOKS_PER_S
        facts = self.platform
        if least <= min(facts.poll_seconds, facts.resync_seconds):
            return facts
        longer = {n: max(least, getattr(facts, n)) for n in ("poll_seconds", "resync_seconds")}
        return facts.model_copy(update=longer)

    def relist_s(self) -> float:
        """How long events are trusted at most without a list, in seconds; the more iterations, the longer."""
        return max(self.platform.resync_seconds, self._polled() / LISTS_PER_S)

    def enqueue(self, body: dict[str, Any]) -> None:
        """Tell the queue what an iteration is now, and wake those whose turn it is."""
        if self.queue.put(body):
            self._call_next()

    async def is_waited_for(self, namespace: str, *names: str) -> bool:
        """Another iteration that has not started yet is to begin with the model of one of these: that one has to be
        there for it. What one of these waits for does not count.

        The loops know; those of an operator that has just started ask the API server, which has all of them.
        """
        for loop in self.loops.values():
            if loop.namespace != namespace or loop.name in names or loop.is_gone:
                continue
            if not loop.is_read or loop.refers_to in names:
                body = loop.memory.iteration()
                if body is None or _has_not_begun(body):
                    return True
        if not names or time.monotonic() - self.began > YOUNG_S:
            return False
        waiting = await asyncio.shield(self.waiting.ask(namespace))
        return any(reference in names for name, reference in waiting.items() if name not in names)

    async def _list_waiting(self, namespace: str) -> dict[str, str]:
        found = {}
        async for page in self.gateway.iteration_pages(namespace):
            for body in page.items:
                reference = _reference(body)
                if reference is not None and _has_not_begun(body):
                    found[body["metadata"]["name"]] = reference
        return found

    def dequeue(self, namespace: str, name: str) -> None:
        """The same for one that is gone."""
        if self.queue.drop(namespace, name):
            self._call_next()

    def dequeue_waiting(self, namespace: str) -> None:
        """The same for all of a namespace that do not run: nobody can let them in."""
        for entry in self.queue.entries:
            if entry.namespace == namespace and entry.standing is not Standing.RUNS:
                self.queue.drop(namespace, entry.name)
        self._call_next()

    async def fill_queue(self, namespace: str) -> None:
        """Tell the queue of all iterations of a namespace; those that have a loop are told by that."""
        for body in await self.gateway.iterations(namespace):
            if (namespace, body["metadata"]["name"]) not in self.loops:
                self.enqueue(body)
        self.unlisted.discard(namespace)

    def _call_next(self) -> None:
        for entry in self.queue.called():
            loop = self.loops.get((entry.namespace, entry.name))
            if loop is not None:
                loop.wake.set()


def _has_not_begun(body: dict[str, Any]) -> bool:
    status = body.get("status") or {}
    return status.get("resolved") is None and status.get("phase") != Phase.FAILED


async def _create(operator: Operator, loop: Loop, iteration: Iteration, children: Sequence[Child]) -> set[str]:
    """Create children side by side. Returns the names that somebody else has."""
    made = await asyncio.gather(*(operator.gateway.create(iteration, child) for child in children))
    for child, (created, body) in zip(children, made, strict=True):
        if child.kind == "Job" and created is not Created.FOREIGN:
            loop.memory.see_job(body, iteration.uid)  # its event may come after the next look
    return {child.name for child, (created, _) in zip(children, made, strict=True) if created is Created.FOREIGN}


async def act(
    operator: Operator, loop: Loop, iteration: Iteration, plan: Plan, write: Callable[[], Awaitable[None]]
) -> bool:
    """Do what a plan says, in its order. False: a name was taken or a child refused, nothing was written down."""
    if plan.delete:
        loop.memory.doubt()  # of pods that nobody has seen yet the next attempt must know
    jobs = [child for child in plan.create if child.kind == "Job"]
    for children in ([child for child in plan.create if child.kind != "Job"], jobs):  # pods find what they mount
        try:
            taken = await _create(operator, loop, iteration, children)
        except NotAdmitted as error:
            log.warning("%s/%s: not admitted: %s", iteration.namespace, iteration.name, error, extra=about(iteration))
            loop.memory.refuse(error.name, str(error), operator.platform.resync_seconds)
            return False
        if taken:
            loop.memory.doubt()
            loop.memory.conflicts = frozenset(taken)
            return False
    await asyncio.gather(*(operator.gateway.note(iteration, note) for note in plan.notes))
    for note in plan.notes:
        said = (iteration.namespace, iteration.name, note.reason, note.message)
        log.info("%s/%s: %s: %s", *said, extra=about(iteration))
    await write()
    for ref in plan.delete:
        await operator.gateway.delete(iteration, ref)
    if plan.remove_iteration:
        await operator.gateway.remove(iteration)
    return True


async def _read(operator: Operator, loop: Loop) -> dict[str, Any] | None:
    """The iteration as it is now; None: it is gone."""
    trusted_s = operator.relist_s()
    body = loop.memory.iteration() if loop.memory.is_recent(loop.trust * trusted_s) else None
    if body is None:
        await operator.census.refresh(loop, trusted_s / 2)
        body = loop.memory.iteration()
    loop.is_gone = body is None
    if body is None:
        if operator.loops.get((loop.namespace, loop.name)) is loop:
            operator.dequeue(loop.namespace, loop.name)
        return None
    loop.refers_to, loop.is_read = _reference(body), True
    return body


async def reconcile(operator: Operator, loop: Loop) -> float | None:
    """One pass. Seconds until the next one, None: only when woken. Conflict: read again at once."""
    body = await _read(operator, loop)
    if body is None:
        return None
    if awaits_claim(loop, body):
        return UNCLAIMED_S
    loop.memory.forgive()
    iteration = identity(body)
    written = body.get("status") or {}
    try:
        status = Status.model_validate(written)
    except ValidationError as error:
        _keep_place(operator, body)
        await _tell_unreadable(operator, iteration, error)
        return operator.platform.resync_seconds
    version = body["metadata"]["resourceVersion"]
    operator.enqueue(body)
    loop.generation, loop.review = iteration.generation, iteration.review

    async def write(new: Status | None) -> None:
        if new is not None:
            loop.memory.see_iteration(await operator.gateway.write_status(iteration, version, written, new.wire()))

    try:
        spec = read_spec(Spec, body["spec"])
    except ValidationError as error:
        if status.resolved is not None or status.phase.is_final:
            raise
        refused = _refused(status, iteration, error)
        await write(None if refused == status else refused)
        return operator.platform.resync_seconds
    platform = operator.pace()
    seen = await observe(operator.gateway, operator.storage, platform, loop.memory, iteration, spec, status)
    # nothing is awaited from here until the queue knows the decision: no other loop sees the same place free
    plan = decide(spec, status, replace(seen, others=operator.queue.entries), platform, datetime.now(UTC))
    if plan.status is not None and operator.queue.is_limited:
        operator.enqueue({**body, "status": plan.status.wire()})
    if plan.remove_iteration and await operator.is_waited_for(iteration.namespace, iteration.name):
        plan = replace(plan, remove_iteration=False, look_again_in=timedelta(seconds=platform.resync_seconds))
    wait_s = held_s(loop, status, plan)
    if wait_s > 0:
        return wait_s if plan.look_again_in is None else min(wait_s, plan.look_again_in.total_seconds())

    async def record() -> None:
        """Accounted at once: where a deletion fails after it, the next look finds nothing new."""
        try:
            await write(plan.status)
        except ApiException as error:
            if is_refused(error):
                operator.enqueue(body)  # one that was let in still waits, and holds no place
            raise
        _account(operator, loop, status, seen, plan)

    if not await act(operator, loop, iteration, plan, record):
        return 0.0  # the next look tells why
    loop.memory.conflicts = frozenset()
    return None if plan.look_again_in is None else plan.look_again_in.total_seconds()


def _account(operator: Operator, loop: Loop, before: Status, seen: Observed, plan: Plan) -> None:
    """Metrics and spans of what a plan has changed, and what is left for the end of the loop."""
    after, now = plan.status or before, datetime.now(UTC)
    loop.running, loop.untold = plan.running, tracing.untold(after, seen, now)
    metrics.count(before, after, seen, plan.charges)
    metrics.show(seen.iteration, after, plan.running)
    operator.tracer.tell(before, after, seen, plan.notes, now)


def _refused(status: Status, iteration: Iteration, error: ValidationError) -> Status:
    """The status of an iteration whose spec is none of this version's."""
    why = shorten(str(error))
    now = datetime.now(UTC)
    conditions = with_condition(status.conditions, ACCEPTED, False, "InvalidSpec", why, iteration.generation, now)
    return status.model_copy(
        update={"conditions": conditions, "observed_generation": iteration.generation, "queue": None}
    )


def _reference(body: dict[str, Any]) -> str | None:
    name: str | None = ((body["spec"].get("model") or {}).get("iterationRef") or {}).get("name")
    return name


def _keep_place(operator: Operator, body: dict[str, Any]) -> None:
    """Of one whose status is not understood: what runs holds its place. One that waits lets the others go before it,
    since nobody decides that it may start.
    """
    if entry_of(body).standing is Standing.RUNS:
        operator.enqueue(body)
    else:
        operator.dequeue(body["metadata"]["namespace"], body["metadata"]["name"])


async def _tell_unreadable(operator: Operator, iteration: Iteration, error: ValidationError) -> None:
    """Nothing is decided on a status that is not understood, and nothing is written over it."""
    message, key = unreadable(error), f"UnreadableStatus/{field_of(error)}"
    await operator.gateway.note(iteration, Note("UnreadableStatus", message, key, warning=True))
    log.warning("%s/%s: %s", iteration.namespace, iteration.name, message, extra=about(iteration))


async def _pause(loop: Loop, seconds: float | None) -> None:
    """Until woken, or the time is over."""
    loop.due = float("inf") if seconds is None else time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await loop.wake.wait()
    loop.due = time.monotonic()


Look = Callable[[Operator, Loop], Awaitable[float | None]]
"""One pass over what a loop looks after."""


async def run(operator: Operator, loop: Loop, stopped: asyncio.Event, look: Look = reconcile) -> None:
    """Look after one iteration or run until `stopped`, of which `loop.wake` tells, too.

    Never raises for what can be tried again.
    """
    errors = conflicts = 0
    told = about(loop)
    while not stopped.is_set():
        loop.wake.clear()
        try:
            with metrics.RECONCILE_DURATION.time():
                pause = await look(operator, loop)
            errors = conflicts = 0
        except Conflict as error:
            loop.memory.doubt()
            pause = 0.0 if conflicts < CONFLICTS else RETRY_S[min(conflicts - CONFLICTS, len(RETRY_S) - 1)]
            conflicts += 1
            if pause:
                log.warning("%s/%s: %s; tries again in %.1f s", loop.namespace, loop.name, error, pause, extra=told)
        except (ApiException, HTTPError, OSError) as error:
            loop.memory.doubt()
            loop.memory.refused.clear()  # an API server that is just starting refuses what it will take
            metrics.RECONCILE_ERRORS.inc()
            pause = RETRY_S[min(errors, len(RETRY_S) - 1)]
            errors += 1
            log.warning("%s/%s: %s; tries again in %.1f s", loop.namespace, loop.name, line(error), pause, extra=told)
        except Exception:
            loop.memory.doubt()
            metrics.RECONCILE_ERRORS.inc()
            pause = RETRY_S[-1]
            log.exception("%s/%s: cannot decide; tries again in %.1f s", loop.namespace, loop.name, pause, extra=told)
        await _pause(loop, pause)


def line(error: Exception) -> str:
    """What was said, on one line."""
    if isinstance(error, ApiException):
        return f"API server: {error.status} {error.reason} {shorten(str(error.body or ''), 300)}"
    return f"API server: {error}"
