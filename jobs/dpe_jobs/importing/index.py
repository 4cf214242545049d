"""Text -> number on disk: which ids there were, and where; memory does not grow with the number of rows."""

from pathlib import Path

from dpe_jobs.scratch import Tables


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")  # a broken file's text must not break the index


class Index:
    """A table in a scratch file. Nothing of it outlives the import, so nothing is synced. One thread at a time."""

    def __init__(self, path: Path) -> None:
        table = "CREATE TABLE entries (key BLOB PRIMARY KEY, value INTEGER) WITHOUT ROWID"
        self._db = Tables(table, "BEGIN", path=path)

    def add(self, key: str, value: int) -> int | None:
        """The value that the key has already, which it keeps; None when it is new."""
        before = self.find(key)
        if before is None:
            self._db.change("INSERT INTO entries VALUES (?, ?)", (_bytes(key), value))
        return before

    def find(self, key: str) -> int | None:
        """The value of a key, or None."""
        found = self._db.rows("SELECT value FROM entries WHERE key = ?", (_bytes(key),))
        return int(found[0][0]) if found else None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
