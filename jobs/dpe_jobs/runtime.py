"""What every stage process shares: logging, metrics, progress, and an end that says why."""

import asyncio
import json
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from prometheus_client import Gauge, start_http_server
from pydantic import ValidationError

from dpe_api.artifacts import ExitReport, Progress
from dpe_api.launch import Launch
from dpe_api.names import METRICS_PORT, PROGRESS, TERMINATION_PATH, Exit
from dpe_api.trace import trace_id
from dpe_jobs import tracing
from dpe_jobs.store import AlreadyPublished, ChecksumMismatch, NotFound, Store, StoreError, StoreUnreachable, join

T = TypeVar("T")
log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 5.0
_TERMINATION_LIMIT = 4096  # bytes that the kubelet reads

DONE = Gauge("dpe_stage_items_done", "Finished items of this stage", ["stage"])
TOTAL = Gauge("dpe_stage_items_total", "All items of this stage", ["stage"])
RATIO = Gauge("dpe_stage_progress_ratio", "Share of this stage that is finished", ["stage"])


class StageError(Exception):
    """A stage cannot go on. `reason` is one CamelCase word, the message is for a person."""

    exit_code = Exit.TRANSIENT

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadData(StageError):
    """The input is wrong; another attempt would find the same."""

    exit_code = Exit.BAD_DATA


class BadConfig(StageError):
    """The configuration is wrong; another attempt would find the same."""

    exit_code = Exit.BAD_CONFIG


class Transient(StageError):
    """Something outside failed; another attempt may succeed."""


class ProgramDied(StageError):
    """A program inside ended without being asked, whatever status it claimed."""

    exit_code = Exit.PROGRAM_DIED


class PeerGone(StageError):
    """Another pod of the gang vanished."""

    exit_code = Exit.PEER_GONE


class Stopped(BaseException):
    """SIGTERM: flush and leave. Not an Exception, so that no handler takes it for a failure."""


class _JsonLines(logging.Formatter):
    def __init__(self, launch: Launch | None) -> None:
        super().__init__()
        self._fixed = (
            {}
            if launch is None
            else {
                "iteration": launch.iteration.name,
                "stage": str(launch.stage),
                "attempt": launch.attempt,
                "trace_id": trace_id(launch.iteration.uid),
            }
        )

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._fixed,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(launch: Launch | None) -> None:
    """JSON lines in a pod, plain text on a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonLines(launch))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class ProgressReporter:
    """Counts finished items; writes progress.json at most every 5 s and at the end. Thread-safe."""

    def __init__(
        self,
        launch: Launch,
        store: Store,
        total: int,
        done: int = 0,
        unit: str = "items",
        folder: str | None = None,
    ) -> None:
        """`folder`: where progress.json is written; left out: beside the stage's artifact."""
        self._launch, self._store, self._unit, self._folder = launch, store, unit, folder or launch.output
        self._total, self._done, self._resumed = total, done, done
        self._started, self._written = time.monotonic(), float("-inf")
        self._lock = threading.Lock()
        self._live: dict[str, float] | None = None
        self._write()

    def advance(self, items: int = 1, total: int | None = None) -> None:
        """Count items; `total` corrects the number of all items."""
        with self._lock:
            self._done += items
            due = self._due(total)
        if due:
            self._write()

    def set(self, done: int, total: int | None = None, live: dict[str, float] | None = None) -> None:
        """Say how many items are finished, and what else is to be seen while the stage runs."""
        with self._lock:
            self._done, self._live = done, live
            due = self._due(total)
        if due:
            self._write()

    def beat(self) -> None:
        """Say that it goes on, though nothing more is finished; as often as one likes."""
        with self._lock:
            due = time.monotonic() - self._written >= PROGRESS_INTERVAL_S
        if due:
            self._write()

    def _due(self, total: int | None) -> bool:
        self._total = self._total if total is None else total
        return self._done >= self._total or time.monotonic() - self._written >= PROGRESS_INTERVAL_S

    def _write(self) -> None:
        with self._lock:
            elapsed = time.monotonic() - self._started
            rate = (self._done - self._resumed) / elapsed if elapsed > 0 else 0.0
            left = max(self._total - self._done, 0)
            snapshot = Progress(
                attempt=self._launch.attempt,
                done=self._done,
                total=self._total,
                unit=self._unit,
                rate=round(rate, 4),
                eta_seconds=round(left / rate, 1) if rate > 0 else None,
                live=self._live,
                updated_at=datetime.now(UTC),
            )
            self._written = time.monotonic()
        stage = str(self._launch.stage)
        DONE.labels(stage).set(snapshot.done)
        TOTAL.labels(stage).set(snapshot.total)
        RATIO.labels(stage).set(snapshot.done / snapshot.total if snapshot.total else 0.0)
        self._store.put(join(self._folder, PROGRESS), snapshot.model_dump_json(by_alias=True).encode())


