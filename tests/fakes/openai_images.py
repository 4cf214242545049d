"""A server that speaks two more parts of the OpenAI API over real HTTP: images/edits and embeddings.

As OpenAI's reference has them: edits come as multipart/form-data and answer with base64 or with an address; embeddings
come as JSON. What an edit looks like is up to the script, and an embedding counts words.
"""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from tests.fakes.openai_server import Reply

DIMENSIONS = 32


@dataclass(frozen=True)
class EditAsked:
    """One request for an edit, taken apart."""

    image: Image.Image
    prompt: str
    fields: dict[str, str]
    key: str
    number: int


Script = Callable[[EditAsked], "Image.Image | Reply"]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def embedding(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Words counted in a few buckets: texts that share words are near."""
    vector = [0.01] * dimensions
    for word in text.lower().split():
        vector[int.from_bytes(hashlib.md5(word.encode()).digest()[:4], "big") % dimensions] += 1.0
    return vector


def answer(data: bytes, form: str = "b64_json", **more: Any) -> Reply:
    """An edit as the API answers it."""
    value = base64.b64encode(data).decode() if form == "b64_json" else data.decode()
    body = {"created": 1, "data": [{form: value}], "usage": {"input_tokens": 30, "output_tokens": 200}, **more}
    return Reply(body=json.dumps(body).encode())


class FakeImages:
    """The server. `script` makes the edits; it may be replaced while running."""

    def __init__(self, script: Script, *, by_address: bool = False) -> None:
        self.script, self.by_address = script, by_address
        self.edits: list[EditAsked] = []
        self.texts: list[list[str]] = []
        self.dimensions = DIMENSIONS
        self.files: dict[str, bytes] = {}
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

    def _edit(self, body: bytes, content_type: str, key: str) -> Reply:
        parsed = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        assert parsed.is_multipart(), content_type
        fields, images = {}, []
        for part in parsed.iter_parts():
            name, data = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
            assert isinstance(data, bytes), "a part of one piece"
            if part.get_filename():
                assert name in ("image", "image[]"), name
                assert part.get_content_type() == "image/png"
                images.append(Image.open(io.BytesIO(data)).convert("RGB"))
            else:
                fields[str(name)] = data.decode()
        assert len(images) == 1, "one image"
        assert {"prompt", "model"} <= set(fields)
        assert "response_format" not in fields, "gpt-image models refuse it"
        with self._lock:
            asked = EditAsked(images[0], fields["prompt"], fields, key, len(self.edits))
            self.edits.append(asked)
        made = self.script(asked)
        if isinstance(made, Reply):
            return made
        if not self.by_address:
            return answer(encoded(made))
        name = f"/files/{asked.number}.png"
        self.files[name] = encoded(made)
        return answer(f"{self.url}{name}".encode(), "url")

    def _embed(self, body: dict[str, Any]) -> Reply:
        texts = body["input"]
        assert isinstance(texts, list)
        assert all(isinstance(text, str) and text for text in texts), "OpenAI refuses an empty text"
        with self._lock:
            self.texts.append(texts)
        data = [
            {"object": "embedding", "index": i, "embedding": embedding(t, self.dimensions)} for i, t in enumerate(texts)
        ]
        data.reverse()  # the index says which is which, not the order
        reply = {"object": "list", "data": data, "usage": {"prompt_tokens": 5 * len(texts)}}
        return Reply(body=json.dumps(reply).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data = server.files.get(self.path)
                self._send(Reply(status=404) if data is None else Reply(body=data))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                if self.path == "/v1/images/edits":
                    self._send(server._edit(body, self.headers["Content-Type"], key))
                elif self.path == "/v1/embeddings":
                    self._send(server._embed(json.loads(body)))
                else:
                    self._send(Reply(status=404, body=b'{"detail": "Not Found"}'))

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


@contextmanager
def serving(script: Script, *, by_address: bool = False) -> Iterator[FakeImages]:
    """A running server."""
    server = FakeImages(script, by_address=by_address)
    try:
        yield server
    finally:
        server.close()
