"""Tables on disk for what a stage must look up and must not hold in memory. They are gone when the process is.

SQLite, because it comes with Python, and because it keeps 2 MB of a table in memory however long it gets.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


class Tables:
    """A database of this process, for any of its threads; without a `path` its file has no name and lies in TMPDIR.

    Nothing is synced: nobody reads it after a crash. A stage that fails closes it while a thread may still look
    something up; whoever asks afterwards gets a sqlite3.ProgrammingError. SQLite alone would not do that: a connection
    that is closed under a running statement takes the process with it.
    """

    def __init__(self, *statements: str, path: Path | None = None) -> None:
        """`statements` create the tables."""
        self._db = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
        self._turn = threading.Lock()
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *statements):
            self._db.execute(statement)

    def close(self) -> None:
        """Remove what has no name."""
        with self._turn:
            self._db.close()

    def change(self, statement: str, values: Sequence[object] = ()) -> int:
        """Number of rows that the statement wrote."""
        with self._turn:
            return self._db.execute(statement, values).rowcount

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All that are found."""
        with self._turn:
            return self._db.execute(query, values).fetchall()

    def pages(self, query: str, values: Sequence[object], size: int) -> Iterator[list[Row]]:
        """What is found, `size` rows in memory at a time; others get their turn between two pages."""
        with self._turn:
            found = self._db.execute(query, values)
        while True:
            with self._turn:
                page = found.fetchmany(size)
            if not page:
                return
            yield page