def package_versions(*names: str) -> dict[str, str]:
    """Versions for a manifest; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def classify(error: BaseException) -> tuple[Exit, str, str]:
    """Exit code, reason and message of whatever ended a stage."""
    if isinstance(error, StageError):
        return error.exit_code, error.reason, str(error)
    if isinstance(error, NotFound):
        return Exit.BAD_DATA, "NotFound", str(error)
    if isinstance(error, ChecksumMismatch):
        return Exit.BAD_DATA, "ChecksumMismatch", str(error)
    if isinstance(error, StoreError):
        return Exit.BAD_CONFIG, "StoreRefused", str(error)
    if isinstance(error, StoreUnreachable):
        return Exit.TRANSIENT, "StoreUnreachable", f"object store: {error}"
    if isinstance(error, ValidationError):
        return Exit.BAD_DATA, "InvalidDocument", str(error)
    if isinstance(error, Stopped):
        return Exit.STOPPED, "Stopped", "stopped by SIGTERM; what was finished is kept"
    return Exit.TRANSIENT, type(error).__name__, str(error) or repr(error)


def termination_message(reason: str, message: str) -> str:
    """The JSON of a termination message, cut so that what the kubelet keeps of it is still JSON."""
    message = message.encode(errors="replace").decode()  # another program's output may hold lone surrogates
    while True:
        text = json.dumps({"reason": reason, "message": message}, ensure_ascii=False)
        if len(text.encode()) <= _TERMINATION_LIMIT:
            return text
        message = message[: len(message) * 9 // 10]


def _report_end(launch: Launch, store: Store | None, code: Exit, reason: str, message: str) -> None:
    """Termination message for the kubelet, exit report for when the pod is gone."""
    said = termination_message(reason, message)
    try:
        Path(TERMINATION_PATH).write_text(said, encoding="utf-8")
    except OSError as error:  # on a terminal there is no such file
        log.debug("no termination message: %s", error)
    if store is None:
        return
    report = ExitReport(
        attempt=launch.attempt,
        pod=socket.gethostname(),
        exit_code=code,
        reason=reason,
        message=json.loads(said)["message"],
        at=datetime.now(UTC),
    )
    try:
        store.put(
            join(launch.output, "attempts", str(launch.attempt), f"exit-{report.pod}.json"),
            report.model_dump_json(by_alias=True).encode(),
        )
    except Exception as error:  # noqa: BLE001 - the end itself must not fail: the termination message is written already
        log.error("exit report was not stored: %s", error)


def _raise_stopped(_signum: int, _frame: FrameType | None) -> None:
    raise Stopped


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in which SIGTERM cancels `main` and then raises Stopped, once its `finally` blocks have run.

    An exception raised by a signal handler could land in any task or callback and be swallowed there; a cancellation
    always reaches `main`.
    """
    asked = False

    async def under_signal() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            nonlocal asked
            asked = True
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, stop)
        return await main

    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(under_signal())
    except asyncio.CancelledError:
        if asked:
            raise Stopped from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def run_stage(launch: Launch, body: Callable[[Launch, Store], None], *, metrics: bool = True) -> Exit:
    """Run one stage to its end and say how it ended; never raises.

    SIGTERM raises Stopped in the main thread: a stage flushes in its `finally` blocks, within 20 s.
    """
    with tracing.process(launch, str(launch.stage)) as ended:
        code = _run(launch, body, metrics=metrics)
        ended(code)
    return code


def _run(launch: Launch, body: Callable[[Launch, Store], None], *, metrics: bool) -> Exit:
    store: Store | None = None
    try:
        signal.signal(signal.SIGTERM, _raise_stopped)
        if metrics:
            start_http_server(METRICS_PORT)
        try:
            store = Store.from_env(launch.store)
        except (KeyError, ValueError) as error:
            raise BadConfig("StoreConfiguration", f"object store: {error}") from error
        log.info("attempt %d of %s starts on %s", launch.attempt, launch.stage, os.uname().nodename)
        body(launch, store)
    except AlreadyPublished as error:
        log.warning("%s", error)
        return Exit.DONE
    except BaseException as error:
        code, reason, message = classify(error)
        if isinstance(error, Stopped | StageError | StoreError | StoreUnreachable):
            log.error("%s: %s", reason, message)
        else:
            log.exception("%s: %s", reason, message)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # a short outage must not hide the reason, a long one must not hold up the end: the kubelet kills after 30 s
        if store is not None:
            store.limit_outage(10)
        _report_end(launch, store, code, reason, message)
        return code
    log.info("%s is done", launch.stage)
    return Exit.DONE
