"""The training stage of one pod: fetch, train with the rest of the gang, and publish from the first pod."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from typing import NoReturn

from prometheus_client import REGISTRY

from dpe_api.launch import Launch, TrainingLaunch
from dpe_jobs.runtime import BadConfig, ProgressReporter, run_stage
from dpe_jobs.store import Store
from dpe_jobs.training import checkpoints
from dpe_jobs.training.gang import run_gang
from dpe_jobs.training.metrics import StepCollector, last_row, live
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.publish import finish, publish
from dpe_jobs.training.samples import in_store
from dpe_jobs.training.uploads import Uploader
from dpe_jobs.training.warmup.run import warm_up

log = logging.getLogger(__name__)


def train(launch: TrainingLaunch, store: Store, pod: Pod) -> None:
    """Everything that one pod does; returns when the stage is done as far as this pod is concerned."""
    if finish(launch, store, pod.index):
        return
    pod.prepare(launch)
    in_store(store, launch.samples_artifact)  # refused here, before anything starts; the ranks read them
    warmed = warm_up(launch, store, pod)
    if warmed is not None:
        pod = warmed.pod
    resumed = checkpoints.restore(store, launch, pod.output)
    if resumed is not None:
        shutil.copy(checkpoints.local_folder(pod.output, resumed) / pod.metrics_file.name, pod.metrics_file)
    pod.beat()  # a large checkpoint takes its time, which is not the ranks'
    REGISTRY.register(StepCollector(pod.metrics_file))
    run_gang(launch, pod, Uploader(launch, pod, store), _progress(launch, store, pod, resumed or 0))
    if pod.index == 0:
        publish(launch, store, pod, resumed, warmed)


def _progress(launch: TrainingLaunch, store: Store, pod: Pod, done: int) -> Callable[[], None]:
    """What looks at metrics.jsonl and reports new steps; the first pod does it for all."""
    if pod.index != 0:
        return lambda: None
    reporter = ProgressReporter(launch, store, launch.training.max_steps, done, unit="steps")

    def look() -> None:
        nonlocal done
        row = last_row(pod.metrics_file)
        if row is not None and row.step > done:
            done = row.step
            reporter.set(done, live=live(row))

    return look


def _body(launch: Launch, store: Store) -> None:
    if not isinstance(launch, TrainingLaunch):
        raise BadConfig("WrongLaunch", f"this is the training stage, the launch is of {launch.stage}")
    train(launch, store, Pod.here(launch))


def main(launch: Launch) -> NoReturn:
    """Leave with the exit code of this pod, as soon as how it ended is told.

    At its usual end the interpreter waits for the workers of every thread pool: a pod whose ranks are gone would stay,
    and keep the next attempt waiting, for as long as its upload takes.
    """
    code = run_stage(launch, _body)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
