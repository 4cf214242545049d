"""What the operator reads from the object store: manifests, progress, exit reports, and whether inputs exist."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider, StaticProvider
from minio.error import MinioException, S3Error
from pydantic import ValidationError
from typing_extensions import override

from dpe_api.artifacts import ExitReport, Manifest, Progress, ServedReport
from dpe_api.names import (
    ENV_ACCESS_KEY,
    ENV_SECRET_KEY,
    MANIFEST,
    PROGRESS,
    SECRET_ACCESS_KEY,
    SECRET_SECRET_KEY,
    Stage,
    shard_folder,
)
from dpe_operator import metrics
from dpe_operator.platform import ObjectStore

log = logging.getLogger(__name__)

ENV_KEYS = "DPE_S3_KEYS"  # folder of a mounted Secret with both keys

CONNECT_S, READ_S = 3.0, 10.0
IN_FLIGHT = 8  # requests at once
PROBE_S = 5.0  # from one request that is not answered to the next, while none is
LISTED = 1000  # objects of a folder that are looked at
_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchResource"}

T = TypeVar("T")
R = TypeVar("R", ExitReport, ServedReport)


class StoreUnavailable(Exception):
    """The store did not answer, or not now. What it holds is unknown."""


class _NoAnswer(StoreUnavailable):
    """It said nothing at all: whoever asks may wait for long."""


class StoreRefused(Exception):
    """The store answered, and the answer is no: credentials or rights are wrong."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.strip("/")


class MountedKeys(Provider):
    """The keys in the folder of a mounted Secret, read for each request: a Secret that is corrected is enough."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @override
    def retrieve(self) -> Credentials:
        """Both keys; OSError when one is not there."""
        files = (self._folder / SECRET_ACCESS_KEY, self._folder / SECRET_SECRET_KEY)
        access, secret = (file.read_text().strip() for file in files)
        return Credentials(access, secret)


def keys(environment: Mapping[str, str] = os.environ) -> Provider:
    """Those that the environment holds or names a folder of; ValueError names what is missing."""
    if folder := environment.get(ENV_KEYS):
        return MountedKeys(Path(folder))
    missing = [name for name in (ENV_ACCESS_KEY, ENV_SECRET_KEY) if name not in environment]
    if missing:
        raise ValueError(f"environment: {', '.join(missing)} not set: credentials of the object store")
    return StaticProvider(environment[ENV_ACCESS_KEY], environment[ENV_SECRET_KEY])


class _Silence:
    """Spares those who ask the wait for a store that answers nobody.

    Few can ask at once and each waits for READ_S; a hundred iterations in the queue behind them would not be looked at
    for minutes. So after as many requests in a row as fit at once, one alone tries now and then, and all others are
    told at once what it was told.
    """

    def __init__(self) -> None:
        self._unanswered = 0
        """In a row."""
        self._why = ""
        self._next_try = 0.0
        """time.monotonic(). One that tries holds the others back for as long as one request may take, and no longer: it
        may be at the many pages of a list, or wait for a name server."""

    def check(self) -> None:
        """StoreUnavailable while it is not worth to ask."""
        if self._unanswered >= IN_FLIGHT and time.monotonic() < self._next_try:
            raise StoreUnavailable(self._why)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Around one request: learns from its end."""
        self.check()
        self._next_try, pause_s = time.monotonic() + CONNECT_S + READ_S + PROBE_S, 0.0
        try:
            yield
        except _NoAnswer as error:
            self._unanswered, self._why, pause_s = self._unanswered + 1, str(error), PROBE_S
            raise
        except asyncio.CancelledError:
            raise  # nothing is known: somebody else is to try
        except Exception:
            self._unanswered = 0
            raise
        else:
            self._unanswered = 0
        finally:
            self._next_try = time.monotonic() + pause_s


