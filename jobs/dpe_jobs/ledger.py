"""A ledger of finished items in the object store: a restart pays for no item twice.

Part files are JSON lines, named so that attempts never overwrite each other. A pod that is lost loses at most what came
since the last flush (30 s or 50 items), and the part that was just being put. To be looked up, rows are in a table on
disk: memory does not grow with a run.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from dpe_jobs.scratch import Tables
from dpe_jobs.store import Store, StoreError, StoreUnreachable, join

log = logging.getLogger(__name__)

FLUSH_ITEMS = 50
FLUSH_S = 30.0
ENDING_OUTAGE_S = 10.0  # the kubelet kills 30 s after SIGTERM
_PAGE = 256  # rows that are in memory at a time while all are read


class Ledger:
    """Rows by item id. Use as a context manager: leaving it flushes, also when stopped or failing."""

    def __init__(self, store: Store, folder: str, *, key: str = "id") -> None:
        """Load what earlier attempts finished. A torn last line cannot occur: parts are put whole."""
        self._store, self._folder, self._key = store, folder, key
        self._rows = Tables("CREATE TABLE rows (id TEXT PRIMARY KEY, line BLOB)")  # in the order of their coming
        self._count = 0
        self._pending: list[bytes] = []
        self._lock = threading.Lock()  # of what is pending, held for moments
        self._putting = threading.Lock()  # one part at a time: while it is put, rows are still taken in
        self._flushed = time.monotonic()
        self._writer, self._sequence = uuid.uuid4().hex[:12], 0
        for info in store.list(folder):
            for line in store.get(info.uri).splitlines():
                self._add(json.loads(line)[key], line)
        self.resumed = self._count
        """Items that earlier attempts had finished."""
        self.on_append: Callable[[], object] = lambda: None
        """Called after each new row: who waits for them may tell that they come."""
        if self.resumed:
            log.info("ledger %s: %d items are finished already", folder, self.resumed)

    def _add(self, item_id: str, line: bytes) -> bool:
        """Take in a row; False when its id has one."""
        new = self._rows.change("INSERT OR IGNORE INTO rows VALUES (?, ?)", (item_id, line)) == 1
        self._count += new
        return new

    def __contains__(self, item_id: str) -> bool:
        return self.get(item_id) is not None

    def __getitem__(self, item_id: str) -> dict[str, Any]:
        row = self.get(item_id)
        if row is None:
            raise KeyError(item_id)
        return row

    def get(self, item_id: str) -> dict[str, Any] | None:
        """The row of a finished item, or None."""
        found = self._rows.rows("SELECT line FROM rows WHERE id = ?", (item_id,))
        return json.loads(found[0][0]) if found else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows there are now, in the order of their coming."""
        query = "SELECT line FROM rows WHERE rowid <= ? ORDER BY rowid"  # numbered from 1, and none is ever removed
        for page in self._rows.pages(query, (self._count,), _PAGE):
            for (line,) in page:
                yield json.loads(line)

    def __len__(self) -> int:
        return self._count

    def append(self, row: Mapping[str, Any]) -> bool:
        """Record one finished item; the first row of an id wins, False: it has one. Flushes every 50 items or 30 s."""
        line = json.dumps(row, ensure_ascii=False).encode()
        with self._lock:
            if not self._add(row[self._key], line):
                return False
            self._pending.append(line)
            due = len(self._pending) >= FLUSH_ITEMS or time.monotonic() - self._flushed >= FLUSH_S
        if due:
            self.flush()
        self.on_append()
        return True

    def flush(self) -> None:
        """Put what is pending into the store, as one part file."""
        with self._putting:
            with self._lock:
                lines, self._pending = self._pending, []
                self._flushed = time.monotonic()
            if not lines:
                return
            name = f"{self._writer}-{self._sequence:06d}.jsonl"
            self._sequence += 1
            try:
                self._store.put(join(self._folder, name), b"".join(line + b"\n" for line in lines))
            except BaseException:
                with self._lock:
                    self._pending = lines + self._pending
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            self._rows.close()

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.flush()
            return
        # on the way out: the store must not hold up the end, nor its own trouble hide why the stage ends
        self._store.limit_outage(ENDING_OUTAGE_S)
        try:
            self.flush()
        except (StoreError, StoreUnreachable) as trouble:
            log.error("ledger %s: %d finished items are lost: %s", self._folder, len(self._pending), trouble)
