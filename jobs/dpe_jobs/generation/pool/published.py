"""Versions of an index: `POOL/_index/vNNNNNN-XXXXXXXX/`, each a table with everything in it, and a manifest put last.

A version is never changed. Readers take the newest; the one before it stays for those that are reading it.
"""

import re
import secrets
from collections import defaultdict

from dpe_api.artifacts import Manifest
from dpe_api.names import MANIFEST
from dpe_jobs.generation.pool.shards import INDEX
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import Store, join

TABLE = "images"  # the table's name in a version's folder
STAGE = "pool-index"
_VERSION = re.compile(r"v(\d{6})-[0-9a-f]{8}")


def _folders(store: Store, pool: str) -> dict[tuple[int, str], list[str]]:
    """Objects of each version's folder, by number and name."""
    root = join(pool, INDEX) + "/"
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for info in store.list(join(pool, INDEX)):
        name = info.uri.removeprefix(root).split("/", 1)[0]
        if match := _VERSION.fullmatch(name):
            found[int(match[1]), name].append(info.uri)
    return found


def _published(store: Store, pool: str) -> list[tuple[int, str]]:
    root = join(pool, INDEX)
    return sorted(key for key, uris in _folders(store, pool).items() if join(root, key[1], MANIFEST) in uris)


def latest(store: Store, pool: str) -> tuple[str, Manifest] | None:
    """Folder and manifest of the newest version; None when there is none."""
    versions = _published(store, pool)
    if not versions:
        return None
    # of two that were made at once either will do, and everybody takes the same
    folder = join(pool, INDEX, versions[-1][1])
    manifest = store.manifest(folder)
    assert manifest is not None, "it was listed, and nobody removes the newest version"
    return folder, manifest


def version(store: Store, pool: str, folder: str | None = None) -> tuple[str, Manifest]:
    """Folder and manifest of a version, the newest one unless `folder` names it. BadConfig: it is not there."""
    if folder is None:
        newest = latest(store, pool)
        if newest is None:
            raise BadConfig("NotIndexed", f"{pool} has no index: run python -m dpe_jobs index {pool}")
        return newest
    manifest = store.manifest(folder)
    if manifest is None:
        raise BadConfig("IndexGone", f"{folder} was removed by newer versions of the index: start the iteration anew")
    return folder, manifest


def next_folder(store: Store, pool: str) -> str:
    """An empty folder for a version newer than all published ones."""
    versions = _published(store, pool)
    number = versions[-1][0] + 1 if versions else 1
    return join(pool, INDEX, f"v{number:06d}-{secrets.token_hex(4)}")


def clean_up(store: Store, pool: str, parts: set[str]) -> None:
    """Remove versions before the last but one, what killed runs left of such, and parts that no shard has any more.

    Of the newest number nothing is removed: somebody may be writing there.
    """
    numbers = sorted({number for number, _ in _published(store, pool)})
    oldest = numbers[-2] if len(numbers) > 1 else 0
    newest = numbers[-1] if numbers else 0
    complete = set(_published(store, pool))
    for key, uris in _folders(store, pool).items():
        if key[0] < oldest or (key not in complete and key[0] < newest):
            store.delete(sorted(uris, key=lambda uri: not uri.endswith("/" + MANIFEST)))  # the manifest first
    folder = join(pool, INDEX, "parts")
    store.delete(o.uri for o in store.list(folder) if o.uri.removeprefix(folder + "/") not in parts)
