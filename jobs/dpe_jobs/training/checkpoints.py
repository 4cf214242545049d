"""Checkpoints in the object store: `checkpoints/step-N-attempt-A/`, complete when its manifest is there. No torch here.

Every pod uploads what its ranks wrote and says so in `parts/POD.json`; when all have, the first pod puts the manifest
of all files. Whatever has none, or does not match it, does not exist. On resume every pod gets all files, because each
rank reads its own shards and the common ones. Attempts write folders of their own: nothing is ever written over.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from dpe_api.artifacts import Manifest, OutputFile
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.runtime import Transient
from dpe_jobs.store import ChecksumMismatch, NotFound, Store, join
from dpe_jobs.training.metrics import read_rows

log = logging.getLogger(__name__)

SHAPE = "shape.json"
METRICS = "metrics.jsonl"
_UPLOADS = 8  # files at once
_POLL_S = 0.2
_FOLDER = re.compile(r"step-(\d+)-attempt-(\d+)")
_FILES = TypeAdapter(list[OutputFile])


class Shape(NamedTuple):
    """How a checkpoint is cut into files."""

    world_size: int
    zero_stage: int


class Place(NamedTuple):
    """Which checkpoint; the greater, the newer."""

    step: int
    attempt: int


def folder(launch: TrainingLaunch, place: Place | None = None) -> str:
    """Address of one checkpoint, or of all."""
    name = [] if place is None else [f"step-{place.step}-attempt-{place.attempt}"]
    return join(launch.output, "checkpoints", *name)


def local_folder(output: Path, step: int) -> Path:
    """Where the trainer writes and looks for a checkpoint."""
    return output / f"checkpoint-{step}"


def newest_local(output: Path) -> Path | None:
    """The checkpoint on the pod's disk to go on from, or None."""
    steps = [int(path.name.removeprefix("checkpoint-")) for path in output.glob("checkpoint-*")]
    return local_folder(output, max(steps)) if steps else None


def _objects(store: Store, launch: TrainingLaunch) -> dict[Place, list[str]]:
    prefix = folder(launch) + "/"
    found: dict[Place, list[str]] = {}
    for item in store.list(folder(launch)):
        named = _FOLDER.fullmatch(item.uri.removeprefix(prefix).split("/", 1)[0])
        if named is not None:
            found.setdefault(Place(int(named[1]), int(named[2])), []).append(item.uri)
    return found


def complete(store: Store, launch: TrainingLaunch) -> list[Place]:
    """Whole checkpoints, newest first."""
    found = _objects(store, launch)
    return sorted((p for p, uris in found.items() if join(folder(launch, p), MANIFEST) in uris), reverse=True)


def restore(store: Store, launch: TrainingLaunch, output: Path) -> int | None:
    """Download the newest complete checkpoint; returns its step, or None when there is none to go on from."""
    for place in complete(store, launch):
        target = local_folder(output, place.step)
        try:
            store.fetch_tree(folder(launch, place), target)
        except (NotFound, ChecksumMismatch) as error:
            log.warning("checkpoint of step %d is not usable, trying an older one: %s", place.step, error)
            shutil.rmtree(target, ignore_errors=True)
            continue
        log.info("resuming after step %d", place.step)
        return place.step
    return None


def upload(
    store: Store,
    launch: TrainingLaunch,
    place: Place,
    local: Path,
    pod: int = 0,
    uploaded: Callable[[], None] = lambda: None,
) -> list[OutputFile]:
    """Upload what a pod's ranks wrote, then that it did; `uploaded` is called after each file, for shards are large."""

    def one(name: str) -> OutputFile:
        output = store.upload(local / name, join(folder(launch, place), name))
        uploaded()
        return output.model_copy(update={"path": name})

    # large ones first, else the largest is sent alone at the end
    files = sorted((p for p in local.rglob("*") if p.is_file()), key=lambda p: (-p.stat().st_size, p))
    with ThreadPoolExecutor(_UPLOADS) as pool:
        outputs = list(pool.map(one, (p.relative_to(local).as_posix() for p in files)))
    store.put(_part(launch, place, pod), _FILES.dump_json(outputs, by_alias=True))
    return outputs


def _part(launch: TrainingLaunch, place: Place, pod: int) -> str:
    return join(folder(launch, place), "parts", f"{pod}.json")


def parts(store: Store, launch: TrainingLaunch, place: Place, within_s: float) -> list[OutputFile]:
    """What all pods uploaded; Transient when one of them has not for too long."""
    found: list[OutputFile] = []
    deadline = time.monotonic() + within_s
    for pod in range(launch.training.nodes):
        while (data := store.find(_part(launch, place, pod))) is None:
            if time.monotonic() > deadline:
                raise Transient(
                    "CheckpointLate", f"pod {pod} has not uploaded its part of step {place.step} in {within_s:.0f} s"
                )
            time.sleep(_POLL_S)
        found += _FILES.validate_json(data)
    return found


def commit(
    store: Store, launch: TrainingLaunch, place: Place, outputs: list[OutputFile], reward: float | None = None
) -> None:
    """All pods have uploaded: put the manifest, then drop what is no longer needed. `reward` decides which is best."""
    manifest = Manifest(
        stage="checkpoint",
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=datetime.now(UTC),
        outputs=sorted(outputs, key=lambda o: o.path),
        summary={"step": place.step, "reward": reward},
        seed=launch.seed,
    )
    store.publish(folder(launch, place), manifest)
    prune(store, launch, place)


def recent_reward(local: Path, steps: int) -> float | None:
    """Mean reward of the last steps before a checkpoint; None when its metrics are not here (another pod has them)."""
    rows = read_rows(local / METRICS)[-steps:]
    return sum(row.reward for row in rows) / len(rows) if rows else None


def _best(store: Store, launch: TrainingLaunch, places: list[Place]) -> Place | None:
    """The one with the highest reward; the newest of equals."""
    rewards = {}
    for place in places:
        manifest = store.manifest(folder(launch, place))
        reward = None if manifest is None else manifest.summary.get("reward")
        if isinstance(reward, int | float):
            rewards[place] = reward
    return max(rewards, key=lambda p: (rewards[p], p), default=None)


def prune(store: Store, launch: TrainingLaunch, newest: Place) -> None:
    """Delete all but the newest complete checkpoints and the best one, and incomplete ones older than the newest."""
    whole = [p for p in complete(store, launch) if p <= newest]
    kept = {*whole[: launch.training.save_total_limit], _best(store, launch, whole)}
    for place, uris in _objects(store, launch).items():
        if place < newest and place not in kept:
            marker = join(folder(launch, place), MANIFEST)
            # the marker first: a half-deleted checkpoint must not look whole
            store.delete(sorted(uris, key=lambda uri: uri != marker))


def shape_of(local: Path) -> Shape:
    """How a downloaded checkpoint is cut."""
    return Shape(**json.loads((local / SHAPE).read_text()))
