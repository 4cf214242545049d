"""Transfers over a bad line: what has come is not asked for again, and a transfer that gets on is no outage."""

import hashlib
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from dpe_api.artifacts import Manifest, OutputFile
from dpe_api.launch import StoreAddress
from dpe_jobs.runtime import Stopped
from dpe_jobs.store import Store, StoreUnreachable

PIECE = 1 << 20
DATA = bytes(range(256)) * (5 * PIECE // 256)


class Line(BaseHTTPRequestHandler):
    """A store of one object, of which each answer brings a piece, slowly, before the line breaks."""

    protocol_version = "HTTP/1.1"
    data: ClassVar[bytes] = DATA
    etag: ClassVar[str] = "first"
    replaced_after: ClassVar[int | None] = None
    brings: ClassVar[int] = PIECE
    seconds: ClassVar[float] = 0.0
    bite: ClassVar[int] = PIECE
    pause: ClassVar[float] = 0.0
    asked: ClassVar[list[int]] = []
    refusals: ClassVar[list[tuple[int, str]]] = []
    """Answers to the next uploads."""
    stored: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.asked.append(start)
        if start and Line.replaced_after == len(self.asked) - 1:
            Line.etag = "second"
        if start and self.headers["If-Match"] != f'"{Line.etag}"':
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        time.sleep(self.seconds)
        rest = self.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", f'"{Line.etag}"')
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # who is stopped does not wait for the rest
            for start in range(0, min(self.brings, len(rest)), self.bite):
                self.wfile.write(rest[start : min(start + self.bite, self.brings)])
                time.sleep(self.pause)
        self.close_connection = True

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refusals:
            status, code = self.refusals.pop(0)
            self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())
            return
        Line.stored = body
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in {"asked": [], "refusals": [], "etag": "first", "stored": b""}.items():
        monkeypatch.setattr(Line, name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Line) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def store(endpoint: str, outage_s: float) -> Store:
    return Store(StoreAddress(endpoint=endpoint), "access", "secret", outage_s=outage_s)


def test_a_download_goes_on_where_the_line_broke_for_longer_than_an_outage_may_last(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "seconds", 0.6)
    began = time.monotonic()
    found = store(endpoint, 2.5).download("s3://dpe/model", tmp_path / "model")
    assert time.monotonic() - began > 2.5
    assert found == hashlib.sha256(DATA).hexdigest()
    assert (tmp_path / "model").read_bytes() == DATA
    assert Line.asked == [n * PIECE for n in range(5)]


def test_an_object_that_is_replaced_meanwhile_is_read_from_its_start(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "replaced_after", 2)
    found = store(endpoint, 20).download("s3://dpe/model", tmp_path / "model")
    assert found == hashlib.sha256(DATA).hexdigest()
    assert Line.asked == [0, PIECE, 2 * PIECE, *(n * PIECE for n in range(5))]


def test_a_download_that_gets_nowhere_ends_in_time(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "brings", 0)
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match="s3://dpe/model"):
        store(endpoint, 1).download("s3://dpe/model", tmp_path / "model")
    assert time.monotonic() - began < 15


def test_a_disk_that_takes_no_more_is_no_trouble_of_the_store(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried again for the whole outage; where it had room by then, a part was hashed twice."""
    monkeypatch.setattr(Line, "brings", len(DATA))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PIECE // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store(endpoint, 20).download("s3://dpe/model", tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Line.asked == [0]
    assert not list(tmp_path.iterdir()), "the room is given back"


def test_a_pod_that_is_stopped_does_not_wait_for_the_rest_of_its_shards(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for whole shards, longer than the kubelet waits for it, and was killed before it had cleaned up."""
    for name, value in {"brings": len(DATA), "bite": PIECE // 8, "pause": 0.5}.items():  # 20 s for a shard
        monkeypatch.setattr(Line, name, value)
    shards = [OutputFile(path=f"shard-{n}", size=len(DATA), sha256="0" * 64, media_type="x") for n in range(4)]
    manifest = Manifest(stage="model", attempt=1, created_at=datetime.now(UTC), outputs=shards, summary={})
    client = store(endpoint, 60)
    monkeypatch.setattr(client, "manifest", lambda folder: manifest)

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            client.fetch_tree("s3://dpe/model", tmp_path / "model")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 15
    assert not list(tmp_path.rglob("shard-?"))


@pytest.mark.parametrize(
    ("status", "code"), [(400, "RequestTimeout"), (408, "?"), (429, "TooManyRequests"), (503, "SlowDown")]
)
def test_an_upload_that_the_store_did_not_wait_for_is_sent_again(
    endpoint: str, tmp_path: Path, status: int, code: str
) -> None:
    (tmp_path / "shard").write_bytes(b"weights")
    Line.refusals.append((status, code))
    found = store(endpoint, 20).upload(tmp_path / "shard", "s3://dpe/shard")
    assert Line.stored == b"weights"
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
