"""What the operator asks of kopf, and what it lets it keep."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kopf
import pytest

from dpe_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from dpe_operator.main import _Backoffs, _lighten, configure

BODY: dict[str, Any] = {
    "metadata": {
        "name": "i0",
        "uid": "u",
        "resourceVersion": "5",
        "labels": {"a": "b"},
        "finalizers": ["dpe.dev/operator"],
        "deletionTimestamp": "2026-01-01T12:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {"model": {"uri": "s3://dpe/models/base"}},
    "status": {"phase": "Training"},
}


def test_kopf_keeps_of_an_object_what_it_decides_on_itself():
    body = {**BODY, "metadata": dict(BODY["metadata"])}
    _lighten(body)
    metadata = {key: value for key, value in BODY["metadata"].items() if key != "managedFields"}
    assert body == {"metadata": metadata}


def test_kopf_copies_no_object_to_compare_it_and_lists_a_part_at_a_time():
    settings = kopf.OperatorSettings()
    configure(settings)
    compared = settings.persistence.diffbase_storage
    assert compared.build(body=kopf.Body(BODY)) == {}  # type: ignore[arg-type]
    assert compared.fetch(body=kopf.Body(BODY)) is None  # type: ignore[arg-type]
    assert settings.watching.chunk_size is not None


def _resource(plural: str, kind: str) -> dict[str, Any]:
    verbs = ["list", "watch", "patch"]
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}


class Cluster:
    """An API server with an iteration in each namespace, of which some may not be looked at."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.refusals = set(refused), 0
        self.refused_often = threading.Event()
        """Set when a namespace was refused more often than kopf would try by a list of pauses."""
        self.address = ""

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        crds = "apiextensions.k8s.io"
        groups = [(GROUP, VERSION), (crds, "v1")]
        known: dict[str, dict[str, Any]] = {
            "/api": {"versions": ["v1"]},
            "/apis": {
                "groups": [
                    {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}} for g, v in groups
                ]
            },
            "/api/v1": {"resources": [_resource("namespaces", "Namespace"), _resource("events", "Event")]},
            f"/apis/{crds}/v1": {"resources": [_resource("customresourcedefinitions", "CustomResourceDefinition")]},
            f"/apis/{API_VERSION}": {"resources": [_resource(PLURAL, KIND)]},
        }
        if path in known:
            return 200, known[path]
        namespace = path.split("/namespaces/")[1].split("/")[0]
        if namespace in self.refused:
            self.refusals += 1
            if self.refusals > 20:
                self.refused_often.set()
            return 403, {"kind": "Status", "code": 403, "message": "no right"}
        body = {
            "metadata": {"namespace": namespace, "name": "i0", "uid": f"uid-in-{namespace}", "resourceVersion": "1"}
        }
        return 200, {"metadata": {"resourceVersion": "1"}, "items": [body]}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster("gone")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "watch=true" in self.path:
                time.sleep(0.05)  # a watch in which nothing happens
                status, body = 200, None
            else:
                status, body = found.answer(self.path.split("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if body is not None:
                self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield found
        server.shutdown()


async def test_a_namespace_that_is_gone_stops_no_other_and_is_looked_at_when_it_is_there_again(cluster: Cluster):
    settings, registry, stop = kopf.OperatorSettings(), kopf.OperatorRegistry(), asyncio.Event()
    configure(settings)
    settings.networking.error_backoffs = _Backoffs(*[0.01] * 7)
    seen = {"gone": asyncio.Event(), "lab": asyncio.Event()}

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=cluster.address)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def changed(namespace: str, **_: Any) -> None:
        seen[namespace].set()

    running = asyncio.create_task(
        kopf.operator(registry=registry, settings=settings, standalone=True, namespaces=["gone", "lab"], stop_flag=stop)
    )
    await asyncio.wait_for(seen["lab"].wait(), 15)
    assert await asyncio.to_thread(cluster.refused_often.wait, 15)
    assert not running.done()
    assert not seen["gone"].is_set()
    cluster.refused.clear()
    await asyncio.wait_for(seen["gone"].wait(), 15)
    stop.set()
    await running


def test_kopf_never_stops_trying_and_never_waits_for_long() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    backoffs: Any = settings.networking.error_backoffs
    for _ in range(2):  # each request begins anew
        first = [pause for pause, _ in zip(backoffs, range(1000), strict=False)]
        assert (len(first), first[0], max(first)) == (1000, 0.2, 10)
