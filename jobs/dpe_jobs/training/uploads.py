"""The parent sends checkpoints to the store while its ranks go on training. No torch in here.

It outlives its ranks: a rank that dies loses nothing that was on disk.
"""

import logging
import shutil
import threading
import time

from dpe_api.launch import TrainingLaunch
from dpe_jobs.store import Store
from dpe_jobs.training import checkpoints
from dpe_jobs.training.pod import Pod

log = logging.getLogger(__name__)

PARTS_WITHIN_S = 1800.0  # for the other pods' parts: as long as a collective may take


class Uploader:
    """At most one upload at a time; the ranks wait before they write the next checkpoint."""

    def __init__(self, launch: TrainingLaunch, pod: Pod, store: Store) -> None:
        self._launch, self._pod, self._store = launch, pod, store
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether an upload is under way."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """Start the upload of what has been saved. Raises what ended the one before."""
        if self.busy:
            return
        if self._error is not None:
            raise self._error
        step = self._pod.saved()
        if step is not None:
            # a daemon: whoever ends the pod does not wait for a store that is away
            self._thread = threading.Thread(target=self._run, args=(step,), name=f"upload-{step}", daemon=True)
            self._thread.start()

    def finish(self, within_s: float) -> bool:
        """Upload all that has been saved; False when that took too long. Raises what ended an upload."""
        deadline = time.monotonic() + within_s
        while True:
            self.look()
            if self._thread is not None:
                self._thread.join(timeout=max(0.0, deadline - time.monotonic()))
            if not self.busy and self._error is None and self._pod.saved() is None:
                return True
            if time.monotonic() >= deadline:
                return False

    def _run(self, step: int) -> None:
        try:
            self._upload(step)
        except Exception as error:  # noqa: BLE001 - raised by the next look, in the thread that can end the pod
            self._error = error

    def _upload(self, step: int) -> None:
        began, launch = time.monotonic(), self._launch
        local = checkpoints.local_folder(self._pod.output, step)
        place = checkpoints.Place(step, launch.attempt)
        reward = checkpoints.recent_reward(local, launch.training.checkpoint_every_steps)
        checkpoints.upload(self._store, launch, place, local, self._pod.index, self._pod.beat)
        shutil.rmtree(local)
        if self._pod.index == 0:
            outputs = checkpoints.parts(self._store, launch, place, PARTS_WITHIN_S)
            checkpoints.commit(self._store, launch, place, outputs, reward)
            size, seconds = sum(o.size for o in outputs), time.monotonic() - began
            log.info("checkpoint of step %d: %.1f MB in %.1f s", step, size / 1e6, seconds)
        self._pod.uploaded(step)
