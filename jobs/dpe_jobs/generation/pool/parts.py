"""What is known of each image of one shard, as one Parquet file: `_index/parts/NAME.parquet`.

A part depends on its shard, on the columns and on the embedding model alone, and its name says which: it is written
whole or not at all, by whoever comes first, and a run that was killed finds the parts of those before it.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.fetching.reasons import NotFetched
from dpe_jobs.generation.pool import describe, shards
from dpe_jobs.generation.pool.shards import Columns, Shard
from dpe_jobs.importing.ahead import convert
from dpe_jobs.importing.convert import BadRow, text_of
from dpe_jobs.importing.rows import Fault, Row, SourceBreaksOff
from dpe_jobs.questions import FACETS_TYPE, MAX_PIXELS, facet_pairs

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], list[list[float]]]
"""Vectors of texts."""

FORMAT = 1  # of parts: another one makes all of them anew
LONGEST_TEXT = 2000  # characters of an image's words
_LONGEST_FIELD = 500
_BATCH = 512  # rows held before they are written
TELL_S = 10.0
_MOST_KEYS = 64  # of an image's other metadata

_STRINGS = ("id", "look", "seen", "words", "caption", "title", "author", "licence", "source", "field", "reason")


def schema(dimensions: int) -> pa.Schema:
    """Columns of a part. `reason` is why an image is broken; null for a good one."""
    fields = [
        pa.field("shard", pa.string()),
        pa.field("row", pa.int64()),  # from 0
        pa.field("where", pa.string()),
        pa.field("place", pa.int64()),
        pa.field("size", pa.int64()),  # bytes
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        *(pa.field(name, pa.string()) for name in _STRINGS),
        pa.field("facts", FACETS_TYPE),
        pa.field("visual", pa.list_(pa.float32(), describe.VECTOR)),
    ]
    if dimensions:
        fields.append(pa.field("vector", pa.list_(pa.float32(), dimensions)))
    return pa.schema(fields)


def dimensions_of(schema: pa.Schema) -> int:
    """Of the vectors of texts in a part; 0: it has none."""
    return int(schema.field("vector").type.list_size) if "vector" in schema.names else 0


def name_of(shard: Shard, columns: Columns, model: str) -> str:
    """Of a shard's part."""
    asked = [FORMAT, shard.name, shard.size, shard.etag, sorted(columns.named.items()), sorted(columns.facts.items())]
    return hashlib.sha256(json.dumps([*asked, model]).encode()).hexdigest()[:32] + ".parquet"


def _scalar(value: Any) -> str | None:
    """A cell as text; None for what is no text, number or truth."""
    try:
        return text_of(value)
    except ValueError:
        return None


def _words(cells: Mapping[str, Any], columns: Columns, seen: Sequence[str]) -> str:
    """All that can be searched: caption, title, other metadata, and what the picture looks like."""
    special = {columns.of(what, cells) for what in (shards.IMAGE, shards.CAPTION, shards.LICENCE, shards.SOURCE)}
    caption = _scalar(cells.get(columns.of(shards.CAPTION, cells) or ""))
    texts = [caption or ""]
    others = [key for key in cells if key not in special and not key.startswith("\0")]
    for key in others[:_MOST_KEYS]:
        value = cells[key]
        entries = value.items() if isinstance(value, Mapping) else [(key, value)]
        for name, entry in list(entries)[:_MOST_KEYS]:
            text = _scalar(entry)
            if text is not None:
                texts.append(f"{name} {text[:_LONGEST_FIELD]}")
    room = LONGEST_TEXT - sum(len(word) + 1 for word in seen)
    return " ".join([" ".join(" ".join(texts).split())[:room], *seen]).strip()


def entry(row: Row, columns: Columns) -> dict[str, Any]:
    """What is known of a row's image. BadRow: it has none, or one that does not decode."""
    if row.fault is not None:
        raise BadRow([row.fault])
    column = columns.of(shards.IMAGE, row.cells)
    data = shards.image_bytes(row.cells.get(column or ""))
    if data is None:
        raise BadRow([Fault(column or shards.IMAGE, "no image bytes")])
    try:
        image = decode(data, MAX_PIXELS)
    except NotFetched as error:
        raise BadRow([Fault(column or shards.IMAGE, str(error))]) from error
    seen = describe.words(image)
    known = {
        what: (_scalar(row.cells.get(columns.of(what, row.cells) or "")) or "")[:LONGEST_TEXT]
        for what in (shards.CAPTION, shards.TITLE, shards.AUTHOR, shards.LICENCE, shards.SOURCE)
    }
    facts = {name: _scalar(row.cells.get(column)) for name, column in columns.facts.items()}
    return {
        "row": row.number,
        "where": row.place,
        "place": row.cells[shards.PLACE],
        "size": row.cells[shards.SIZE],
        "width": image.width,
        "height": image.height,
        "id": pixel_digest(image)[:32],
        "look": describe.look(image),
        "seen": " ".join(seen),
        "words": _words(row.cells, columns, seen),
        **known,
        "facts": facet_pairs({name: value for name, value in facts.items() if value is not None}),
        "visual": describe.vector(image),
    }


def entries(path: Path, shard: Shard, columns: Columns) -> Iterator[dict[str, Any]]:
    """Every row of a shard: what is known of its image, or what is wrong with it."""
    try:
        for row, made in convert(shards.read(path, shard, columns), lambda row: entry(row, columns)):
            yield _broken(row, made.faults[0]) if isinstance(made, BadRow) else made
    except SourceBreaksOff as error:
        # what follows cannot be read; what came before is good
        yield _broken(error.row, error.fault)


def _broken(row: Row, fault: Fault) -> dict[str, Any]:
    return {"row": row.number, "where": row.place, "field": fault.field, "reason": fault.reason[:_LONGEST_FIELD]}


class _PartFile:
    """A part in the making: a batch of rows is in memory."""

    def __init__(self, path: Path, shard: str, embed: Embed | None, dimensions: int) -> None:
        self._shard, self._embed = shard, embed
        self._schema = schema(dimensions)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._pending: list[dict[str, Any]] = []

    def add(self, made: dict[str, Any]) -> None:
        self._pending.append({"shard": self._shard, **made})
        if len(self._pending) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        good = [made for made in self._pending if "reason" not in made]
        if self._embed is not None and good:
            for made, vector in zip(good, self._embed([made["words"] for made in good]), strict=True):
                made["vector"] = vector
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []

    def close(self) -> None:
        if self._pending:
            self._flush()
        self._writer.close()


def write(path: Path, shard: Shard, columns: Columns, to: Path, embed: Embed | None = None, dimensions: int = 0) -> int:
    """Write the part of a shard that lies at `path`; returns its rows. `embed` makes vectors of `dimensions`."""
    count, told = 0, time.monotonic()
    part = _PartFile(to, shard.name, embed, dimensions)
    for count, made in enumerate(entries(path, shard, columns), 1):
        part.add(made)
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            log.info("%s: %d rows", shard.name, count)
    part.close()
    return count
