"""/healthz: 200 while iterations and runs are looked after, 503 with the reason when they are not."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from dpe_operator.gateway import Conflict, is_refused
from dpe_operator.holding import FINALIZER
from dpe_operator.observe import identity
from dpe_operator.reconcile import STALE_S, Operator, line
from dpe_operator.runs.reconcile import identity as run_identity
from dpe_operator.world import Resource, about

log = logging.getLogger(__name__)

HEALTH_PORT = 8080
CHECK_S = 30.0
TICK_S = 5.0


@dataclass(frozen=True, slots=True)
class _Alone:
    """An iteration or a run that has no loop. One that is being deleted counts while our finalizer keeps it."""

    resource: Resource
    metadata: dict[str, Any]
    since: float
    """time.monotonic() of its first sight."""
    held: str = ""
    """Why its finalizer could not be removed."""

    def __str__(self) -> str:
        return f"{self.resource.namespace}/{self.resource.name}"


class Health:
    """Whether the event loop turns, every known iteration and run is looked at in time, and none is unknown.

    What a restart does not mend is told, but does not ask for one: that would end the work of all namespaces, over and
    over, for the trouble of one.
    """

    def __init__(self, operator: Operator, namespaces: list[str]) -> None:
        self._operator, self._namespaces = operator, namespaces
        self._alone: dict[str, dict[str, _Alone]] = {namespace: {} for namespace in namespaces}
        """By namespace and uid."""
        self._refused: dict[str, str] = {}
        """Namespaces that the API server does not let us look at, with its words."""
        self._turned = time.monotonic()

    async def tick(self) -> None:
        """Note that the event loop turns; not as a part of `watch`, whose lists may take their time."""
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(TICK_S)

    async def watch(self) -> None:
        """Compare the API server's list with the loops, over and over: a watch that is silently dead shows here."""
        while True:
            for namespace in self._namespaces:
                await self._look(namespace)
            await asyncio.sleep(CHECK_S)

    async def _look(self, namespace: str) -> None:
        try:
            await self._compare(namespace)
        except (ApiException, HTTPError, OSError) as error:
            if not is_refused(error):  # an API server that is away is no fault of ours
                log.warning("namespace %s: cannot list iterations and runs: %s", namespace, line(error))
                return
            if namespace not in self._refused:
                log.error("namespace %s: cannot list iterations and runs: %s", namespace, line(error))
            else:  # not at once: an API server that starts refuses for a moment, and nobody is to be overtaken for that
                self._operator.dequeue_waiting(namespace)
            self._refused[namespace], self._alone[namespace] = line(error), {}
        except Exception:
            log.exception("namespace %s: cannot compare what there is with what is looked after", namespace)

    async def _compare(self, namespace: str) -> None:
        now, known = time.monotonic(), self._alone[namespace]
        found = {alone.resource.uid: alone for alone in await self._without_loop(namespace, now)}
        if self._refused.pop(namespace, None) is not None:
            log.warning("namespace %s: iterations and runs can be listed again", namespace)
        if namespace in self._operator.unlisted:
            await self._operator.fill_queue(namespace)
        for uid, alone in found.items():
            since = known[uid].since if uid in known else now
            late = alone.resource.deleting and since < now - STALE_S
            found[uid] = replace(alone, since=since, held=await self._release(alone) if late else "")
        self._alone[namespace] = found

    async def _without_loop(self, namespace: str, now: float) -> list[_Alone]:
        """What nobody looks after, of what our finalizer keeps or has yet to keep."""
        operator, alone = self._operator, []
        kinds = (
            (operator.gateway.iterations, operator.loops, identity),
            (operator.gateway.runs, operator.runs, run_identity),
        )
        for listed, loops, identify in kinds:
            for body in await listed(namespace, metadata_only=True):
                resource, metadata = identify(body), body["metadata"]
                is_over = resource.deleting and FINALIZER not in metadata.get("finalizers", ())
                if (namespace, resource.name) not in loops and not is_over:
                    alone.append(_Alone(resource, metadata, now))
        return alone

    async def _release(self, alone: _Alone) -> str:
        """Let go what is being deleted and has no loop any more: kopf tries for each of its events, and none may come.

        Returns why that is not possible.
        """
        try:
            await self._operator.gateway.release(alone.resource, alone.metadata, FINALIZER)
        except Conflict:
            return ""  # it has changed or is gone: the next list shows what it is now
        except (ApiException, HTTPError, OSError) as error:
            log.warning("%s: cannot remove its finalizer: %s", alone, line(error), extra=about(alone.resource))
            return line(error)
        said = "%s: is being deleted and has no loop: removed its finalizer"
        log.warning(said, alone, extra=about(alone.resource))
        return ""

    def hangs(self) -> list[str]:
        """What is not looked after and would be after a restart."""
        late = time.monotonic() - STALE_S
        hangs = [f"{name} is not looked at in time" for name in self._operator.stale()]
        alone = [it for found in self._alone.values() for it in found.values() if not it.resource.deleting]
        hangs += [f"{it} has no loop" for it in alone if it.since < late]
        return hangs + (["the event loop does not turn"] if self._turned < late else [])

    def faults(self) -> list[str]:
        """All that is not looked after; empty when all is well."""
        held = [it for found in self._alone.values() for it in found.values() if it.held]
        return [
            *self.hangs(),
            *(f"{it} is being deleted, and its finalizer cannot be removed: {it.held}" for it in held),
            *(f"namespace {name} cannot be looked at: {why}" for name, why in dict(self._refused).items()),
        ]


def serve_health(health: Health, port: int) -> ThreadingHTTPServer:
    """Serve /healthz from a thread of its own, which answers also when the event loop hangs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            faults = health.faults()
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if health.hangs() else HTTPStatus.OK)
            self.end_headers()
            self.wfile.write(("\n".join(faults) or "ok").encode())

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
