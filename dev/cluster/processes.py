"""Long-lived processes: each gets a session of its own and writes down who it is; only it is ever signalled."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dev.cluster.config import Cluster, ClusterError

_MARK = "DPE_CLUSTER_STATE"
"""In the environment of every process that is started here: finds those whose record was deleted."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""Environment variables that name one, in small or capital letters."""

# The process records itself before it becomes the program: nobody can be interrupted between a start and its record.
_RECORD_AND_EXEC = 'read -r stat < /proc/$$/stat && echo "$stat" > "$0.new" && mv "$0.new" "$0" && exec "$@"'


@contextmanager
def locked(cluster: Cluster, wait_s: float = 300) -> Iterator[None]:
    """Hold the instance's lock: one command at a time changes it. ClusterError when another one never ends."""
    cluster.lock_file.parent.mkdir(parents=True, exist_ok=True)
    with cluster.lock_file.open("a+") as handle:
        told = False
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not told:
                    # not on standard output, which has what the command was asked for
                    print("waiting for another command on this cluster to finish", file=sys.stderr, flush=True)
                    told = True
                if time.monotonic() > end:
                    raise ClusterError(
                        f"another command has held {cluster.lock_file} for {wait_s:.0f} s: "
                        f"`lslocks` shows which one; end it and try again"
                    ) from error
                time.sleep(0.2)
        yield


def without_proxy() -> dict[str, str]:
    """This process's environment for what talks to the cluster: a proxy does not know the way to its networks."""
    return {name: value for name, value in os.environ.items() if name.lower() not in PROXIES}


def wait_until(condition: Callable[[], bool], limit_s: float, interval_s: float = 0.05) -> bool:
    """Whether the condition became true within the limit."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval_s)
    return True


def _fields(stat: str) -> tuple[int, str, str]:
    """Process id, state and start time (clock ticks since boot) of one line of /proc/PID/stat."""
    rest = stat.rsplit(")", 1)[1].split()
    return int(stat.split(" ", 1)[0]), rest[0], rest[19]


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Processes:
    """The processes of one instance, by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def _record(self, name: str) -> Path:
        return self._cluster.run / name

    def prepare(self) -> None:
        """Make the folders; forget records that were written before the machine's last start."""
        self._cluster.run.mkdir(parents=True, exist_ok=True)
        self._cluster.log.mkdir(parents=True, exist_ok=True)
        boot = self._cluster.state / "boot_id"
        if not boot.exists() or boot.read_text() != _boot_id():
            for record in self._cluster.run.iterdir():
                record.unlink()
            boot.write_text(_boot_id())

    def alive(self, name: str) -> int | None:
        """Process id, or None when it does not run (any more)."""
        try:
            pid, _, start = _fields(self._record(name).read_text())
            _, state, now = _fields(Path(f"/proc/{pid}/stat").read_text())
            # while other threads end, the first one is a zombie already, and ports are still taken
            ended = state in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid if now == start and not ended else None

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> bool:
        """Start a process unless it runs already; whether it was started. Output goes to log/NAME.log."""
        if self.alive(name):
            return False
        record = self._record(name)
        record.unlink(missing_ok=True)
        with (self._cluster.log / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _RECORD_AND_EXEC, str(record), *map(str, command)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**without_proxy(), **(env or {}), _MARK: str(self._cluster.state)},
                cwd=self._cluster.state,
            )
        if not wait_until(lambda: record.exists() or child.poll() is not None, 10, 0.005) or not record.exists():
            raise ClusterError(f"{name} could not be started: see {self.log(name)}")
        return True

    def stop(self, name: str, sig: signal.Signals = signal.SIGTERM, wait_s: float = 4) -> None:
        """Signal the process, then kill it when it is still there; no error when it does not run."""
        pid = self.alive(name)
        if pid:
            os.kill(pid, sig)
            if not wait_until(lambda: self.alive(name) is None, wait_s):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: self.alive(name) is None, 10)
        self._record(name).unlink(missing_ok=True)

    def _strays(self) -> list[int]:
        """Leaders of sessions that were started for this instance, whether they have a record or not."""
        mark = f"{_MARK}={self._cluster.state}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                pid = int(folder.name)
                if mark in (folder / "environ").read_bytes().split(b"\0") and os.getsid(pid) == pid:
                    found.append(pid)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or somebody else's
        return found

    def kill_strays(self) -> int:
        """Kill what is left of this instance without a record (its folder was deleted by hand); how many there were."""
        strays = self._strays()
        for pid in strays:
            with suppress(ProcessLookupError):  # the end of a node takes its processes with it
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._strays(), 10)
        return len(strays)

    def log(self, name: str) -> Path:
        """Where the process's output goes."""
        return self._cluster.log / f"{name}.log"

    def require(self, name: str) -> None:
        """ClusterError with the end of its log when the process is not running."""
        if not self.alive(name):
            raise ClusterError(f"{name} ended; the end of {self.log(name)}:\n{tail(self.log(name))}")


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a text file, or nothing when there is no file."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
