"""Where a question set is published: a folder of a bucket or of this disk. Never over what is there."""

import json
import logging
import shutil
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from dpe_api.artifacts import Manifest, OutputFile
from dpe_api.names import MANIFEST
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import AlreadyPublished, Store, StoreError, StoreUnreachable, join, media_type, sha256_file

log = logging.getLogger(__name__)

MARKER = "import-unfinished.json"
REPORT = "import.json"
BAD_ROWS = "bad-rows.jsonl"


class Target(Protocol):
    """A folder."""

    uri: str

    def names(self) -> list[str]:
        """What lies in it."""

    def create(self, name: str, data: bytes) -> None:
        """Write a small file. AlreadyPublished: it is there, with other content."""

    def take(self, path: Path) -> OutputFile:
        """Move a file into it."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove files."""


class BucketTarget:
    """A folder of a bucket."""

    def __init__(self, store: Store, uri: str) -> None:
        self._store, self.uri = store, uri.rstrip("/")

    def names(self) -> list[str]:
        return [o.uri.removeprefix(self.uri + "/") for o in self._store.list(self.uri)]

    def create(self, name: str, data: bytes) -> None:
        self._store.create(join(self.uri, name), data)

    def take(self, path: Path) -> OutputFile:
        output = self._store.upload(path, join(self.uri, path.name))
        path.unlink()
        return output

    def delete(self, names: Iterable[str]) -> None:
        self._store.delete(join(self.uri, name) for name in names)


class FolderTarget:
    """A folder of this disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.uri = folder, str(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadConfig("BadTarget", f"{folder} cannot be made: {error.strerror}: choose another folder") from error

    def names(self) -> list[str]:
        return sorted(p.name for p in self._folder.iterdir())

    def create(self, name: str, data: bytes) -> None:
        try:
            with (self._folder / name).open("xb") as handle:
                handle.write(data)
        except FileExistsError as error:
            raise AlreadyPublished(f"{self._folder / name} exists already") from error

    def take(self, path: Path) -> OutputFile:
        output = OutputFile(
            path=path.name, size=path.stat().st_size, sha256=sha256_file(path), media_type=media_type(path.name)
        )
        shutil.move(path, self._folder / path.name)
        return output

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)


def _ours(name: str) -> bool:
    return name in (REPORT, BAD_ROWS, MARKER) or (name.startswith("part-") and name.endswith(".parquet"))


class Publication:
    """One import on its way into a folder: claimed first, then parts, then the manifest; or nothing at all."""

    def __init__(self, target: Target, *, restart: bool) -> None:
        """Claim the folder. BadConfig when something is there, or another import is under way."""
        self._target = target
        self.outputs: list[OutputFile] = []
        self._published = False
        self._claim(restart)

    def _claim(self, restart: bool) -> None:
        there, uri = self._target.names(), self._target.uri
        if MANIFEST in there:
            raise BadConfig("TargetExists", f"{uri} holds a dataset already: choose another folder, or delete it first")
        if MARKER in there and not restart:
            raise BadConfig(
                "ImportUnfinished",
                f"{uri} holds an import that has not ended: wait for it, or, when it was killed, add --restart",
            )
        strange = [n for n in there if n not in (REPORT, BAD_ROWS) and not (MARKER in there and _ours(n))]
        if strange:
            raise BadConfig("TargetNotEmpty", f"{uri} is not empty ({strange[0]}): choose another folder, or empty it")
        self._target.delete(there)
        claim = {"host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
        try:
            self._target.create(MARKER, json.dumps(claim).encode())
        except AlreadyPublished as error:
            raise BadConfig("ImportUnfinished", f"{uri}: another import has just begun: wait for it") from error
        except BaseException:  # stopped while claiming: nobody else would give the claim back
            self._target.delete([MARKER])
            raise

    def take(self, path: Path) -> OutputFile:
        """Move a finished file there."""
        output = self._target.take(path)
        self.outputs.append(output)
        return output

    def publish(self, manifest: Manifest) -> None:
        """Make the files one dataset."""
        self._target.create(MANIFEST, manifest.model_dump_json(by_alias=True, indent=1).encode())
        self._published = True
        self.release()

    def drop(self) -> None:
        """Take back what was brought, but for the claim; nothing once it is published."""
        if not self._published:
            # the manifest too: its answer may have been lost
            self._target.delete([MANIFEST, *(output.path for output in self.outputs)])
            self.outputs = []

    def release(self) -> None:
        """Give the claim back."""
        self._target.delete([MARKER])

    def abandon(self) -> None:
        """Leave nothing behind, as far as the target lets us."""
        try:
            self.drop()
            self.release()
        except (OSError, StoreError, StoreUnreachable) as error:
            log.error(
                "%s holds parts of an import that failed; the next one needs --restart: %s", self._target.uri, error
            )
