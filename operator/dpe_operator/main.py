"""Wires kopf: one daemon per DPEIteration and DPERun, woken by events of its children. Everything else is elsewhere."""

import argparse
import asyncio
import gc
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import kopf
from kubernetes.client.exceptions import ApiException
from prometheus_client import start_http_server
from pydantic import ValidationError
from typing_extensions import override
from urllib3.exceptions import HTTPError

from dpe_api.names import (
    ANNOTATION_REVIEW,
    GROUP,
    LABEL_ITERATION,
    LABEL_RUN,
    METRICS_PORT,
    PLURAL,
    RUN_KIND,
    RUN_PLURAL,
    VERSION,
)
from dpe_operator import metrics, tracing
from dpe_operator.gateway import Gateway, connect, is_refused
from dpe_operator.health import HEALTH_PORT, Health, serve_health
from dpe_operator.holding import FINALIZER
from dpe_operator.loops import Loop
from dpe_operator.manifests.common import MANAGER
from dpe_operator.platform import PLATFORM_PATH, Platform, read_platform
from dpe_operator.queueing import Queue
from dpe_operator.reconcile import RETRY_S, Operator, line, run
from dpe_operator.runs.reconcile import reconcile_run
from dpe_operator.storage import Storage, keys

log = logging.getLogger(__name__)

ENV_NAMESPACES = "DPE_NAMESPACES"
_CHILDREN = {"app.kubernetes.io/managed-by": MANAGER, LABEL_ITERATION: kopf.PRESENT}
_THREADS = 32  # for blocking clients; the gateway and the store bound themselves below that
_YOUNG = 20_000  # objects: a page of a list has more than Python's 700, and each collection half-way halves the speed


class _NoDiffs(kopf.DiffBaseStorage):  # type: ignore[misc]
    """No handler asks what has changed; to be able to say it, kopf copies every object of every event deeply, twice."""

    @override
    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    @override
    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    @override
    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("there is no handler whose success would be stored")


class _Backoffs:
    """Seconds between the tries of one request of kopf, without an end.

    After the last one kopf would stop altogether, and with it the work of all namespaces for the trouble of one: of a
    namespace that is deleted every list and watch is answered 403.
    """

    def __init__(self, *seconds: float) -> None:
        self._seconds = seconds

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(self._seconds, itertools.repeat(self._seconds[-1]))


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's settings: no rights beyond the namespaces, no posts of its own, quick recovery from an outage."""
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.watching.chunk_size = 100  # objects: a list of all at the start is memory that never comes back
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 600
    settings.watching.connect_timeout = 10
    chosen = f"app.kubernetes.io/managed-by={MANAGER},{LABEL_ITERATION}"  # of what others run nothing is sent
    settings.watching.label_selectors["batch", "v1", "jobs"] = chosen
    settings.watching.label_selectors["", "v1", "pods"] = chosen
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs(0.2, 0.5, 1, 2, 3, 3, 3, 5, 10)
    settings.background.instant_exit_timeout = 3  # a daemon ends within milliseconds, but not at once
    settings.queueing.error_delays = (1, 2, 5, 10)


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """The login, the daemons, and the events that wake them."""
    kopf.on.login(registry=registry)(kopf.login_via_client)
    _register_runs(registry, operator)

    @kopf.daemon(GROUP, VERSION, PLURAL, registry=registry, cancellation_backoff=5, cancellation_timeout=5)  # type: ignore[untyped-decorator]
    async def look_after(namespace: str, name: str, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        loop = operator.loops[namespace, name] = Loop(namespace, name, uid)
        waker = asyncio.create_task(_pass_on(stopped, loop))
        try:
            await run(operator, loop, loop.ended)
        finally:
            waker.cancel()
            _leave(operator, loop)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)  # type: ignore[untyped-decorator]
    async def iteration_changed(
        namespace: str, name: str, labels: Mapping[str, str], body: kopf.Body, event: Any, **_: Any
    ) -> None:
        above = operator.runs.get((namespace, labels.get(LABEL_RUN, "")))
        if above is not None:
            above.wake.set()
        own = operator.loops.get((namespace, name))
        if own is None and event["type"] == "DELETED":
            operator.dequeue(namespace, name)
        elif own is None and not operator.queue.knows(namespace, name):
            operator.enqueue(event["object"])  # its own loop is about to look; until then nobody overtakes it
        if own is not None and body["metadata"]["uid"] == own.uid:
            own.memory.see_iteration(event["object"], gone=event["type"] == "DELETED")
        review = (body["metadata"].get("annotations") or {}).get(ANNOTATION_REVIEW, "")
        if own is not None and (body["metadata"].get("generation"), review) != (own.generation, own.review):
            own.wake.set()
        if own is not None and _is_end_of(own, event):
            own.end(deleted=True)
        for loop in operator.loops.values():
            if loop.namespace == namespace and loop.refers_to == name:
                loop.wake.set()
        _lighten(event["object"])

    @kopf.on.event("batch", "v1", "jobs", labels=_CHILDREN, registry=registry)  # type: ignore[untyped-decorator]
    async def job_changed(namespace: str, labels: Mapping[str, str], event: Any, **_: Any) -> None:
        loop = operator.loops.get((namespace, labels[LABEL_ITERATION]))
        if loop is not None and loop.memory.see_job(event["object"], loop.uid, gone=event["type"] == "DELETED"):
            loop.wake.set()
        _lighten(event["object"])

    @kopf.on.event("", "v1", "pods", labels=_CHILDREN, registry=registry)  # type: ignore[untyped-decorator]
    async def pod_changed(namespace: str, labels: Mapping[str, str], event: Any, **_: Any) -> None:
        loop = operator.loops.get((namespace, labels[LABEL_ITERATION]))
        if loop is not None and loop.memory.see_pod(event["object"], loop.uid, gone=event["type"] == "DELETED"):
            loop.wake.set()
        _lighten(event["object"])


