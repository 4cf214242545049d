"""Files of a published artifact, as its manifest promised them, and the look before they are written."""

import hashlib
from pathlib import Path

from dpe_jobs.store import AlreadyPublished, ChecksumMismatch, Store, join


def check_unpublished(store: Store, folder: str) -> None:
    """AlreadyPublished when the artifact is there: its files must not be written again.

    An attempt that was taken for lost may still run beside the one that took its place. To be called just before an
    upload: between the two lies no more than a moment, and what is changed in it readers find by its checksum.
    """
    if store.manifest(folder) is not None:
        raise AlreadyPublished(f"{folder} is published already: another attempt came first, and its files stay")


def _promised(store: Store, folder: str, name: str) -> str | None:
    manifest = store.manifest(folder)
    return None if manifest is None else next((o.sha256 for o in manifest.outputs if o.path == name), None)


def download_output(store: Store, folder: str, name: str, path: Path) -> None:
    """Download a file of an artifact. ChecksumMismatch when it is not what the manifest lists, where there is one."""
    store.download(join(folder, name), path, _promised(store, folder, name))


def read_output(store: Store, folder: str, name: str) -> bytes:
    """A small file of an artifact, whole; errors are those of `download_output`."""
    data, promised = store.get(join(folder, name)), _promised(store, folder, name)
    found = hashlib.sha256(data).hexdigest()
    if promised not in (None, found):
        raise ChecksumMismatch(
            f"{join(folder, name)}: sha256 is {found}, its manifest says {promised}: it was written again after it was "
            "published, start a new iteration"
        )
    return data
