"""Where a source lies: a folder or file on disk, or in a bucket. Names are relative, with slashes."""

import tempfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import Store, join, sha256_file

MAX_IMAGE_BYTES = 48 * 1024 * 1024  # a larger file is no image of a question


class Files(Protocol):
    """The files of one source."""

    def names(self) -> list[str]:
        """All files, sorted; those whose path has a hidden part are left out."""

    def local(self, name: str) -> Path:
        """A file on this disk; valid until the next call. OSError, NotFound: there is none."""

    def read_image(self, name: str) -> bytes:
        """A small file. ValueError says why it cannot be had."""

    def address(self, name: str) -> str:
        """What the manifest calls a file."""


def check_name(name: str) -> str:
    """A relative name that stays inside its folder, without `./`; ValueError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise ValueError(f"{name[:200]!r} leads out of the folder")
    return path.as_posix()


def _visible(name: str) -> bool:
    return not any(part.startswith(".") for part in PurePosixPath(name).parts)


class DiskFiles:
    """A folder, or one file of it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise BadConfig("NoSuchSource", f"{path} does not exist: correct the path")
        self._root = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path.name

    def names(self) -> list[str]:
        if self._only is not None:
            return [self._only]
        found = (p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.is_file())
        return sorted(name for name in found if _visible(name))

    def local(self, name: str) -> Path:
        return self._root / name

    def read_image(self, name: str) -> bytes:
        path = self._root / check_name(name)
        try:
            if path.stat().st_size > MAX_IMAGE_BYTES:
                raise ValueError(f"{name!r} is larger than {MAX_IMAGE_BYTES >> 20} MiB")
            return path.read_bytes()
        except OSError as error:
            raise ValueError(f"{name!r} cannot be read: {error.strerror}") from error

    def address(self, name: str) -> str:
        return name  # where it lay on this machine means nothing elsewhere


class BucketFiles:
    """A folder of a bucket, or one object. One object at a time is on this disk."""

    def __init__(self, store: Store, uri: str, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        listing = store.list(uri)
        self._root = uri.rstrip("/") if listing else uri.rstrip("/").rpartition("/")[0]
        self._names = [o.uri.removeprefix(self._root + "/") for o in listing] or [uri.rstrip("/").rpartition("/")[2]]
        self._current: tuple[str, Path] | None = None

    def names(self) -> list[str]:
        return sorted(name for name in self._names if _visible(name))

    def local(self, name: str) -> Path:
        if self._current is not None and self._current[0] == name:
            return self._current[1]
        if self._current is not None:
            self._current[1].unlink()
            self._current = None
        path = Path(tempfile.mkdtemp(dir=self._scratch)) / PurePosixPath(name).name
        self._store.download(self.address(name), path)
        self._current = name, path
        return path

    def read_image(self, name: str) -> bytes:
        data = self._store.find(self.address(check_name(name)))
        if data is None:
            raise ValueError(f"{name!r} is not in {self._root}")
        return data

    def address(self, name: str) -> str:
        return join(self._root, name)


def digest(files: Files, name: str) -> str:
    """sha256 of a file of the source."""
    return sha256_file(files.local(name))
