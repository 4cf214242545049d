"""Traces: a span for each HTTP request of a stage, in the trace of its iteration. By OpenTelemetry, off by default.

On where the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT, as the platform's `tracing.endpoint` sets it).
A span has neither headers nor a body, a query or the words of an error: there keys may stand.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dpe_api.launch import Launch
from dpe_api.names import Exit
from dpe_api.trace import trace_id, traceparent

log = logging.getLogger(__name__)

FLUSH_S = 3.0
"""Longest wait for the collector at the end of a process: it must not cost a stage its flush within the pod's grace."""
EXPORT_S = 5.0
_BASE, _TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

_PARENT = "TRACEPARENT"
"""Tells a program that a process starts of the span above it: a convention of OpenTelemetry's, which vLLM knows."""

_W3C = TraceContextTextMapPropagator()
_above: Context | None = None
"""Parent of what is not below another span: threads do not inherit the current one."""


def collector() -> str | None:
    """Address that spans are posted to; None: tracing is off."""
    base = os.environ.get(_BASE)
    return os.environ.get(_TRACES) or (base.rstrip("/") + "/v1/traces" if base else None)


def _parent(launch: Launch) -> Context:
    """The process that started this one, if it is of the same trace; else the attempt."""
    told = _W3C.extract({"traceparent": os.environ.get(_PARENT, "")}, Context())
    uid = launch.iteration.uid
    if format_trace_id(trace.get_current_span(told).get_span_context().trace_id) == trace_id(uid):
        return told
    return _W3C.extract({"traceparent": traceparent(uid, launch.stage, launch.attempt)}, Context())


def _export(launch: Launch, address: str) -> Callable[[], None]:
    """Send spans from now on; returns what sends the last ones, within FLUSH_S."""
    # a hundred modules, for those who want traces
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", f"dpe-{launch.stage}"),
            "k8s.namespace.name": launch.iteration.namespace,
            "k8s.pod.name": socket.gethostname(),
            "dpe.iteration": launch.iteration.name,
            "dpe.attempt": launch.attempt,
        }
    )
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=EXPORT_S)))
    trace.set_tracer_provider(provider)

    def finish() -> None:
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH_S)

    return finish


def _try_export(launch: Launch, address: str) -> Callable[[], None] | None:
    """As `_export`; None when OpenTelemetry takes no such settings: a stage's work is worth more than its trace."""
    try:
        return _export(launch, address)
    except Exception as error:  # noqa: BLE001 - it reads many variables, and each has errors of its own
        log.warning("this process sends no traces: %s: correct the OTEL_ variables of its environment", error)
        return None


@contextmanager
def process(launch: Launch, name: str) -> Iterator[Callable[[Exit], None]]:
    """A process of a stage as one span; to be told with which exit code it ends. Nothing where tracing is off."""
    global _above
    address = collector()
    finish = None if address is None else _try_export(launch, address)
    if finish is None:
        yield lambda _: None
        return
    with _tracer().start_as_current_span(
        name, _parent(launch), record_exception=False, set_status_on_exception=False
    ) as span:
        _above = trace.set_span_in_context(span, Context())
        os.environ[_PARENT] = headers()["traceparent"]

        def ended(code: Exit) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is decided: the last spans are on their way
            span.set_attribute("process.exit.code", int(code))
            if code is not Exit.DONE:
                span.set_status(Status(StatusCode.ERROR, code.name))

        try:
            yield ended
        finally:
            _above = None
    finish()


def _tracer() -> trace.Tracer:
    return trace.get_tracer("dpe_jobs")


@contextmanager
def request(name: str, method: str, url: str, **attributes: str | int) -> Iterator[Span]:
    """The span of one HTTP request; `answered` adds its status. Of `url` only host and path are told.

    Nothing of a `url` that is none: what is wrong with it the client says that is given it next.
    """
    told: dict[str, str | int] = {"http.request.method": method, **attributes}
    with suppress(ValueError):
        parts = urlsplit(url)
        told["url.path"] = parts.path
        if parts.hostname:
            told["server.address"] = parts.hostname
    parent = None if trace.get_current_span().get_span_context().is_valid else _above
    with _tracer().start_as_current_span(
        name, parent, SpanKind.CLIENT, told, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def answered(span: Span, status: int) -> None:
    """The status of a reply."""
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR, f"HTTP {status}"))


def headers() -> dict[str, str]:
    """What tells a server the current span, so that its own spans are below; empty where tracing is off."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier
