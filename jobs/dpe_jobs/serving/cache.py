"""Models that were downloaded before, by the checksums of their manifests: the next pod or round takes them from there.

A volume that pods share (`modelCache` of the Helm values) holds a folder for each model. It has its name only when it
is whole, so that a pod that is killed leaves nothing that another would take for a model. Manifests hold the checksums
of all files, so equal names are equal models.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpe_api.artifacts import Manifest
from dpe_jobs.store import Store

log = logging.getLogger(__name__)

IN_USE_S = 14 * 24 * 3600.0
"""A model that was asked for this recently stays: a pod reads it as long as it runs, a training at its very end."""
_POLL_S = 0.5
_UNFINISHED = ".part-"


def provide(store: Store, uri: str, folder: Path, cache: Path, most_bytes: int, check: Callable[[Path], None]) -> bool:
    """Fill `folder` with links to the model in the cache, which is downloaded first if it is not there.

    `check` raises what is wrong with a downloaded folder, which then is not kept. False: the cache cannot have it (the
    model has no manifest, or is too large, or the volume is full of what is in use, or cannot be written), and the log
    says why; a broken cache never stops a pod. Errors of the store go through.
    """
    manifest = store.manifest(uri)
    if manifest is None:
        log.info("%s has no manifest, so that nobody knows whether it is the same as before: it is not cached", uri)
        return False
    kept = cache / store.input_ref(uri).sha256
    try:
        with _alone(cache, kept.name):
            for left in cache.glob(f"{_UNFINISHED}{kept.name}-*"):
                shutil.rmtree(left)  # whoever wrote it was killed: he held the lock
            if _is_whole(kept, manifest):
                log.info("%s is in the cache", uri)
            else:
                if kept.exists():
                    log.warning("%s in the cache is not whole: it is downloaded again", uri)
                    shutil.rmtree(kept)
                if not _room(cache, sum(o.size for o in manifest.outputs), most_bytes):
                    return False
                _download(store, uri, kept, check)
            os.utime(kept)
    except OSError as error:
        log.warning("the cache of models cannot be used: %s", error)
        return False
    for output in manifest.outputs:
        link = folder / output.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(kept / output.path)
    return True


@contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    """One pod at a time: replicas that start together wait for the first one's download.

    The kernel lets go of the lock when its holder dies; the operator's deadline for the start-up bounds the wait.
    """
    waits = False
    while True:
        with _tried(cache, name) as alone:
            if alone:
                yield
                return
        if not waits:
            log.info("another pod has the model's place in the cache: waiting for it")
        waits = True
        time.sleep(_POLL_S)


@contextmanager
def _tried(cache: Path, name: str) -> Iterator[bool]:
    """Whether this pod alone has to do with a model, as long as the context lasts; False: another one has.

    The lock's file is empty and stays for ever: who removes it lets two pods be alone, each with a file of its own.
    """
    with (cache / f".lock-{name}").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_whole(kept: Path, manifest: Manifest) -> bool:
    """Whether all files are there in their sizes. Checksums were compared when they came."""
    files = [(kept / o.path, o.size) for o in manifest.outputs]
    return bool(files) and all(path.is_file() and path.stat().st_size == size for path, size in files)


def _download(store: Store, uri: str, kept: Path, check: Callable[[Path], None]) -> None:
    part = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{kept.name}-", dir=kept.parent))
    try:
        store.fetch_tree(uri, part)
        check(part)
        part.chmod(0o755)
        part.rename(kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned(cache: Path, folder: Path) -> bool:
    """Whether a folder is that of a download, and nobody's any more: then it is gone."""
    name = folder.name.removeprefix(_UNFINISHED).rpartition("-")[0]
    if not folder.name.startswith(_UNFINISHED) or not name:
        return False  # older releases named no model, and held no lock while they downloaded: only its age tells
    with _tried(cache, name) as alone:
        if alone:
            shutil.rmtree(folder)
        return alone


def _remove_unused(cache: Path, folder: Path, long_ago: float) -> bool:
    """Whether a folder is gone now. It stays when a pod has asked for it since it was looked at, or does so now."""
    with _tried(cache, folder.name) as alone:
        if not alone:
            return False
        if not folder.exists():
            return True  # another pod made room, too
        if folder.stat().st_mtime >= long_ago:
            return False
        shutil.rmtree(folder)
        return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _room(cache: Path, wanted: int, most_bytes: int) -> bool:
    """Make room for `wanted` bytes: the models that nobody has asked for longest go first."""
    long_ago = time.time() - IN_USE_S
    models: list[tuple[float, int, Path]] = []
    for folder in (path for path in cache.iterdir() if path.is_dir()):
        used = folder.stat().st_mtime
        if _remove_abandoned(cache, folder):
            log.info("%s was left by a pod that was killed: it is gone", folder.name)
        elif folder.name != "lost+found":
            models.append((used, _size(folder), folder))
    taken = sum(size for _, size, _ in models)
    for used, size, folder in sorted(models):
        if taken + wanted <= most_bytes or used >= long_ago:
            break
        if _remove_unused(cache, folder, long_ago):
            log.info("%s left the cache: it was not asked for in %.0f days", folder.name, (time.time() - used) / 86400)
            taken -= size
    if taken + wanted > most_bytes:
        log.warning(
            "the cache of models holds %d bytes that are in use, of at most %d, and has no room for another %d: raise "
            "modelCache.maxSize of the Helm values",
            taken,
            most_bytes,
            wanted,
        )
    return taken + wanted <= most_bytes
