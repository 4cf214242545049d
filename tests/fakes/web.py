"""A website on this machine, with pages that behave as a script says: slow, endless, cut off, sent elsewhere."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Visit:
    """One request."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float
    """time.monotonic()"""


@dataclass(frozen=True)
class Answer:
    """What is sent. A `body` of pieces has no Content-Length unless `length` says one; it may never end."""

    body: bytes | Callable[[], Iterable[bytes]] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """A Content-Length that is not the body's."""


Script = Callable[[Visit], Answer]


class Site:
    """The server. `pages` maps paths to answers or to what makes them; `visits` has who came."""

    def __init__(self, pages: Mapping[str, Answer | Script] | None = None, host: str = "127.0.0.2") -> None:
        self.pages: dict[str, Answer | Script] = dict(pages or {})
        self.visits: list[Visit] = []
        self.connections = 0
        self.most_at_once = self._at_once = 0
        self._lock = threading.Condition()
        family = ThreadingHTTPServer if ":" not in host else _Server6
        self._http = family((host, 0), self._handler())
        self._http.daemon_threads = True
        self.host, self.port = host, self._http.server_port
        self.url = f"http://{host if ':' not in host else f'[{host}]'}:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def speak_tls(self, context: SSLContext) -> None:
        """Before it starts."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        """Of the visits, in order."""
        return [visit.path for visit in self.visits]

    async def asked_for(self, path: str) -> None:
        """Return when somebody has asked for it; AssertionError after 10 s."""

        def wait() -> bool:
            with self._lock:
                return self._lock.wait_for(lambda: path in self.paths(), 10)

        assert await asyncio.to_thread(wait), f"nobody asked for {path}"

    def _answer(self, visit: Visit) -> Answer:
        with self._lock:
            self.visits.append(visit)
            self._lock.notify_all()
        page = self.pages.get(visit.path, Answer(b"not here", status=404))
        return page if isinstance(page, Answer) else page(visit)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with site._lock:
                    site.connections += 1

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                visit = Visit(parts.path, query, dict(self.headers), body, time.monotonic())
                with site._lock:
                    site._at_once += 1
                    site.most_at_once = max(site.most_at_once, site._at_once)
                try:
                    self._send(site._answer(visit))
                finally:
                    with site._lock:
                        site._at_once -= 1

            def do_POST(self) -> None:
                self.do_GET()

            def do_PUT(self) -> None:
                self.do_GET()

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                pieces = answer.body
                if isinstance(pieces, bytes):
                    self.send_header("Content-Length", str(len(pieces) if answer.length is None else answer.length))
                    self.close_connection = answer.length is not None
                    self.end_headers()
                    self.wfile.write(pieces)
                    return
                if answer.length is not None:
                    self.send_header("Content-Length", str(answer.length))
                self.close_connection = True
                self.end_headers()
                for piece in pieces():
                    self.wfile.write(piece)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # whoever came went away

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def site(pages: Mapping[str, Answer | Script] | None = None, host: str = "127.0.0.2") -> Iterator[Site]:
    """A running website."""
    it = Site(pages, host)
    it.start()
    try:
        yield it
    finally:
        it.close()


def redirect(to: str, status: int = 302) -> Answer:
    """Somewhere else."""
    return Answer(status=status, headers={"Location": to})
