"""Traces: a resource and each attempt of its stages as spans, sent when they end. By OpenTelemetry, off by default.

Their ids come from the resource's uid (dpe_api.trace), so that pods put their own spans below an attempt's before that
has ended, and an operator that is started anew goes on with the same trace.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
from typing_extensions import override

from dpe_api.names import KIND, Stage
from dpe_api.status import Phase, StageState, StageStatus
from dpe_api.status import Status as IterationStatus
from dpe_api.trace import attempt_span_id, root_span_id, trace_id
from dpe_operator.plan import Note
from dpe_operator.world import Iteration, Observed

log = logging.getLogger(__name__)

EXPORT_S = 5.0
FLUSH_S = 3.0
"""Longest wait for the collector when the operator stops."""


@dataclass(frozen=True, slots=True)
class Untold:
    """An iteration that has not ended, and its attempts that run: stage, number and beginning."""

    iteration: Iteration
    attempts: tuple[tuple[Stage, int, datetime], ...]


def untold(status: IterationStatus, seen: Observed, now: datetime) -> Untold | None:
    """What would be told of an iteration that is deleted now; None of one that has ended."""
    if status.phase.is_final:
        return None
    running = [entry for entry in status.stages if entry.state is StageState.RUNNING]
    return Untold(seen.iteration, tuple((e.name, e.attempt, _began(e, e.attempt, seen, now)) for e in running))


class Tracer(Protocol):
    """What tells of two statuses that were written one after the other."""

    def tell(
        self, before: IterationStatus, after: IterationStatus, seen: Observed, notes: Sequence[Note], now: datetime
    ) -> None:
        """Send the attempts and the iteration that have ended between them. `notes` say why."""

    def tell_deleted(self, left: Untold, now: datetime) -> None:
        """Send what was to end by itself, and does not."""

    def close(self) -> None:
        """Send what is left, within FLUSH_S."""


class Off:
    """Sends nothing."""

    def tell(
        self, before: IterationStatus, after: IterationStatus, seen: Observed, notes: Sequence[Note], now: datetime
    ) -> None:
        """Nothing."""

    def tell_deleted(self, left: Untold, now: datetime) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _Given(IdGenerator):
    """Ids that are known beforehand."""

    trace = span = 0

    @override
    def generate_trace_id(self) -> int:
        return self.trace

    @override
    def generate_span_id(self) -> int:
        return self.span


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


class On:
    """Sends spans to a collector. To be used by one thread."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: address of an OTLP collector over HTTP, without /v1/traces."""
        self._ids = _Given()
        resource = Resource.create({"service.name": "dpe-operator"})
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dpe_operator")

    def tell(
        self, before: IterationStatus, after: IterationStatus, seen: Observed, notes: Sequence[Note], now: datetime
    ) -> None:
        """Send the attempts and the iteration that have ended between them. `notes` say why."""
        iteration = seen.iteration
        for entry in after.stages:
            ended = _ended(before.stage_status(entry.name), entry)
            if ended is not None:
                self._attempt(entry, ended, seen, notes, now)
        if after.phase.is_final and not before.phase.is_final:
            failed = after.phase is Phase.FAILED
            span = self._start(iteration, KIND, root_span_id(iteration.uid), iteration.created, root=True)
            span.set_attribute("dpe.phase", after.phase.value)
            span.set_status(Status(StatusCode.ERROR if failed else StatusCode.OK))
            span.end(_nanoseconds(after.completion_time or now))

    def tell_deleted(self, left: Untold, now: datetime) -> None:
        """Send what was to end by itself, and does not: no error, and no success."""
        iteration = left.iteration
        for stage, number, began in left.attempts:
            span = self._start_attempt(iteration, stage, number, began)
            span.set_attribute("dpe.deleted", True)
            span.end(_nanoseconds(max(began, now)))
        root = self._start(iteration, KIND, root_span_id(iteration.uid), iteration.created, root=True)
        root.set_attribute("dpe.deleted", True)
        root.end(_nanoseconds(now))

    def _attempt(self, entry: StageStatus, number: int, seen: Observed, notes: Sequence[Note], now: datetime) -> None:
        began = _began(entry, number, seen, now)
        done = entry.state is StageState.DONE and entry.attempt == number
        end = entry.completion_time if done and entry.completion_time is not None else now
        span = self._start_attempt(seen.iteration, entry.name, number, began)
        if done:
            span.set_status(Status(StatusCode.OK))
        elif entry.state is not StageState.PENDING:  # it was suspended
            # the entry may tell of the next attempt already
            why = next((note.message for note in notes if note.key in _ends(entry.name, number)), entry.message)
            span.set_status(Status(StatusCode.ERROR, why))
        span.end(_nanoseconds(max(began, end)))

    def _start_attempt(self, iteration: Iteration, stage: Stage, number: int, began: datetime) -> trace.Span:
        span = self._start(iteration, stage.value, attempt_span_id(iteration.uid, stage, number), began)
        span.set_attribute("dpe.attempt", number)
        return span

    def _start(
        self, iteration: Iteration, name: str, span_id: str, began: datetime, *, root: bool = False
    ) -> trace.Span:
        self._ids.trace, self._ids.span = int(trace_id(iteration.uid), 16), int(span_id, 16)
        above = SpanContext(
            self._ids.trace, int(root_span_id(iteration.uid), 16), False, TraceFlags(TraceFlags.SAMPLED)
        )
        context = Context() if root else trace.set_span_in_context(NonRecordingSpan(above), Context())
        attributes = {"k8s.namespace.name": iteration.namespace, "dpe.iteration": iteration.name}
        return self._tracer.start_span(name, context, attributes=attributes, start_time=_nanoseconds(began))

    def close(self) -> None:
        """Send what is left, within FLUSH_S."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH_S)


def _ended(before: StageStatus, after: StageStatus) -> int | None:
    """Number of the attempt that has ended between two looks at a stage; None: none has."""
    ran, runs = before.state is StageState.RUNNING, after.state is StageState.RUNNING
    if ran and not (runs and after.attempt == before.attempt):
        return before.attempt
    if before.state is not StageState.DONE and after.state is StageState.DONE and after.attempt > before.attempt:
        return after.attempt
    return None


def _began(entry: StageStatus, number: int, seen: Observed, now: datetime) -> datetime:
    """When an attempt began, as its Job says; where that is gone, its pods. The entry knows of the first one only."""
    job = seen.job(entry.name, number)
    if job is not None:
        return job.created
    if number == 1 and entry.start_time is not None:
        return entry.start_time
    return min((pod.created for pod in seen.pods_of(entry.name, number)), default=now)


def _ends(stage: Stage, number: int) -> tuple[str, str]:
    """Keys of the Events that say why an attempt has ended."""
    return f"Disrupted/{stage}/{number}", f"AttemptFailed/{stage}/{number}"


def tracer(endpoint: str) -> Tracer:
    """By the platform's `tracing.endpoint`: empty, none is sent; nor when OpenTelemetry takes no such settings."""
    if not endpoint:
        return Off()
    try:
        return On(endpoint)
    except Exception as error:  # noqa: BLE001 - it reads many variables, and each has errors of its own
        log.warning("the operator sends no traces: %s: correct the OTEL_ variables of operator.env", error)
        return Off()
