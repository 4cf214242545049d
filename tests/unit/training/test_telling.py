"""Large files that come and go are progress, for whoever looks at progress.json from outside."""

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.patience import deadline
from tests.unit.training.test_ends import launch

from dpe_jobs import runtime
from dpe_jobs.runtime import ProgressReporter
from dpe_jobs.training import run
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.run import telling
from dpe_jobs.transfer import Progress


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute goes by in no time here."""
    monkeypatch.setattr(runtime, "PROGRESS_INTERVAL_S", 0.0)


def told_at(store: MemoryStore) -> datetime:
    return datetime.fromisoformat(json.loads(store.get("s3://dpe/x/training/progress.json"))["updatedAt"])


def test_while_bytes_move_progress_is_told_again_and_else_it_is_not() -> None:
    store = MemoryStore()
    reporter = ProgressReporter(launch(), store, 16, 4, unit="steps")
    with telling(reporter, store.moved, every_s=0.02):
        silent = told_at(store)
        time.sleep(0.2)
        assert told_at(store) == silent, "nothing moves"
        transfer, end, done = Progress(store.moved), deadline(10), 0
        while told_at(store) == silent:
            assert time.monotonic() < end
            done += 1
            transfer.reached(done)
            time.sleep(0.01)
        time.sleep(0.2)  # what was under way
        still = told_at(store)
        for _ in range(10):
            transfer.reached(done)  # a transfer that begins anew has not got further
            time.sleep(0.02)
        assert told_at(store) == still
    transfer.reached(done + 1)
    time.sleep(0.1)
    assert told_at(store) == still, "it is over"


def test_a_pod_that_does_not_report_tells_nothing() -> None:
    store = MemoryStore()
    with telling(None, store.moved, every_s=0.01):
        Progress(store.moved).reached(1)
        time.sleep(0.05)
    assert not store.objects


def test_a_store_that_is_away_ends_nothing_here() -> None:
    store = MemoryStore()
    reporter = ProgressReporter(launch(), store, 16, unit="steps")
    with telling(reporter, store.moved, every_s=0.02):
        before = told_at(store)
        store.down = True
        Progress(store.moved).reached(1)
        time.sleep(0.1)
        store.down = False
        end, done = deadline(10), 1
        transfer = Progress(store.moved)
        while told_at(store) == before:
            assert time.monotonic() < end
            done += 1
            transfer.reached(done)
            time.sleep(0.01)


def test_what_gets_on_between_steps_is_told_now_and_then(tmp_path: Path) -> None:
    store, pod = MemoryStore(), Pod(0, tmp_path, tmp_path)
    pod.prepare(launch())
    reporter = ProgressReporter(launch(), store, 16, 4, unit="steps")
    look = run._progress(reporter, pod, 4)
    before, began = told_at(store), pod.beaten_at()
    for later, told in ((run.TELL_S - 1, False), (run.TELL_S, True)):
        os.utime(pod.work / "ranks" / "heartbeat", (began + later, began + later))
        look()
        assert (told_at(store) > before) is told
    before = told_at(store)
    look()
    assert told_at(store) == before, "nothing got done since"
