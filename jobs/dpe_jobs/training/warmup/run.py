"""The warm-up of one pod: its gang, and `checkpoints/warmup-attempt-A/` in the store, complete when its manifest is
there. No torch here.
"""

import logging
import re
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY

from dpe_api.artifacts import Manifest, WarmupSummary
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.runtime import ProgressReporter, Transient
from dpe_jobs.store import AlreadyPublished, Store, join
from dpe_jobs.training.gang import run_gang
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.uploads import PARTS_WITHIN_S, Uploader
from dpe_jobs.training.warmup.lessons import Lessons, read_lessons
from dpe_jobs.training.warmup.metrics import METRICS, WarmupCollector, read, summarise

log = logging.getLogger(__name__)

_FOLDER = re.compile(r"warmup-attempt-(\d+)")
_POLL_S = 0.5


class Warmed(NamedTuple):
    """What GRPO starts from."""

    pod: Pod
    """With the warmed-up model."""
    summary: WarmupSummary
    metrics: Path
    """A line per step."""


def folder(launch: TrainingLaunch, attempt: int) -> str:
    """Address of what an attempt's warm-up left."""
    return join(launch.output, "checkpoints", f"warmup-attempt-{attempt}")


def complete(store: Store, launch: TrainingLaunch) -> str | None:
    """Address of the warm-up that is done; of several that of the first attempt, which all others went on from."""
    prefix = join(launch.output, "checkpoints") + "/"
    found = []
    for item in store.list(prefix.rstrip("/")):
        name, _, file = item.uri.removeprefix(prefix).partition("/")
        if file == MANIFEST and (named := _FOLDER.fullmatch(name)) is not None:
            found.append(int(named[1]))
    return folder(launch, min(found)) if found else None


def warm_up(launch: TrainingLaunch, store: Store, pod: Pod) -> Warmed | None:
    """Have a warmed-up model in the pod: from the store when it is done, else by training it with the gang.

    None: none is asked for, or nothing was out of reach.
    """
    warmup = launch.training.warmup
    lessons = None if warmup is None else read_lessons(store, launch.samples_artifact)
    if warmup is None or lessons is None:
        return None
    found = complete(store, launch)
    if found is None:
        found = _train(launch, store, pod, lessons)
    else:
        log.info("warmed up already: %s", found)
    store.fetch_tree(found, pod.warmup)
    manifest = store.manifest(found)
    assert manifest is not None, "it has just been read"
    summary = WarmupSummary.model_validate(manifest.summary)
    return Warmed(replace(pod, model=pod.warmup / "model"), summary, pod.warmup / METRICS)


def _train(launch: TrainingLaunch, store: Store, pod: Pod, lessons: Lessons) -> str:
    """Run the gang; the first pod publishes, the others wait for it. Returns the address."""
    assert launch.training.warmup is not None
    shutil.rmtree(pod.warmed, ignore_errors=True)
    rows = pod.warmed / METRICS
    reporter = ProgressReporter(launch, store, launch.training.warmup.max_steps, unit="warm-up steps")

    def look() -> None:
        for row in read(rows)[-1:]:
            reporter.set(row.step, live={"step": row.step, "loss": row.loss})

    collector = WarmupCollector(rows)
    REGISTRY.register(collector)
    try:
        run_gang(launch, pod, Uploader(launch, pod, store), look if pod.index == 0 else lambda: None, warmup=True)
    finally:
        REGISTRY.unregister(collector)
    pod.forget()
    address = folder(launch, launch.attempt)
    if pod.index == 0:
        publish(launch, store, pod, lessons)
    else:
        _wait_for(store, address)
    return address


def publish(launch: TrainingLaunch, store: Store, pod: Pod, lessons: Lessons) -> None:
    """Put what the ranks left into the store; it is removed from the pod's disk."""
    assert launch.training.warmup is not None
    summary = summarise(read(pod.warmed / METRICS), lessons, launch.training.warmup)
    address = folder(launch, launch.attempt)
    manifest = Manifest(
        stage="warmup",
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=datetime.now(UTC),
        inputs=[store.input_ref(launch.model_uri), store.input_ref(launch.samples_artifact)],
        outputs=store.upload_tree(pod.warmed, address),
        summary=summary.wire(),
        seed=launch.seed,
    )
    try:
        store.publish(address, manifest)
    except AlreadyPublished:
        log.warning("%s was published meanwhile: that one stays", address)
    shutil.rmtree(pod.warmed)


def _wait_for(store: Store, address: str) -> None:
    """Transient "WarmupLate": the first pod has not published."""
    end = time.monotonic() + PARTS_WITHIN_S
    while store.manifest(address) is None:
        if time.monotonic() >= end:
            raise Transient("WarmupLate", f"{address} has no manifest after {PARTS_WITHIN_S:.0f} s")
        time.sleep(_POLL_S)