def _leave(operator: Operator, loop: Loop) -> None:
    """Forget an iteration that nobody looks after any more."""
    if loop.deleted:
        metrics.charge(loop.running)  # no status will; of an operator that ends, the next one will
        if loop.untold is not None:
            operator.tracer.tell_deleted(loop.untold, datetime.now(UTC))
    if operator.loops.get((loop.namespace, loop.name)) is loop:
        del operator.loops[loop.namespace, loop.name]
        operator.dequeue(loop.namespace, loop.name)
        metrics.forget(loop.namespace, loop.name)


def _lighten(body: dict[str, Any]) -> None:
    """Take out what only handlers read.

    Kopf keeps an object that has a daemon as its last event showed it, and any other for some seconds: at the start
    that would be all pods of all iterations at once.
    """
    body["metadata"].pop("managedFields", None)
    body.pop("spec", None)
    body.pop("status", None)


def _register_runs(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """The daemon of runs; events of their iterations wake it, too."""

    @kopf.daemon(GROUP, VERSION, RUN_PLURAL, registry=registry, cancellation_backoff=5, cancellation_timeout=5)  # type: ignore[untyped-decorator]
    async def look_after_run(namespace: str, name: str, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        loop = operator.runs[namespace, name] = Loop(namespace, name, uid, RUN_KIND)
        waker = asyncio.create_task(_pass_on(stopped, loop))
        try:
            await run(operator, loop, loop.ended, reconcile_run)
        finally:
            waker.cancel()
            if operator.runs.get((namespace, name)) is loop:
                del operator.runs[namespace, name]

    @kopf.on.event(GROUP, VERSION, RUN_PLURAL, registry=registry)  # type: ignore[untyped-decorator]
    async def run_changed(namespace: str, name: str, body: kopf.Body, event: Any, **_: Any) -> None:
        own = operator.runs.get((namespace, name))
        if own is not None and body["metadata"].get("generation") != own.generation:
            own.wake.set()
        if own is not None and _is_end_of(own, event):
            own.end(deleted=True)
        _lighten(event["object"])


async def _pass_on(stopped: kopf.DaemonStopped, loop: Loop) -> None:
    await stopped.wait()
    loop.end(deleted=stopped.reason is not None and kopf.DaemonStoppingReason.RESOURCE_DELETED in stopped.reason)


def _is_end_of(loop: Loop, event: Any) -> bool:
    """It has vanished under its loop: before it had the finalizer, which makes kopf end the loop first."""
    return bool(event["type"] == "DELETED" and event["object"]["metadata"]["uid"] == loop.uid)


async def fill_queue(operator: Operator, namespaces: list[str]) -> None:
    """Learn who runs and who waits before anybody is let in; returns when the API server has said it.

    What it does not let us look at, for longer than while it starts, is left out until it can be listed (Health): the
    others do not wait for it.
    """
    if operator.queue.is_limited:
        await asyncio.gather(*(_fill_queue(operator, namespace) for namespace in namespaces))


async def _fill_queue(operator: Operator, namespace: str) -> None:
    for pause_s in itertools.chain(RETRY_S, itertools.repeat(None)):
        try:
            await operator.fill_queue(namespace)
        except (ApiException, HTTPError, OSError) as error:
            if pause_s is None and is_refused(error):
                log.error("namespace %s: cannot list iterations: %s; begins without them", namespace, line(error))
                operator.unlisted.add(namespace)
                return
            wait_s = RETRY_S[-1] if pause_s is None else pause_s
            log.warning(
                "namespace %s: cannot list iterations: %s; tries again in %.1f s", namespace, line(error), wait_s
            )
            await asyncio.sleep(wait_s)
        else:
            return


async def operate(platform: Platform, namespaces: list[str], metrics_port: int, health_port: int) -> None:
    """Run until a signal."""
    gc.freeze()  # what is imported stays
    gc.set_threshold(_YOUNG)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="io"))
    gateway = Gateway(connect())
    storage = Storage(platform.object_store, keys())
    tracer = tracing.tracer(platform.tracing.endpoint)
    operator = Operator(gateway, storage, platform, Queue(platform), tracer)
    settings, registry = kopf.OperatorSettings(), kopf.OperatorRegistry()
    configure(settings)
    register(registry, operator)
    metrics.pools_begin_at_zero(platform.pools)
    start_http_server(metrics_port, registry=metrics.REGISTRY)
    health = Health(operator, namespaces)
    metrics.STALE.set_function(lambda: len(health.faults()))
    server = serve_health(health, health_port)
    beside = [asyncio.create_task(health.watch()), asyncio.create_task(health.tick())]
    await fill_queue(operator, namespaces)
    log.info("looks after %s and %s in %s", PLURAL, RUN_PLURAL, ", ".join(namespaces))
    try:
        await kopf.operator(registry=registry, settings=settings, standalone=True, namespaces=namespaces)
    finally:
        for task in beside:
            task.cancel()
        server.shutdown()
        tracer.close()


