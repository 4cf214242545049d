"""Long steps that say what they are doing, how long they took the last time, and where their output is."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev import paths

_SAY_EVERY_S = 15.0
_lock = threading.Lock()


class SetupError(Exception):
    """Setup cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    """One line for the person who waits."""
    with _lock:
        print(f"setup: {text}", file=sys.stderr, flush=True)


def _times() -> Path:
    return paths.cache() / "times.json"


def last_time(step: str) -> float | None:
    """Seconds that the step took when it was last done on this machine, or None."""
    try:
        found = json.loads(_times().read_text()).get(step)
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return float(found) if found is not None else None


def _remember(step: str, seconds: float) -> None:
    with _lock:
        try:
            times = json.loads(_times().read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            times = {}
        times[step] = round(seconds, 1)
        part = _times().with_name(f"times.json.{os.getpid()}")
        part.write_text(json.dumps(times, indent=1))
        part.replace(_times())


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Announce a step, report every quarter of a minute that it still runs, and remember how long it took."""
    before = last_time(step)
    took = f", {before:.0f} s the last time" if before else ""
    say(f"{step}{took}")
    began, done = time.monotonic(), threading.Event()

    def report() -> None:
        while not done.wait(_SAY_EVERY_S):
            of = f" of about {before:.0f} s" if before else ""
            say(f"{step}: {time.monotonic() - began:.0f} s{of}")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()
    seconds = time.monotonic() - began
    _remember(step, seconds)
    say(f"{step}: done in {seconds:.0f} s")


def call(
    command: Sequence[str | Path], log: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a command with its output in CACHE/log/LOG.log; SetupError with the end of it when it fails."""
    path = paths.cache() / "log" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        handle.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        handle.flush()
        done = subprocess.run(
            [str(c) for c in command],
            stdout=handle,
            stderr=handle,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    if done.returncode:
        end = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        raise SetupError(f"`{' '.join(map(str, command))}` ended with {done.returncode}; the end of {path}:\n{end}")
