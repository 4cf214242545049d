"""vLLM's API server under a wrapper: ready only when it really answers, and never a success that nobody asked for.

A vLLM whose engine died exits 0; without the wrapper its Job would be Complete.
"""

import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dpe_api.launch import Launch, ServingLaunch
from dpe_api.names import METRICS_PORT, MODEL_DIR, Exit
from dpe_jobs.runtime import Stopped, run_stage
from dpe_jobs.serving import guard, inplace
from dpe_jobs.serving.fetch import fetch
from dpe_jobs.serving.server import Server, command, environment, explain, healthy, is_cpu_build
from dpe_jobs.store import Store

log = logging.getLogger(__name__)


def serve_readiness(server: Server, port: int = METRICS_PORT) -> ThreadingHTTPServer:
    """/ready: 200 once warm and while vLLM is healthy, else 503. /metrics: the wrapper's own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif self.path == "/ready":
                ready = server.warm.is_set() and healthy(server.base_url)
                self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n", "text/plain")
            else:
                self._answer(404, b"see /ready and /metrics\n", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # the base class's name
            log.debug(format, *args)

    http = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=http.serve_forever, name="ready", daemon=True).start()
    return http


def main(launch: Launch) -> Exit:
    """Serve until stopped."""
    return run_stage(launch, run, metrics=False)


def run(launch: Launch, store: Store) -> None:
    """Serve until SIGTERM (Stopped) or until vLLM ends unasked, which is always a failure."""
    assert isinstance(launch, ServingLaunch)
    began, on_cpu, then = time.monotonic(), is_cpu_build(), launch.next_model_uri
    key = None if then is None else guard.new_key()
    env = environment(key)
    is_late = then is not None and store.manifest(then) is not None  # the pod before this one was lost
    if then is not None and is_late:
        fetch(store, then, inplace.FOLDER)
    first, second = (command(launch, on_cpu=on_cpu, model=str(folder)) for folder in (MODEL_DIR, inplace.FOLDER))
    uri, server = launch.model_uri, Server.start(second if is_late else first, env)
    try:
        http = serve_readiness(server)
        server.attend()
        if then is not None and key is not None and (is_late or inplace.wait_until_published(store, then, server)):
            uri, began = then, began if is_late else time.monotonic()
            in_place = not is_late and inplace.take(launch, store, server, key, lambda: server.restart(second, env))
            inplace.report(launch, store, server, in_place=in_place, began=began)
        server.process.wait()
        server.join()
        http.shutdown()
        raise explain(server, uri)
    except Stopped:
        log.info("stopping vLLM")
        raise
    finally:
        server.stop()