def main() -> int:
    """Exit code: 0 stopped, 78 when the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="dpe_operator", description="The operator of DPEIterations and DPERuns.")
    given = os.environ.get(ENV_NAMESPACES, "")
    parser.add_argument(
        "--namespace",
        action="append",
        help=f"namespace to look after, repeatable (default: those in ${ENV_NAMESPACES}, comma-separated)",
    )
    parser.add_argument("--platform", default=PLATFORM_PATH, help="platform file (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="default: %(default)s")
    parser.add_argument("--health-port", type=int, default=HEALTH_PORT, help="default: %(default)s")
    arguments = parser.parse_args()
    namespaces = arguments.namespace or [n.strip() for n in given.split(",") if n.strip()]
    if not namespaces:
        parser.error(f"no namespace: give --namespace or set {ENV_NAMESPACES}")
    os.environ.setdefault("LOGNAME", "dpe")  # the uid of a pod has no passwd entry, and kopf asks for its name
    kopf.configure(log_format=kopf.LogFormat.FULL if sys.stderr.isatty() else kopf.LogFormat.JSON)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line per event of every pod
    try:
        keys()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 78
    try:
        platform = read_platform(arguments.platform)
        asyncio.run(operate(platform, namespaces, arguments.metrics_port, arguments.health_port))
    except (OSError, ValidationError, ValueError) as error:
        print(f"{arguments.platform}: {error}", file=sys.stderr)
        return 78
    return 0
