"""What a transfer remembers over its tries."""

import hashlib
import time
from threading import Event
from typing import BinaryIO


class Moved:
    """When a store has moved bytes of a file last."""

    at = float("-inf")
    """time.monotonic()."""


class Progress:
    """How far a call has come, over all its tries: a transfer that gets on is no outage, however long it takes."""

    def __init__(self, moved: Moved) -> None:
        self._furthest, self._at, self._moved = 0, time.monotonic(), moved

    def reached(self, done: int) -> None:
        """So many bytes in this try; only what no try before has reached counts."""
        if done > self._furthest:
            self._furthest = done
            self._at = self._moved.at = time.monotonic()

    def stood_still_s(self) -> float:
        """Seconds since then, or since the first try began."""
        return time.monotonic() - self._at


class WriteFailedError(Exception):
    """The disk did not take what came. No trouble of the store: trying again would only take longer."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class NotWantedError(Exception):
    """Whoever asked for it is gone."""


class Receiving:
    """A file that is hashed as it is written, over several tries."""

    def __init__(self, file: BinaryIO, progress: Progress, unwanted: Event) -> None:
        """`unwanted` may be set by another thread: the next write then ends the transfer."""
        self._file, self._progress, self._unwanted = file, progress, unwanted
        self._digest, self.taken = hashlib.sha256(), 0
        self.version = ""
        """The ETag of the object that it is about."""

    def write(self, chunk: bytes) -> None:
        """The next bytes. WriteFailedError when they are not in the file, NotWantedError."""
        self.check_wanted()
        try:
            self._file.write(chunk)
        except OSError as error:
            raise WriteFailedError(error) from error
        self._digest.update(chunk)
        self.taken += len(chunk)
        self._progress.reached(self.taken)

    def check_wanted(self) -> None:
        """NotWantedError when nobody waits for it any more."""
        if self._unwanted.is_set():
            raise NotWantedError

    def restart(self) -> None:
        """From its first byte."""
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.taken = hashlib.sha256(), 0

    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()


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
