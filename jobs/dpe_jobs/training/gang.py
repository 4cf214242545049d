"""The parent of one pod's ranks: starts torchrun, watches it, and finds out why it ended."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from dpe_api.launch import TrainingLaunch
from dpe_api.names import Exit
from dpe_jobs.runtime import PeerGone, Stopped, Transient
from dpe_jobs.training.metrics import last_row
from dpe_jobs.training.peers import says_peer_is_gone, says_rank_was_killed
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.uploads import PARTS_WITHIN_S, Uploader

log = logging.getLogger(__name__)

POLL_S = 0.5
START_WITHIN_S = 1800.0  # model loading, checkpoint loading and the first step
SAVE_WITHIN_S = 1800.0  # a checkpoint, or the model in the end; as long as ranks wait for each other (settings)
STEP_WITHIN_S = 300.0  # a step may take this long, or ten times the slowest so far
STOP_WITHIN_S = 24.0  # from SIGTERM; the ranks take 20
LEAVE_WITHIN_S = 27.0  # from SIGTERM, uploads included; the kubelet kills after 30
RESCUE_WITHIN_S = 25.0  # for the upload of what ranks had saved before they failed
_TAIL_LINES = 40
_SHOWN_LINES = 12
_TELLING_LINES = 8


class Tail(threading.Thread):
    """Passes a program's output through and remembers its end, and what in it told of lost peers.

    torchrun says ten lines of each rank when one has failed: of eight, what NCCL said before is no longer at the end.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._telling: deque[str] = deque(maxlen=_TELLING_LINES)
        self.start()

    def run(self) -> None:
        """Until the program closes its output."""
        for line in self._stream:
            sys.stderr.write(line)
            self._lines.append(line.rstrip())
            # not our own log, whose lines are JSON: there a refused connection is the store's
            if not line.startswith("{") and says_peer_is_gone(line):
                self._telling.append(line.rstrip())
        sys.stderr.flush()

    def text(self, lines: int = _TAIL_LINES) -> str:
        """The last lines."""
        return "\n".join(list(self._lines)[-lines:])

    def telling(self) -> str:
        """Lines that told of lost peers, then the last ones."""
        return "\n".join([*self._telling, *self._lines])


class StepDeadline:
    """How long the ranks may be silent."""

    def __init__(self, pod: Pod) -> None:
        self._pod, self._slowest_s = pod, 0.0
        restored = last_row(pod.metrics_file)
        self._before = 0 if restored is None else restored.step

    def allowed_s(self) -> float:
        """The present limit."""
        row = last_row(self._pod.metrics_file)
        if row is None or row.step <= self._before:
            return START_WITHIN_S
        self._slowest_s = max(self._slowest_s, row.seconds)
        # 100 GB take a disk longer than a step may, and ranks of a pod that is done wait for those that are not
        least = SAVE_WITHIN_S if self._pod.saves else STEP_WITHIN_S
        return max(least, 10 * self._slowest_s)

    def passed(self) -> bool:
        """Whether the ranks have been silent for too long."""
        return self._pod.quiet_s() > self.allowed_s()


def _dump_stacks(pod: Pod) -> None:
    """Ask every rank to print the stacks of all its threads."""
    for rank, pid in pod.pids().items():
        try:
            os.kill(pid, signal.SIGUSR1)
        except ProcessLookupError:
            log.warning("rank %s is gone", rank)


def why(launch: TrainingLaunch, pod: Pod, output: str, shown: str) -> Exception:
    """The error that ended a pod whose torchrun failed: its ranks' own words, or what shows from outside."""
    ends = pod.ends()
    for rank, end in ends.items():
        if end.code not in (Exit.PEER_GONE, Exit.STOPPED):
            log.error("%s ended first: %s", rank, end.reason)
            return end.error()
    silent = sorted(set(pod.pids()) - set(ends))
    lost = [end for end in ends.values() if end.code == Exit.PEER_GONE]
    if silent and (says_rank_was_killed(output) or not says_peer_is_gone(output)):
        return Transient(
            "RankDied", f"rank {', '.join(silent)} ended without a word, killed or out of memory:\n{shown}"
        )
    if lost:
        return lost[0].error()
    if launch.training.nodes > 1 and (silent or not pod.pids()):
        return PeerGone("PeerGone", f"the gang did not come or hold together:\n{shown}")
    return Transient("LaunchFailed", f"torchrun failed:\n{shown}")


def run_gang(
    launch: TrainingLaunch, pod: Pod, uploader: Uploader, look: Callable[[], None], *, warmup: bool = False
) -> None:
    """Run this pod's ranks to their end, and upload what they save; `look` is called about twice a second.

    Raises what ended them. SIGTERM is passed on: the ranks finish the step, save and leave within 20 s.
    """
    command = [sys.executable, "-m", "dpe_jobs.training.launcher", f"--work={pod.work}", f"--model={pod.model}"]
    process = subprocess.Popen(
        [*command, f"--index={pod.index}", f"--port={pod.port}", *(["--warmup"] if warmup else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    tail = Tail(process.stdout)
    try:
        _watch(process, pod, uploader, tail, look, StepDeadline(pod))
        tail.join(timeout=5)
    except Stopped:
        _stop(process, uploader)
        raise
    finally:
        if process.poll() is None:
            process.kill()  # takes the ranks with it: they die with their parent
            process.wait()
    if process.returncode != 0:
        ended = why(launch, pod, tail.telling(), tail.text(_SHOWN_LINES))
        _rescue(uploader, RESCUE_WITHIN_S)
        raise ended
    if not uploader.finish(PARTS_WITHIN_S):
        raise Transient("CheckpointLate", f"the last checkpoint was not uploaded in {PARTS_WITHIN_S:.0f} s")
    look()


def _watch(
    process: "subprocess.Popen[str]",
    pod: Pod,
    uploader: Uploader,
    tail: Tail,
    look: Callable[[], None],
    deadline: StepDeadline,
) -> None:
    """Until torchrun ends. Raises Transient when no step comes, and what ended an upload."""
    while True:
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            look()
            uploader.look()
        else:
            return
        # ranks may stand still for an upload, which has limits of its own
        if not uploader.busy and deadline.passed():
            _dump_stacks(pod)
            tail.join(timeout=2)  # the stacks come through it
            raise Transient("NoStep", f"no step for {pod.quiet_s():.0f} s; stacks:\n{tail.text()}")


def _stop(process: "subprocess.Popen[str]", uploader: Uploader) -> None:
    """Pass SIGTERM on, and upload what the ranks save before they leave."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    while time.monotonic() - began < STOP_WITHIN_S:
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            _rescue(uploader, 0)
        else:
            break
    else:
        log.warning("the ranks did not leave in time")
    _rescue(uploader, LEAVE_WITHIN_S - (time.monotonic() - began))


def _rescue(uploader: Uploader, within_s: float) -> None:
    """Upload what is on disk, if that works; the pod ends for another reason."""
    try:
        if not uploader.finish(within_s) and within_s > 0:
            log.warning("a checkpoint on disk was not uploaded in %.0f s", within_s)
    except Exception as error:  # noqa: BLE001 - whatever it is must not hide why the pod ends
        log.warning("a checkpoint on disk was not uploaded: %s", error)
