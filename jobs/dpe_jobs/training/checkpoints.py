"""Checkpoints in the object store: `checkpoints/step-N/`, complete when its manifest is there. No torch in here.

Every pod uploads what its ranks wrote; the manifest of all files goes last. Whatever has none, or does not match it,
does not exist. On resume every pod gets all files, because each rank reads its own shards and the common ones.
"""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.artifacts import Manifest, OutputFile
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.store import ChecksumMismatch, NotFound, Store, join

log = logging.getLogger(__name__)

KEPT = 2  # complete checkpoints that stay in the store
_UPLOADS = 4  # files at once


def folder(launch: TrainingLaunch, step: int | None = None) -> str:
    """Address of one checkpoint, or of all."""
    return join(launch.output, "checkpoints", *([] if step is None else [f"step-{step}"]))


def local_folder(output: Path, step: int) -> Path:
    """Where the trainer writes and looks for a checkpoint."""
    return output / f"checkpoint-{step}"


def _objects_by_step(store: Store, launch: TrainingLaunch) -> dict[int, list[str]]:
    prefix = folder(launch) + "/step-"
    found: dict[int, list[str]] = {}
    for item in store.list(folder(launch)):
        step = item.uri.removeprefix(prefix).split("/", 1)[0]
        if item.uri.startswith(prefix) and step.isdecimal():
            found.setdefault(int(step), []).append(item.uri)
    return found


def complete_steps(store: Store, launch: TrainingLaunch) -> list[int]:
    """Steps with a whole checkpoint, newest first."""
    found = _objects_by_step(store, launch)
    return sorted((s for s, uris in found.items() if join(folder(launch, s), MANIFEST) in uris), reverse=True)


def restore(store: Store, launch: TrainingLaunch, output: Path) -> int | None:
    """Download the newest complete checkpoint; returns its step, or None when there is none to go on from."""
    for step in complete_steps(store, launch):
        target = local_folder(output, step)
        manifest = store.manifest(folder(launch, step))
        if manifest is None:
            continue
        try:
            store.fetch_tree(folder(launch, step), target)
        except (NotFound, ChecksumMismatch) as error:
            log.warning("checkpoint of step %d is not usable, trying an older one: %s", step, error)
            shutil.rmtree(target, ignore_errors=True)
            continue
        log.info("resuming after step %d", step)
        return step
    return None


def withdraw(store: Store, launch: TrainingLaunch, step: int) -> None:
    """Before the files of a step are written (again): what is there from an earlier attempt no longer counts."""
    store.delete([join(folder(launch, step), MANIFEST)])


def upload(
    store: Store, launch: TrainingLaunch, step: int, local: Path, uploaded: Callable[[], None] = lambda: None
) -> list[OutputFile]:
    """Upload what this pod's ranks wrote; `uploaded` is called after each file, for shards are large."""

    def one(name: str) -> OutputFile:
        output = store.upload(local / name, join(folder(launch, step), name))
        uploaded()
        return output.model_copy(update={"path": name})

    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_UPLOADS) as pool:
        return list(pool.map(one, names))


def commit(store: Store, launch: TrainingLaunch, step: int, outputs: list[OutputFile]) -> None:
    """All pods have uploaded: put the marker, then drop what is no longer needed."""
    manifest = Manifest(
        stage="checkpoint",
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=datetime.now(UTC),
        outputs=sorted(outputs, key=lambda o: o.path),
        summary={"step": step},
        seed=launch.seed,
    )
    store.put(join(folder(launch, step), MANIFEST), manifest.model_dump_json(by_alias=True).encode())
    prune(store, launch, step)


def prune(store: Store, launch: TrainingLaunch, newest: int) -> None:
    """Delete all but the newest complete checkpoints, and incomplete ones older than the newest."""
    kept = [s for s in complete_steps(store, launch) if s <= newest][:KEPT]
    for step, uris in _objects_by_step(store, launch).items():
        if step < newest and step not in kept:
            marker = join(folder(launch, step), MANIFEST)
            # the marker first: a half-deleted checkpoint must not look whole
            store.delete(sorted(uris, key=lambda uri: uri != marker))
