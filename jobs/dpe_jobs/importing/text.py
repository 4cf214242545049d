"""Lines of a text file, one at a time, each of bounded length."""

from typing import BinaryIO

MAX_LINE = 64 * 1024 * 1024  # bytes: an image of 48 MiB in base64


class LineTooLong(ValueError):
    """A line that is longer than any image."""


class Lines:
    """An iterator that goes on after an error; what is not UTF-8 becomes lone surrogates, for the cells to complain."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.line = 0
        """Number of the line read last, from 1."""
        self.starts: list[int] = []
        """Offsets of the lines read since `mark`."""
        self._offset = 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        data = self._handle.readline(MAX_LINE + 1)
        if not data:
            raise StopIteration
        self.starts.append(self._offset)
        self._offset += len(data)
        self.line += 1
        if len(data) > MAX_LINE and not data.endswith(b"\n"):
            while data and not data.endswith(b"\n"):
                data = self._handle.readline(MAX_LINE)
                self._offset += len(data)
            raise LineTooLong(f"the line is longer than {MAX_LINE >> 20} MiB")
        if self.line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        return data.decode("utf-8", "surrogateescape")

    def mark(self) -> None:
        """From here on a record begins."""
        self.starts.clear()

    def back_to_second(self) -> None:
        """Read again from the second line since `mark`."""
        self._offset = self.starts[1]
        self.line -= len(self.starts) - 1
        self._handle.seek(self._offset)
        self.starts = self.starts[:1]

    def seek(self, offset: int) -> None:
        """Go on at an offset, which is the start of a line."""
        self._offset = offset
        self._handle.seek(offset)
