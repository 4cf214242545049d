"""A ledger of finished items in the object store: a restart pays for no item twice.

Part files are JSON lines, named so that attempts never overwrite each other. A pod that is lost loses at most what came
since the last flush (30 s or 50 items), and the part that was just being put.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from dpe_jobs.store import Store, StoreError, StoreUnreachable, join

log = logging.getLogger(__name__)

FLUSH_ITEMS = 50
FLUSH_S = 30.0
ENDING_OUTAGE_S = 10.0  # the kubelet kills 30 s after SIGTERM


class Ledger:
    """Rows by item id. Use as a context manager: leaving it flushes, also when stopped or failing."""

    def __init__(self, store: Store, folder: str, *, key: str = "id") -> None:
        """Load what earlier attempts finished. A torn last line cannot occur: parts are put whole."""
        self._store, self._folder, self._key = store, folder, key
        self._rows: dict[str, dict[str, Any]] = {}
        self._pending: list[dict[str, Any]] = []
        self._lock = threading.Lock()  # of the rows, held for moments
        self._putting = threading.Lock()  # one part at a time: while it is put, rows are still taken in
        self._flushed = time.monotonic()
        self._writer, self._sequence = uuid.uuid4().hex[:12], 0
        for info in store.list(folder):
            for line in store.get(info.uri).splitlines():
                row = json.loads(line)
                self._rows.setdefault(row[key], row)
        self.resumed = len(self._rows)
        """Items that earlier attempts had finished."""
        self.on_append: Callable[[], object] = lambda: None
        """Called after each new row: who waits for them may tell that they come."""
        if self.resumed:
            log.info("ledger %s: %d items are finished already", folder, self.resumed)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def __getitem__(self, item_id: str) -> dict[str, Any]:
        return self._rows[item_id]

    def get(self, item_id: str) -> dict[str, Any] | None:
        """The row of a finished item, or None."""
        return self._rows.get(item_id)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(list(self._rows.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Record one finished item; the first row of an id wins. Flushes every 50 items or 30 s."""
        with self._lock:
            item_id = row[self._key]
            if item_id in self._rows:
                return
            self._rows[item_id] = dict(row)
            self._pending.append(dict(row))
            due = len(self._pending) >= FLUSH_ITEMS or time.monotonic() - self._flushed >= FLUSH_S
        if due:
            self.flush()
        self.on_append()

    def flush(self) -> None:
        """Put what is pending into the store, as one part file."""
        with self._putting:
            with self._lock:
                rows, self._pending = self._pending, []
                self._flushed = time.monotonic()
            if not rows:
                return
            name = f"{self._writer}-{self._sequence:06d}.jsonl"
            self._sequence += 1
            data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            try:
                self._store.put(join(self._folder, name), data)
            except BaseException:
                with self._lock:
                    self._pending = rows + self._pending
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.flush()
            return
        # on the way out: the store must not hold up the end, nor its own trouble hide why the stage ends
        self._store.limit_outage(ENDING_OUTAGE_S)
        try:
            self.flush()
        except (StoreError, StoreUnreachable) as trouble:
            log.error("ledger %s: %d finished items are lost: %s", self._folder, len(self._pending), trouble)
