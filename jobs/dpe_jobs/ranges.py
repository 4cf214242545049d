"""Objects of the store as files that can be read anywhere."""

import io
from typing import Any

from dpe_jobs.store import Store


class RangeFile(io.RawIOBase):
    """An object as a file: each read is one range request."""

    def __init__(self, store: Store, uri: str, size: int) -> None:
        super().__init__()
        self._store, self._uri, self._size, self._at = store, uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = self._store.get_range(self._uri, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
