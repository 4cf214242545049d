"""The object store as stages see it: `s3://BUCKET/KEY` addresses, checksums, manifests that are never overwritten."""

import builtins
import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from tenacity import Retrying, retry_if_exception, wait_random_exponential
from typing_extensions import override

from dpe_api.artifacts import InputRef, Manifest, OutputFile
from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, MANIFEST
from dpe_jobs import tracing
from dpe_jobs.transfer import Hashing, Moved, Progress, Receiving, WriteFailedError

T = TypeVar("T")
log = logging.getLogger(__name__)

OUTAGE_S = 180.0  # a store that is away for less than this costs nothing but time; counted from the last byte
_CHUNK = 1 << 20  # bytes
_LARGEST_PUT = 5 << 30  # bytes: S3 takes no larger object in one request
_PART = 16 << 20  # bytes: what is larger goes in parts, four of them in memory
_MOST_PARTS = 10_000  # S3 takes no more
_MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/vnd.safetensors",
    ".html": "text/html",
    ".txt": "text/plain",
    ".jinja": "text/plain",
    ".md": "text/markdown",
}


# RequestTimeout comes with HTTP 400: the store has waited for the rest of an upload; 429: it is asked too often
_TRANSIENT_CODES = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "XMinioServerNotInitialized"}
_TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)


class StoreError(Exception):
    """The store answered, and the answer is no: the message names the address and what to do."""


class NotFound(StoreError):
    """No such object or bucket."""


class StoreUnreachable(Exception):
    """The store did not answer for as long as an outage is waited out. Another attempt may find it."""


class AlreadyPublished(StoreError):
    """Another attempt published its manifest first; this one's work is not needed."""


class ChecksumMismatch(StoreError):
    """What came is not what the manifest promised."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address; ValueError when it is none."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(f"{uri!r} is not an s3://BUCKET/KEY address")
    return parts.netloc, parts.path.strip("/")


def join(uri: str, *names: str) -> str:
    """An address below another one."""
    return "/".join([uri.rstrip("/"), *names])


def media_type(path: str) -> str:
    """Media type by file name."""
    return _MEDIA_TYPES.get(Path(path).suffix, "application/octet-stream")


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int  # bytes
    etag: str


Outputs = list[OutputFile]  # inside Store, `list` is a method


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, S3Error):
        return error.code in _TRANSIENT_CODES or (
            error.response is not None and error.response.status in _TRANSIENT_STATUSES
        )
    if isinstance(error, ServerError | InvalidResponseError):
        return True  # a proxy's or a starting server's answer, not S3's
    return isinstance(error, urllib3.exceptions.HTTPError | OSError) and not isinstance(
        error, FileNotFoundError | PermissionError
    )


class _Requests(urllib3.PoolManager):
    """Each request is a span of the iteration's trace."""

    @override
    def urlopen(self, method: str, url: str, *how: Any, **named: Any) -> urllib3.BaseHTTPResponse:
        with tracing.request(f"object store {method}", method, url) as span:
            response = super().urlopen(method, url, *how, **named)
            tracing.answered(span, response.status)
            return response


