import asyncio
import json
import logging
import os
import signal
import threading

import pytest
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import ExitReport, Progress
from dpe_api.names import Exit
from dpe_jobs import runtime
from dpe_jobs.runtime import (
    BadConfig,
    BadData,
    PeerGone,
    ProgramDied,
    ProgressReporter,
    Stopped,
    Transient,
    classify,
    run_async,
    run_stage,
)
from dpe_jobs.store import AlreadyPublished, ChecksumMismatch, NotFound, Store, StoreError, StoreUnreachable

LAUNCH = worlds.diagnosis("http://model:8000", attempt=3)


@pytest.fixture
def store(monkeypatch, tmp_path) -> MemoryStore:
    store = MemoryStore()
    monkeypatch.setattr(Store, "from_env", lambda address: store)
    monkeypatch.setattr(runtime, "TERMINATION_PATH", str(tmp_path / "termination-log"))
    before = signal.getsignal(signal.SIGTERM)
    yield store
    signal.signal(signal.SIGTERM, before)


def fails_with(error: BaseException):
    def body(launch, store) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (BadData("BadQuestion", "row 3"), Exit.BAD_DATA, "BadQuestion"),
        (BadConfig("Wrong", "field"), Exit.BAD_CONFIG, "Wrong"),
        (Transient("ErrorRate", "9 of 10"), Exit.TRANSIENT, "ErrorRate"),
        (ProgramDied("ServerDied", "exit 0"), Exit.PROGRAM_DIED, "ServerDied"),
        (PeerGone("PeerGone", "rank 1"), Exit.PEER_GONE, "PeerGone"),
        (NotFound("s3://a/b does not exist"), Exit.BAD_DATA, "NotFound"),
        (ChecksumMismatch("x"), Exit.BAD_DATA, "ChecksumMismatch"),
        (StoreError("AccessDenied"), Exit.BAD_CONFIG, "StoreRefused"),
        (StoreUnreachable("no answer"), Exit.TRANSIENT, "StoreUnreachable"),
        (Stopped(), Exit.STOPPED, "Stopped"),
        (ValueError("odd"), Exit.TRANSIENT, "ValueError"),
        (KeyError(), Exit.TRANSIENT, "KeyError"),
        (MemoryError(), Exit.TRANSIENT, "MemoryError"),
    ],
)
def test_every_end_has_its_exit_code_and_says_why(store, tmp_path, error, code, reason):
    assert run_stage(LAUNCH, fails_with(error), metrics=False) == code
    said = json.loads((tmp_path / "termination-log").read_text())
    assert said["reason"] == reason
    assert said["message"]
    [uri] = [u for u in store.objects if "/attempts/3/exit-" in u]
    report = ExitReport.model_validate_json(store.objects[uri])
    assert (report.exit_code, report.reason, report.attempt) == (code, reason, 3)


def test_a_stage_that_works_is_done_and_one_that_came_second_too(store):
    assert run_stage(LAUNCH, lambda launch, store: None, metrics=False) == Exit.DONE
    assert run_stage(LAUNCH, fails_with(AlreadyPublished("late")), metrics=False) == Exit.DONE
    assert not store.objects


def test_missing_credentials_are_a_configuration_error(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "TERMINATION_PATH", str(tmp_path / "log"))
    monkeypatch.delenv("DPE_S3_ACCESS_KEY", raising=False)
    assert run_stage(LAUNCH, lambda launch, store: None, metrics=False) == Exit.BAD_CONFIG
    assert "DPE_S3_ACCESS_KEY" in (tmp_path / "log").read_text()


def test_a_long_message_fits_the_termination_log(store, tmp_path):
    run_stage(LAUNCH, fails_with(BadData("Long", 'ää\n"' * 10_000)), metrics=False)
    raw = (tmp_path / "termination-log").read_bytes()
    assert len(raw) <= 4096
    assert json.loads(raw)["message"].startswith("ää")


def test_a_store_that_is_down_does_not_change_the_end(store, tmp_path):
    store.down = True
    assert run_stage(LAUNCH, fails_with(BadData("Bad", "row")), metrics=False) == Exit.BAD_DATA
    assert "Bad" in (tmp_path / "termination-log").read_text()


def test_sigterm_ends_a_stage_with_143_after_its_finally_blocks(store):
    flushed = []

    def body(launch, store) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
        finally:
            flushed.append(True)

    assert run_stage(LAUNCH, body, metrics=False) == Exit.STOPPED
    assert flushed == [True]


def test_sigterm_reaches_async_code_as_a_cancellation_and_ends_as_stopped(store):
    cleaned = []

    async def worker() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append("worker")

    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker())
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)  # cleaning up may await
            cleaned.append("main")

    assert run_stage(LAUNCH, lambda launch, store: run_async(main()), metrics=False) == Exit.STOPPED
    assert cleaned == ["worker", "main"]


def test_run_async_gives_back_the_result_and_the_signal_handler():
    async def main() -> int:
        return 7

    before = signal.getsignal(signal.SIGTERM)
    assert run_async(main()) == 7
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_is_written_at_most_every_five_seconds_and_at_the_end(monkeypatch):
    store, now = MemoryStore(), [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    progress = ProgressReporter(LAUNCH, store, total=20, done=5)
    for _ in range(10):
        now[0] += 1
        progress.advance()
    assert len(store.puts) == 3
    written = Progress.model_validate_json(store.objects[f"{LAUNCH.output}/progress.json"])
    assert (written.done, written.total, written.rate, written.eta_seconds, written.attempt) == (15, 20, 1.0, 5.0, 3)
    progress.advance(5)
    assert Progress.model_validate_json(store.objects[f"{LAUNCH.output}/progress.json"]).done == 20


def test_a_beat_is_written_at_most_every_five_seconds_so_that_every_row_may_beat(monkeypatch):
    store, now = MemoryStore(), [0.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    progress = ProgressReporter(LAUNCH, store, total=0)
    at = f"{LAUNCH.output}/progress.json"
    written = []
    for now[0] in (1.0, 2.0, 6.0, 7.0):
        store.objects.pop(at, None)
        progress.beat()
        written.append(at in store.objects)
    assert written == [False, False, True, False]


def test_threads_that_advance_together_lose_no_count():
    store = MemoryStore()
    progress = ProgressReporter(LAUNCH, store, total=4000)
    threads = [threading.Thread(target=lambda: [progress.advance() for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Progress.model_validate_json(store.objects[f"{LAUNCH.output}/progress.json"]).done == 4000


def test_log_lines_are_json_that_names_the_stage():
    record = logging.LogRecord("a.b", logging.WARNING, "f", 1, "x %s", ("y",), None)
    line = json.loads(runtime._JsonLines(LAUNCH).format(record))
    assert (line["message"], line["level"], line["stage"], line["iteration"], line["attempt"]) == (
        ("x y", "warning", "diagnosis", "shapes-1", 3)
    )


def test_package_versions_leave_out_what_is_not_installed():
    found = runtime.package_versions("numpy", "no-such-package")
    assert set(found) == {"python", "numpy"}


def test_classify_never_gives_an_empty_message():
    assert classify(RuntimeError())[2] == "RuntimeError()"
