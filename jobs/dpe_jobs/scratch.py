"""Tables on disk for what a stage must look up and must not hold in memory. They are gone when the process is.

SQLite, because it comes with Python, and because it keeps 2 MB of a table in memory however long it gets.
"""

import sqlite3
from pathlib import Path


def open_tables(*statements: str, path: Path | None = None) -> sqlite3.Connection:
    """A database of this process; without a `path` its file has no name, lies in TMPDIR and vanishes when it is closed.

    `statements` create its tables. Nothing is synced: nobody reads it after a crash. Threads must take turns.
    """
    db = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *statements):
        db.execute(statement)
    return db
