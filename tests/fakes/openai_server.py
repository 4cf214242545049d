"""A model behind a real HTTP server that speaks the OpenAI chat protocol, answering as a script says.

The functions at the end make a script out of a script: one that is overloaded, wants a key, knows no JSON schema.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, taken apart."""

    image: bytes
    """Empty where only text was sent."""
    question: str
    body: dict[str, Any]
    number: int
    """Of the request, from 0."""
    system: str = ""
    key: str = ""
    """What the Authorization header holds after Bearer."""
    images: tuple[bytes, ...] = ()
    """All that were sent."""

    @property
    def n(self) -> int:
        return int(self.body.get("n", 1))

    @property
    def sampled(self) -> bool:
        return float(self.body.get("temperature", 0)) > 0

    @property
    def form(self) -> str:
        """`json_schema`, `json_object` or `text`."""
        return str(self.body.get("response_format", {"type": "text"})["type"])

    @property
    def results(self) -> list[str]:
        """What tools replied so far, in order."""
        return [str(m["content"]) for m in self.body["messages"] if m["role"] == "tool"]


@dataclass(frozen=True)
class Reply:
    """What comes back instead of answers: another status, odd bytes, a delay, or a closed connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False


def _parts(content: Any) -> tuple[str, list[bytes]]:
    """Text and images of a user's message."""
    if isinstance(content, str):
        return content, []
    words, images = [], []
    for part in content:
        if part["type"] == "text":
            words.append(part["text"])
            continue
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head.startswith("data:image/")
        images.append(base64.b64decode(data))
    return "\n".join(words), images


Script = Callable[[Asked], "list[str] | Reply"]


class FakeModel:
    """The server. `script` gives the answers; it may be replaced while running."""

    def __init__(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script
        self.others: Callable[[str, bytes, dict[str, str]], Reply] = lambda *_: Reply(404, b'{"detail": "Not Found"}')
        """What is answered to a POST elsewhere, by path, body and headers."""
        self.requests: list[Asked] = []
        self.healthy = True
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer((host, port), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://{host}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _record(self, body: dict[str, Any], key: str) -> Asked:
        talk = body["messages"]
        system = talk[0]["content"] if talk[0]["role"] == "system" else ""
        roles = [m["role"] for m in (talk[1:] if system else talk)]
        # without tools a conversation is one question
        assert roles[0] == "user"
        assert len(roles) == 1 or "tools" in body
        images: list[bytes] = []
        words = ""
        for message in talk:
            if message["role"] == "user":
                words, found = _parts(message["content"])
                images += found
        with self._lock:
            image = images[0] if images else b""
            asked = Asked(image, words, body, len(self.requests), system, key, tuple(images))
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
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != "/v1/chat/completions":
                    self._send(model.others(self.path, body, dict(self.headers)))
                    return
                asked = model._record(json.loads(body), self.headers.get("Authorization", "").removeprefix("Bearer "))
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
def serving(script: Script, host: str = "127.0.0.1") -> Iterator[FakeModel]:
    """A running server; pods reach it by an address of the machine."""
    model = FakeModel(script, host)
    try:
        yield model
    finally:
        model.close()


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> Reply:
    """One answer that ends in another way than usual: cut off (`length`), filtered, declined."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }
    return Reply(body=json.dumps(body).encode())


def calling(*calls: tuple[str, object], text: str | None = None) -> Reply:
    """An answer that calls tools: names, and arguments as an object, or as text for what is no JSON."""
    message = {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {
                "id": f"call-{uuid.uuid4().hex[:8]}",
                "type": "function",
                "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
            }
            for name, a in calls
        ],
    }
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-fake",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
    return Reply(body=json.dumps(body).encode())


def complaint(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Reply:
    """A refusal in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Reply(status=status, body=json.dumps({"error": error}).encode())


def storm(script: Script, times: int, retry_after_s: float) -> Script:
    """Too many requests, the first `times` times."""

    def stormy(asked: Asked) -> list[str] | Reply:
        if asked.number < times:
            return Reply(status=429, headers={"Retry-After": str(retry_after_s)})
        return script(asked)

    return stormy


def locked(script: Script, key: str) -> Script:
    """Wants a key; like OpenAI it quotes some of a wrong one."""

    def guarded(asked: Asked) -> list[str] | Reply:
        if asked.key == key:
            return script(asked)
        return complaint(401, f"Incorrect API key provided: {asked.key[:8]}***", code="invalid_api_key")

    return guarded


def formless(script: Script, *unknown: str) -> Script:
    """Refuses some forms of reply, as DeepSeek (json_schema), LM Studio (json_object) and older servers do."""

    def plain(asked: Asked) -> list[str] | Reply:
        if asked.form in unknown:
            return complaint(400, "This response_format type is unavailable now")
        return script(asked)

    return plain
