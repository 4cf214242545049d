"""An object store in memory, for tests that need no server. What a real one does is tested in tests/cluster."""

import hashlib
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from threading import Event

from dpe_api.artifacts import OutputFile
from dpe_api.launch import StoreAddress
from dpe_jobs.store import (
    AlreadyPublished,
    ChecksumMismatch,
    NotFound,
    ObjectInfo,
    Store,
    StoreError,
    StoreUnreachable,
    media_type,
    sha256_file,
)


class MemoryStore(Store):
    """Objects by address. `down` makes every call fail as an outage does that lasted too long."""

    def __init__(self) -> None:
        super().__init__(StoreAddress(endpoint="http://127.0.0.1:1"), "access", "secret")
        self.objects: dict[str, bytes] = {}
        self.down = False
        self.puts: list[str] = []
        self.ranges: list[tuple[str, int]] = []
        """Address and bytes of each range request."""
        self._disk: tempfile.TemporaryDirectory[str] | None = None
        self._mutex = threading.Lock()

    def _up(self, uri: str) -> None:
        if self.down:
            raise StoreUnreachable(f"{uri}: no answer")

    def get(self, uri: str) -> bytes:
        self._up(uri)
        if uri not in self.objects:
            raise NotFound(f"{uri} does not exist (NoSuchKey): upload it or correct the address")
        return self.objects[uri]

    def get_range(self, uri: str, offset: int, length: int) -> bytes:
        self.ranges.append((uri, length))
        data = self.get(uri)[offset : offset + length]
        if len(data) != length:
            raise StoreError(f"{uri}: {len(data)} bytes at {offset}, expected {length}: it was replaced meanwhile")
        return data

    def native(self, uri: str) -> tuple[str, dict[str, str]]:
        """The objects of a folder, laid out on disk for a library that reads them by itself."""
        if self._disk is None:
            self._disk = tempfile.TemporaryDirectory()
        root = Path(self._disk.name)
        for found in self.list(uri):
            path = root / found.uri.removeprefix("s3://")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(found.uri))
        return str(root / uri.removeprefix("s3://")), {}

    def put(self, uri: str, data: bytes) -> None:
        self._up(uri)
        with self._mutex:
            self.objects[uri] = data
            self.puts.append(uri)

    def create(self, uri: str, data: bytes) -> None:
        self._up(uri)
        with self._mutex:
            if self.objects.setdefault(uri, data) != data:
                raise AlreadyPublished(f"{uri} exists already: another attempt published it")

    def list(self, uri: str) -> "list[ObjectInfo]":
        self._up(uri)
        with self._mutex:
            return [
                ObjectInfo(u, len(d), hashlib.md5(d).hexdigest())
                for u, d in sorted(self.objects.items())
                if u.startswith(uri.rstrip("/") + "/")
            ]

    def upload(self, path: Path, uri: str) -> OutputFile:
        data = path.read_bytes()
        self.put(uri, data)
        return OutputFile(path=path.name, size=len(data), sha256=sha256_file(path), media_type=media_type(path.name))

    def download(self, uri: str, path: Path, sha256: str | None = None, *, unwanted: Event | None = None) -> str:
        data = self.get(uri)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256:
            raise ChecksumMismatch(f"{uri}: sha256 is {found}, its manifest says {sha256}: upload it again")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return found

    def delete(self, uris: Iterable[str]) -> None:
        for uri in uris:
            self.objects.pop(uri, None)