class Storage:
    """The object store, without blocking the event loop.

    Every method raises StoreUnavailable or StoreRefused. Nothing is kept: a manifest is read until its stage is Done.
    """

    def __init__(self, store: ObjectStore, credentials: Provider) -> None:
        parts = urlsplit(store.endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"objectStore.endpoint is {store.endpoint!r}: write http(s)://HOST[:PORT]")
        self.endpoint = store.endpoint
        self._bucket, self._prefix = store.bucket, store.prefix.strip("/")
        self._client = Minio(
            parts.netloc,
            credentials=credentials,
            secure=parts.scheme == "https",
            region=store.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                maxsize=IN_FLIGHT,
                retries=False,
                cert_reqs="CERT_REQUIRED",
            ),
        )
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._silence = _Silence()

    async def _call(self, bucket: str, key: str, request: Callable[[], T]) -> T | None:
        """The result, or None for what does not exist.

        Counted is what the platform itself needs: an address that somebody wrote into a spec may be anybody's.
        """
        try:
            return await self._ask(request)
        except (StoreUnavailable, StoreRefused) as error:
            if bucket == self._bucket and (not key or f"{key}/".startswith(self._prefix and f"{self._prefix}/")):
                metrics.STORE_ERRORS.labels("refused" if isinstance(error, StoreRefused) else "unavailable").inc()
            raise

    async def _ask(self, request: Callable[[], T]) -> T | None:
        self._silence.check()
        async with self._slots, self._silence.request():
            try:
                return await asyncio.to_thread(request)
            except S3Error as error:
                if error.code in _MISSING:
                    return None
                status = error.response.status if error.response is not None else 0
                if status >= 500 or error.code in ("SlowDown", "XMinioServerNotInitialized"):
                    raise StoreUnavailable(f"object store {self.endpoint} answers {error.code}") from error
                raise StoreRefused(f"object store {self.endpoint} answers {error.code}: {error.message}") from error
            except ValueError as error:  # what the client does not even send: a bucket or key that cannot be one
                # the header that http.client shows holds the access key and a signature
                why = "a key has a line break in it" if "header" in str(error) else str(error)
                raise StoreRefused(f"object store {self.endpoint} is not asked: {why}") from None
            except (urllib3.exceptions.HTTPError, OSError, MinioException) as error:
                # without the error's own text: it names sockets and changes from one try to the next
                raise _NoAnswer(f"object store {self.endpoint} does not answer ({type(error).__name__})") from error

    async def get(self, uri: str) -> bytes | None:
        """A small object, or None."""
        bucket, key = split_uri(uri)

        def request() -> bytes:
            response = self._client.get_object(bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        return await self._call(bucket, key, request)

    async def etag(self, uri: str) -> str | None:
        """What changes when an object does, or None when there is none."""
        bucket, key = split_uri(uri)
        found = await self._call(bucket, key, lambda: self._client.stat_object(bucket, key))
        return None if found is None else (found.etag or "").strip('"')

    async def names(self, uri: str, limit: int = LISTED) -> list[str]:
        """Keys below a folder, the first `limit`; empty when it does not exist."""
        bucket, prefix = split_uri(uri)

        def request() -> list[str]:
            found = self._client.list_objects(bucket, f"{prefix}/", recursive=True)
            return [o.object_name or "" for o, _ in zip(found, range(limit), strict=False)]

        return await self._call(bucket, prefix, request) or []

    async def folders(self, uri: str) -> list[str]:
        """Addresses of the folders right below a folder, by name."""
        bucket, prefix = split_uri(uri)

        def request() -> list[str]:
            found = self._client.list_objects(bucket, f"{prefix}/")
            return sorted(f"s3://{bucket}/{(o.object_name or '').rstrip('/')}" for o in found if o.is_dir)

        return await self._call(bucket, prefix, request) or []

    async def bucket_exists(self, bucket: str) -> bool:
        """Whether there is such a bucket."""
        return bool(await self._call(bucket, "", lambda: self._client.bucket_exists(bucket)))

    async def manifest(self, folder: str) -> Manifest | None:
        """The manifest of an artifact, or None while it is not published; ValidationError when it is none."""
        data = await self.get(f"{folder}/{MANIFEST}")
        return None if data is None else Manifest.model_validate_json(data)

    async def progress(self, folder: str, shards: int = 1) -> Progress | None:
        """The progress of a stage, that of its shards together; None when there is none that can be read."""
        if shards > 1:
            found = await asyncio.gather(*(self._progress(shard_folder(folder, i)) for i in range(shards)))
            return together([progress for progress in found if progress is not None])
        return await self._progress(folder)

    async def _progress(self, folder: str) -> Progress | None:
        data = await self.get(f"{folder}/{PROGRESS}")
        try:
            return None if data is None else Progress.model_validate_json(data)
        except ValidationError:
            return None  # it is for show; the next one comes in seconds

    async def exits(self, root: str, stage: Stage, attempt: int) -> tuple[ExitReport, ...]:
        """What the pods of an attempt said about their end."""
        return await self._said(root, stage, attempt, "exit-", ExitReport)

    async def served(self, root: str, stage: Stage, attempt: int) -> dict[str, str]:
        """Address of the model that model servers of an attempt have taken, by the name of the pod."""
        reports = await self._said(root, stage, attempt, "served-", ServedReport)
        return {report.pod: report.uri for report in reports}

    async def _said(self, root: str, stage: Stage, attempt: int, prefix: str, kind: type[R]) -> tuple[R, ...]:
        """Reports of one kind that the pods of an attempt left; one that cannot be read is left out."""
        bucket, _ = split_uri(root)
        reports = []
        for name in await self.names(f"{root}/{stage}/attempts/{attempt}"):
            if not name.rsplit("/", 1)[-1].startswith(prefix):
                continue
            data = await self.get(f"s3://{bucket}/{name}")
            try:
                if data is not None:
                    reports.append(kind.model_validate_json(data))
            except ValidationError as error:
                log.warning("%s is no %s: %s", name, kind.__name__, error)
        return tuple(reports)


def together(parts: Sequence[Progress]) -> Progress | None:
    """The progress of pods that share a stage's work: of its newest attempt; None without any."""
    newest = max((part.attempt for part in parts), default=0)
    parts = [part for part in parts if part.attempt == newest]
    if not parts:
        return None
    etas = [part.eta_seconds for part in parts if part.eta_seconds is not None]
    return Progress(
        attempt=newest,
        done=sum(part.done for part in parts),
        total=sum(part.total for part in parts),
        unit=parts[0].unit,
        rate=sum(part.rate for part in parts),
        eta_seconds=max(etas, default=None),
        updated_at=max(part.updated_at for part in parts),
    )
