"""What a transfer remembers over its tries."""

import hashlib
import time
from typing import BinaryIO


class Progress:
    """How far a call has come, over all its tries: a transfer that gets on is no outage, however long it takes."""

    def __init__(self) -> None:
        self._furthest, self._at = 0, time.monotonic()

    def reached(self, done: int) -> None:
        """So many bytes in this try; only what no try before has reached counts."""
        if done > self._furthest:
            self._furthest, self._at = done, time.monotonic()

    def stood_still_s(self) -> float:
        """Seconds since then, or since the first try began."""
        return time.monotonic() - self._at


class Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file, self._progress, self._read = file, progress, 0
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self.digest.update(data)
        self._progress.reached(self._read)  # what was asked for before has been taken
        self._read += len(data)
        return data
