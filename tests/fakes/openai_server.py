"""A model behind a real HTTP server that speaks the OpenAI chat protocol, answering as a script says."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, taken apart."""

    image: bytes
    question: str
    body: dict[str, Any]
    number: int
    """Of the request, from 0."""

    @property
    def n(self) -> int:
        return int(self.body.get("n", 1))

    @property
    def sampled(self) -> bool:
        return float(self.body.get("temperature", 0)) > 0


@dataclass(frozen=True)
class Reply:
    """What comes back instead of answers: another status, odd bytes, a delay, or a closed connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False


Script = Callable[[Asked], "list[str] | Reply"]


class FakeModel:
    """The server. `script` gives the answers; it may be replaced while running."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Asked] = []
        self.healthy = True
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _record(self, body: dict[str, Any]) -> Asked:
        picture, text = body["messages"][0]["content"]
        assert (picture["type"], text["type"]) == ("image_url", "text")
        head, _, data = picture["image_url"]["url"].partition(",")
        assert head.startswith("data:image/")
        with self._lock:
            asked = Asked(base64.b64decode(data), text["text"], body, len(self.requests))
            self.requests.append(asked)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return asked

    def _reply(self, asked: Asked) -> Reply:
        said = self.script(asked)
        if isinstance(said, Reply):
            return said
        body = {
            "choices": [{"index": i, "message": {"role": "assistant", "content": t}} for i, t in enumerate(said)],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2 * len(said)},
        }
        return Reply(body=json.dumps(body).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    self._send(Reply(body=json.dumps({"data": [{"id": "model"}]}).encode()))
                elif self.path == "/health":
                    self._send(Reply(status=200 if model.healthy else 500))
                else:
                    self._send(Reply(status=404))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = model._record(body)
                try:
                    self._send(model._reply(asked))
                finally:
                    with model._lock:
                        model.in_flight -= 1

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.delay_s)
                if reply.hang_up:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def handle(self) -> None:
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


@contextmanager
def serving(script: Script) -> Iterator[FakeModel]:
    """A running server."""
    model = FakeModel(script)
    try:
        yield model
    finally:
        model.close()
