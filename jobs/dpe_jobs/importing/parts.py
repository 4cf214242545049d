"""Questions as Parquet files of bounded size, each handed on when it is full."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dpe_jobs.questions import BATCH_BYTES, Question, schema

GROUP_ROWS = 1024
_GROUP_BYTES = BATCH_BYTES // 2  # of images, in memory twice while a row group is made


class Parts:
    """Writes `part-00000.parquet`, `part-00001.parquet` ... A part ends with the row group that fills it."""

    def __init__(self, folder: Path, part_bytes: int, done: Callable[[Path], object], *, categories: bool) -> None:
        """`done` takes each finished file."""
        self._folder, self._part_bytes, self._done = folder, part_bytes, done
        self._schema = schema(categories=categories)
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes, self._number = 0, 0
        self._writer: pq.ParquetWriter | None = None
        self._path = folder / "none"

    def add(self, question: Question) -> None:
        """Write one question."""
        row = question.row()
        if "category" not in self._schema.names:
            del row["category"]
        self._pending.append(row)
        self._pending_bytes += len(question.image)
        if self._pending_bytes >= _GROUP_BYTES or len(self._pending) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._path = self._folder / f"part-{self._number:05d}.parquet"
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
            self._number += 1
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending, self._pending_bytes = [], 0
        if self._path.stat().st_size >= self._part_bytes:
            self._end_part()

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._done(self._path)

    def close(self) -> None:
        """Hand on what is there."""
        if self._pending:
            self._flush()
        self._end_part()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:  # not closed: the import failed
            self._writer.close()
            self._path.unlink(missing_ok=True)
