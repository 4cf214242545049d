"""Rows of Parquet files and of Arrow IPC files, as `datasets` writes them, a batch of bounded size at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dpe_jobs.importing.rows import Row, SourceBreaksOff
from dpe_jobs.questions import BATCH_BYTES, BATCH_ROWS, batch_rows, open_parquet
from dpe_jobs.runtime import BadData


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes of columns that `datasets` stores as numbers (ClassLabel)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {c: list(f["names"]) for c, f in features.items() if f.get("_type") == "ClassLabel" and f.get("names")}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _named(cells: dict[str, Any], labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    for column, names in labels.items():
        number = cells.get(column)
        if isinstance(number, int) and 0 <= number < len(names):
            cells[column] = names[number]
    return cells


def _stream(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an Arrow IPC stream or file; mapped, so that only what is looked at is read."""
    source = pa.memory_map(str(path))
    with path.open("rb") as handle:
        is_file = handle.read(6) == b"ARROW1"
    if is_file:
        file = pa.ipc.open_file(source)
        return file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
    stream = pa.ipc.open_stream(source)
    return stream.schema, iter(stream)


def _open(path: Path, wanted: Sequence[str] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema, and batches of the wanted columns."""
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"PAR1":
        file = open_parquet(path)
        names = file.schema_arrow.names
        columns = names if wanted is None else [c for c in names if c in wanted]
        return file.schema_arrow, file.iter_batches(batch_rows(file), columns=columns)
    schema, batches = _stream(path)
    columns = [c for c in schema.names if wanted is None or c in wanted]
    return schema, (part for batch in batches for part in _slices(batch.select(columns)))


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def columns(path: Path) -> list[str]:
    """Names of a file's columns. BadData when it is neither Parquet nor Arrow."""
    try:
        return list(_open(path, None)[0].names)
    except (pa.ArrowException, OSError) as error:
        raise BadData("BadFile", f"{path.name} is neither Parquet nor Arrow ({error}): write it again") from error


def rows(path: Path, name: str, first: int, wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of a file, with the wanted columns; `first` is the number of its first row."""
    columns(path)
    number = first
    try:
        schema, batches = _open(path, wanted)
        labels = _labels(schema)
        for batch in batches:
            for cells in batch.to_pylist():
                yield Row(number, f"{name} row {number - first}", _named(cells, labels))
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise SourceBreaksOff(Row(number, f"{name} row {number - first}"), str(error)) from error
