"""The training stage of one pod: fetch, train with the rest of the gang, and publish from the first pod."""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from prometheus_client import REGISTRY

from dpe_api.launch import Launch, TrainingLaunch
from dpe_jobs.runtime import BadConfig, ProgressReporter, run_stage
from dpe_jobs.store import Store, StoreError, StoreUnreachable
from dpe_jobs.training import checkpoints
from dpe_jobs.training.gang import run_gang
from dpe_jobs.training.metrics import StepCollector, last_row, live
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.publish import finish, publish
from dpe_jobs.training.samples import in_store
from dpe_jobs.training.uploads import Uploader
from dpe_jobs.training.warmup.run import warm_up
from dpe_jobs.transfer import Moved

log = logging.getLogger(__name__)

TELL_S = 60.0


def train(launch: TrainingLaunch, store: Store, pod: Pod) -> None:
    """Everything that one pod does; returns when the stage is done as far as this pod is concerned."""
    if finish(launch, store, pod.index):
        return
    pod.prepare(launch)
    in_store(store, launch.samples_artifact)  # refused here, before anything starts; the ranks read them
    warmed = warm_up(launch, store, pod)
    if warmed is not None:
        pod = warmed.pod
    with telling(_reporter(launch, store, pod, 0), store.moved):
        resumed = checkpoints.restore(store, launch, pod.output)
    if resumed is not None:
        shutil.copy(checkpoints.local_folder(pod.output, resumed) / pod.metrics_file.name, pod.metrics_file)
    pod.beat()  # a large checkpoint takes its time, which is not the ranks'
    REGISTRY.register(StepCollector(pod.metrics_file))
    reporter = _reporter(launch, store, pod, resumed or 0)
    with telling(reporter, store.moved):
        run_gang(launch, pod, Uploader(launch, pod, store), _progress(reporter, pod, resumed or 0))
        if pod.index == 0:
            publish(launch, store, pod, resumed, warmed)


def _reporter(launch: TrainingLaunch, store: Store, pod: Pod, done: int) -> ProgressReporter | None:
    """The first pod's, which reports for all."""
    return ProgressReporter(launch, store, launch.training.max_steps, done, unit="steps") if pod.index == 0 else None


@contextmanager
def telling(reporter: ProgressReporter | None, moved: Moved, every_s: float = TELL_S) -> Iterator[None]:
    """Tell of files that come and go: for a large checkpoint, or the model, that takes longer than any step.

    Who looks at progress.json from outside would otherwise end a pod that downloads for half an hour.
    """
    over = threading.Event()

    def tell(reporter: ProgressReporter) -> None:
        seen = moved.at
        while not over.wait(every_s):
            if moved.at > seen:
                seen = moved.at
                try:
                    reporter.beat()
                except (StoreError, StoreUnreachable) as error:  # whoever moves the files says so, too
                    log.warning("progress is not told: %s", error)

    if reporter is not None:
        threading.Thread(target=tell, args=(reporter,), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _progress(reporter: ProgressReporter | None, pod: Pod, done: int) -> Callable[[], None]:
    """What looks at metrics.jsonl and reports new steps; the first pod does it for all.

    Whatever else gets on is told now and then: a large checkpoint may be converted for longer than any step.
    """
    if reporter is None:
        return lambda: None
    told = pod.beaten_at()

    def look() -> None:
        nonlocal done, told
        row = last_row(pod.metrics_file)
        if row is not None and row.step > done:
            done = row.step
            reporter.set(done, live=live(row))
        elif pod.beaten_at() >= told + TELL_S:
            told = pod.beaten_at()
            reporter.beat()

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
