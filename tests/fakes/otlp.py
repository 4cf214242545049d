"""A collector of traces: OTLP over HTTP, read by OpenTelemetry's own messages."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.fakes.web import Answer, Site, Visit

OK, ERROR = Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Sent:
    """One span. Ids are hexadecimal, the parent of a root is empty, times are in seconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    status: int
    said: str
    about: Mapping[str, object]
    service: Mapping[str, object]


def _values(attributes) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


class Collector:
    """Has what was sent to `url`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.url = site.url

    @property
    def raw(self) -> bytes:
        """Everything, as it came over the wire."""
        return b"".join(visit.body for visit in self._site.visits)

    @property
    def spans(self) -> list[Sent]:
        """All of them, in the order of their ends."""
        found = []
        for visit in self._site.visits:
            assert visit.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(visit.body).resource_spans:
                service = _values(resource.resource.attributes)
                found += [_sent(span, service) for scope in resource.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.ended)

    def named(self, name: str) -> list[Sent]:
        """Those with this name."""
        return [span for span in self.spans if span.name == name]

    def wait_for(self, name: str, seconds: float = 20) -> Sent:
        """The first with this name; AssertionError when none comes."""
        end = time.monotonic() + seconds
        while not (found := self.named(name)):
            assert time.monotonic() < end, f"no span {name!r} in {seconds} s: {[s.name for s in self.spans]}"
            time.sleep(0.02)
        return found[0]


def _sent(span, service: Mapping[str, object]) -> Sent:
    return Sent(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano / 1e9,
        ended=span.end_time_unix_nano / 1e9,
        status=span.status.code,
        said=span.status.message,
        about=_values(span.attributes),
        service=service,
    )


def _taken(_: Visit) -> Answer:
    return Answer(b"", headers={"Content-Type": "application/x-protobuf"})


@contextmanager
def collecting(host: str = "127.0.0.2") -> Iterator[Collector]:
    """A collector that listens."""
    site = Site({"/v1/traces": _taken}, host)
    site.start()
    try:
        yield Collector(site)
    finally:
        site.close()
