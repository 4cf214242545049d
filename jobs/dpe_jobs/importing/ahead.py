"""Rows are converted a few at a time, in order: most of the work is decoding images, which runs beside Python."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from dpe_jobs.importing.convert import BadRow
from dpe_jobs.importing.rows import Row, SourceBreaksOff

T = TypeVar("T")

THREADS = min(8, os.cpu_count() or 1)
AHEAD_BYTES = 64 * 1024 * 1024  # of cells; one row may be larger


def size_of(value: Any) -> int:
    """About how much memory a cell's texts and bytes take."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(size_of(v) for v in value.values())
    return sum(size_of(v) for v in value) if isinstance(value, list) else 0


def convert(rows: Iterable[Row], work: Callable[[Row], T]) -> Iterator[tuple[Row, T | BadRow]]:
    """Each row with what `work` makes of it, in order; an error of `work` other than BadRow is raised.

    Where the source breaks off, what came before is given first.
    """
    waiting: deque[tuple[Row, int, Future[T]]] = deque()
    held = 0

    def first() -> tuple[Row, T | BadRow]:
        nonlocal held
        row, size, future = waiting.popleft()
        held -= size
        try:
            return row, future.result()
        except BadRow as error:
            return row, error

    with ThreadPoolExecutor(THREADS) as pool:
        broken: SourceBreaksOff | None = None
        try:
            for row in rows:
                size = size_of(row.cells)
                held += size
                waiting.append((row, size, pool.submit(work, row)))
                while len(waiting) > 2 * THREADS or (held > AHEAD_BYTES and waiting):
                    yield first()
        except SourceBreaksOff as error:
            broken = error
        while waiting:
            yield first()
        if broken is not None:
            raise broken
