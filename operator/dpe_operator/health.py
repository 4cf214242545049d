"""/healthz: 200 while iterations and runs are looked after, 503 with the reason when they are not."""

import asyncio
import logging
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from dpe_operator.reconcile import STALE_S, Operator

log = logging.getLogger(__name__)

HEALTH_PORT = 8080
CHECK_S = 30.0


class Health:
    """Whether the event loop turns, every known iteration and run is looked at in time, and none is unknown."""

    def __init__(self, operator: Operator, namespaces: list[str]) -> None:
        self._operator, self._namespaces = operator, namespaces
        self._alone: dict[str, float] = {}
        self._turned = time.monotonic()

    async def watch(self) -> None:
        """Compare the API server's list with the loops, over and over: a watch that is silently dead shows here."""
        while True:
            self._turned = time.monotonic()
            try:
                await self._compare()
            except (ApiException, HTTPError, OSError) as error:
                log.warning(
                    "cannot list iterations and runs: %s", error
                )  # an API server that is away is no fault of ours
            await asyncio.sleep(CHECK_S)

    async def _compare(self) -> None:
        alone, gateway = set(), self._operator.gateway
        for namespace in self._namespaces:
            known = ((gateway.iterations, self._operator.loops), (gateway.runs, self._operator.runs))
            for listed, loops in known:
                for body in await listed(namespace, metadata_only=True):
                    name = body["metadata"]["name"]
                    if (namespace, name) not in loops and "deletionTimestamp" not in body["metadata"]:
                        alone.add(f"{namespace}/{name}")
        now = time.monotonic()
        self._alone = {name: self._alone.get(name, now) for name in alone}

    def faults(self) -> list[str]:
        """What is not looked after; empty when all is well."""
        late = time.monotonic() - STALE_S
        faults = [f"{name} is not looked at in time" for name in self._operator.stale()]
        faults += [f"{name} has no loop" for name, since in self._alone.items() if since < late]
        return faults + (["the event loop does not turn"] if self._turned < late else [])


def serve_health(health: Health, port: int) -> ThreadingHTTPServer:
    """Serve /healthz from a thread of its own, which answers also when the event loop hangs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            faults = health.faults()
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK)
            self.end_headers()
            self.wfile.write(("\n".join(faults) or "ok").encode())

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