class Store:
    """A client. Every call retries outages up to `outage_s` seconds, then lets the error through."""

    def __init__(self, address: StoreAddress, access_key: str, secret_key: str, outage_s: float = OUTAGE_S) -> None:
        parts = urlsplit(address.endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"object store endpoint {address.endpoint!r} is not http(s)://HOST[:PORT]")
        self._http = _Requests(
            timeout=urllib3.Timeout(connect=5, read=60),
            maxsize=16,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            blocksize=_CHUNK,
        )
        self._client = Minio(
            parts.netloc,
            access_key,
            secret_key,
            secure=parts.scheme == "https",
            region=address.region,
            http_client=self._http,
        )
        self._outage_s = outage_s
        self.moved = Moved()
        self._native = {
            "aws_endpoint": address.endpoint.rstrip("/"),
            "aws_region": address.region,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "allow_http": str(parts.scheme == "http").lower(),
        }

    @classmethod
    def from_env(cls, address: StoreAddress) -> "Store":
        """With the credentials of the environment; KeyError names a missing variable."""
        # a file's line end is no part of a key
        return cls(address, os.environ[ENV_ACCESS_KEY].strip(), os.environ[ENV_SECRET_KEY].strip())

    def limit_outage(self, seconds: float) -> None:
        """Give up sooner from now on: for a process that is about to end."""
        self._outage_s = min(self._outage_s, seconds)

    def _call(self, once: Callable[[], T], uri: str, progress: Progress | None = None) -> T:
        """Do it, through outages; StoreError when the store says no, StoreUnreachable when it says nothing."""
        try:
            return self._retrying(progress or Progress(self.moved))(once)
        except S3Error as error:
            if _is_transient(error):
                raise StoreUnreachable(f"{uri}: {error.code}: {error.message}") from error
            raise self._refused(error, uri) from error
        except (urllib3.exceptions.HTTPError, ServerError, InvalidResponseError) as error:
            raise StoreUnreachable(f"{uri}: no answer in {self._outage_s:g} s: {error}") from error

    def _retrying(self, progress: Progress) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_is_transient),
            stop=lambda _: progress.stood_still_s() >= self._outage_s,
            wait=wait_random_exponential(multiplier=0.2, max=10),
            before_sleep=lambda state: log.warning(
                "object store: %s; attempt %d", state.outcome and state.outcome.exception(), state.attempt_number
            ),
            reraise=True,
        )

    @staticmethod
    def _refused(error: S3Error, uri: str) -> StoreError:
        if error.code in ("NoSuchKey", "NoSuchBucket", "NoSuchObject", "NotFound"):
            return NotFound(f"{uri} does not exist ({error.code}): upload it or correct the address")
        return StoreError(f"{uri}: {error.code}: {error.message}")

    def get(self, uri: str) -> bytes:
        """A whole small object; NotFound when there is none."""
        bucket, key = split_uri(uri)

        def once() -> bytes:
            response = self._client.get_object(bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        return self._call(once, uri)

    def get_range(self, uri: str, offset: int, length: int) -> bytes:
        """`length` bytes of an object from `offset` on; StoreError when it has no more so many."""
        bucket, key = split_uri(uri)

        def once() -> bytes:
            response = self._client.get_object(bucket, key, offset, length)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        data = self._call(once, uri)
        if len(data) != length:
            raise StoreError(f"{uri}: {len(data)} bytes at {offset}, expected {length}: it was replaced meanwhile")
        return data

    def native(self, uri: str) -> tuple[str, dict[str, str]]:
        """A folder as libraries on Rust's object_store take it: address, and options with credentials."""
        return uri, dict(self._native)

    def get_json(self, uri: str) -> object:
        """A JSON object; NotFound when there is none."""
        return json.loads(self.get(uri))

    def find(self, uri: str) -> bytes | None:
        """A small object, or None when it does not exist."""
        try:
            return self.get(uri)
        except NotFound:
            return None

    def put(self, uri: str, data: bytes) -> None:
        """Write a small object, replacing what was there."""
        bucket, key = split_uri(uri)
        self._call(
            lambda: self._client.put_object(bucket, key, io.BytesIO(data), len(data), content_type=media_type(key)), uri
        )

    def create(self, uri: str, data: bytes) -> None:
        """Write a small object that must not exist; AlreadyPublished when it does, unless it is byte for byte this one.

        A presigned address carries the If-None-Match header, which put_object of minio-py would turn into metadata.
        """
        status, body = self._call(lambda: self._put(uri, data, {"If-None-Match": "*"}), uri)
        if status == 412:
            # a repeated request after a lost answer finds its own work
            if self.get(uri) != data:
                raise AlreadyPublished(f"{uri} exists already: another attempt published it")
        else:
            self._check_put(uri, status, body)

    def _put(self, uri: str, body: bytes | Hashing, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and answer of one PUT over a presigned address; an error where trying again may help."""
        bucket, key = split_uri(uri)
        url = self._client.presigned_put_object(bucket, key, expires=timedelta(hours=1))
        named = {"Content-Type": media_type(key), **headers}
        # urllib3 needs nothing of a file but read()
        response = self._http.request("PUT", url, body=body, headers=named)  # type: ignore[arg-type]
        # 409: a conditional write of the same key is in flight
        if response.status in (409, *_TRANSIENT_STATUSES) or b"<Code>RequestTimeout</Code>" in response.data[:1000]:
            raise urllib3.exceptions.HTTPError(f"PUT {uri}: HTTP {response.status}")
        return response.status, response.data

    @staticmethod
    def _check_put(uri: str, status: int, body: bytes) -> None:
        if status == 404:
            raise NotFound(f"{uri}: no such bucket: create it or correct objectStore.bucket")
        if status != 200:
            raise StoreError(f"PUT {uri}: HTTP {status}: {body[:300].decode(errors='replace')}")

    def list(self, uri: str) -> builtins.list[ObjectInfo]:
        """All objects below a folder, by name; an empty list when there are none. NotFound: no such bucket."""
        bucket, prefix = split_uri(uri)

        def once() -> builtins.list[ObjectInfo]:
            found = self._client.list_objects(bucket, prefix + "/" if prefix else "", recursive=True)
            return [
                ObjectInfo(f"s3://{bucket}/{o.object_name}", o.size or 0, (o.etag or "").strip('"'))
                for o in found
                if o.object_name and not o.object_name.endswith("/")  # a console's folder marker
            ]

        return sorted(self._call(once, uri), key=lambda o: o.uri)

    def upload(self, path: Path, uri: str) -> OutputFile:
        """Upload one file; the result's path is the file's name. A missing local file is an error at once."""
        size = path.stat().st_size
        send = self._stream if size <= _LARGEST_PUT else self._send_parts
        progress = Progress(self.moved)
        digest = self._call(lambda: send(path, size, uri, progress), uri, progress)
        return OutputFile(path=path.name, size=size, sha256=digest, media_type=media_type(uri))

    def _stream(self, path: Path, size: int, uri: str, progress: Progress) -> str:
        """Send a file in one request and hash it on the way: fput_object would read and hash it twice more."""
        with path.open("rb") as file:
            body = Hashing(file, progress)
            self._check_put(uri, *self._put(uri, body, {"Content-Length": str(size)}))
        return body.digest.hexdigest()

    def _send_parts(self, path: Path, size: int, uri: str, progress: Progress) -> str:
        """The same in parts, for what is too large for one request: still read and hashed once."""
        bucket, key = split_uri(uri)
        part = max(_PART, -(-size // _MOST_PARTS))
        with path.open("rb") as file:
            body = Hashing(file, progress)
            # minio-py needs nothing of a stream but read()
            self._client.put_object(bucket, key, body, size, media_type(key), part_size=part)  # type: ignore[arg-type]
        return body.digest.hexdigest()

    def upload_tree(self, folder: Path, uri: str, threads: int = 4) -> builtins.list[OutputFile]:
        """Upload all files below a folder; the results' paths are relative to it."""
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        with ThreadPoolExecutor(threads) as pool:
            outputs = pool.map(lambda n: self.upload(folder / n, join(uri, n)), names)
            return [o.model_copy(update={"path": n}) for n, o in zip(names, outputs, strict=True)]

    def download(self, uri: str, path: Path, sha256: str | None = None, *, unwanted: Event | None = None) -> str:
        """Download one object to a file, whole or not at all; returns its sha256. ChecksumMismatch when it differs.

        `unwanted` ends it with NotWantedError when it is set.
        """
        bucket, key = split_uri(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as out:
            progress = Progress(self.moved)
            body = Receiving(out, progress, unwanted or Event())
            try:
                self._call(lambda: self._receive(bucket, key, body), uri, progress)
            except WriteFailedError as failed:
                part.unlink()  # a full disk needs the room
                raise failed.error from None
        found = body.sha256()
        if sha256 is not None and found != sha256:
            part.unlink()
            raise ChecksumMismatch(f"{uri}: sha256 is {found}, its manifest says {sha256}: upload it again")
        part.chmod(0o644)
        part.replace(path)
        return found

    def _receive(self, bucket: str, key: str, body: Receiving) -> None:
        """The rest of an object: what has come already is not asked for again, as long as it is the same."""
        body.check_wanted()
        same: dict[str, str | builtins.list[str] | tuple[str]] = {"If-Match": body.version} if body.taken else {}
        try:
            response = self._client.get_object(bucket, key, offset=body.taken, request_headers=same)
        except S3Error as error:
            if error.code != "PreconditionFailed":
                raise
            body.restart()
            raise urllib3.exceptions.HTTPError("it was replaced meanwhile: once more from its start") from error
        try:
            body.version = response.headers.get("ETag", "")
            for chunk in response.stream(_CHUNK):
                body.write(chunk)
        finally:
            response.close()
            response.release_conn()

    def manifest(self, folder: str) -> Manifest | None:
        """The manifest of an artifact, or None when it was not published."""
        data = self.find(join(folder, MANIFEST))
        return None if data is None else Manifest.model_validate_json(data)

    def fetch_tree(self, uri: str, folder: Path, threads: int = 4) -> InputRef:
        """Download a folder, verified against its manifest where it has one. NotFound when it is empty."""
        manifest = self.manifest(uri)
        if manifest is not None:
            wanted: dict[str, str | None] = {o.path: o.sha256 for o in manifest.outputs}
        else:
            prefix = uri.rstrip("/") + "/"
            wanted = {o.uri.removeprefix(prefix): None for o in self.list(uri)}
        if not wanted:
            raise NotFound(f"{uri} holds no files: upload them or correct the address")
        for name in wanted:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StoreError(f"{uri}: path {name!r} leads out of the folder: correct its manifest")
        unwanted = Event()

        def fetch(item: tuple[str, str | None]) -> str:
            return self.download(join(uri, item[0]), folder / item[0], item[1], unwanted=unwanted)

        with ThreadPoolExecutor(threads) as pool:
            try:
                list(pool.map(fetch, wanted.items()))
            finally:
                unwanted.set()  # a pod that is stopped has no time for the rest of a shard
        return self.input_ref(uri)

    def input_ref(self, uri: str) -> InputRef:
        """A folder's identity: the sha256 of its manifest, or of its sorted listing. NotFound when it is empty."""
        manifest = self.find(join(uri, MANIFEST))
        if manifest is not None:
            return InputRef(uri=uri, sha256=hashlib.sha256(manifest).hexdigest())
        objects = self.list(uri)
        if not objects:
            raise NotFound(f"{uri} holds no files: upload them or correct the address")
        listing = "".join(f"{o.uri.removeprefix(uri)} {o.size} {o.etag}\n" for o in objects)
        return InputRef(uri=uri, sha256=hashlib.sha256(listing.encode()).hexdigest())

    def parquet_files(self, uri: str) -> Iterator[str]:
        """Addresses of the Parquet files below a folder, by name. NotFound when there are none."""
        found = [o.uri for o in self.list(uri) if o.uri.endswith(".parquet")]
        if not found:
            raise NotFound(f"{uri} holds no .parquet file: upload some or correct the address")
        yield from found

    def publish(self, folder: str, manifest: Manifest) -> None:
        """Publish an artifact: its files are up already, the manifest makes them one. AlreadyPublished: came second."""
        self.create(join(folder, MANIFEST), manifest.model_dump_json(by_alias=True, indent=1).encode())

    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects; one that does not exist is no error."""
        for uri in uris:
            bucket, key = split_uri(uri)
            self._call(partial(self._client.remove_object, bucket, key), uri)
