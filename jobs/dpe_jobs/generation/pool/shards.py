"""The shards of a pool: Parquet files and WebDataset tar files, read row by row, and one image of one row again.

A row is named by where it lies: in Parquet by its number in the file, in a tar by the offset of its image's bytes.
"""

import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dpe_jobs.importing.arrow import columns, rows
from dpe_jobs.importing.files import MAX_IMAGE_BYTES
from dpe_jobs.importing.rows import Fault, Row, SourceBreaksOff
from dpe_jobs.ranges import RangeFile
from dpe_jobs.runtime import BadConfig, BadData
from dpe_jobs.store import Store, join

INDEX = "_index"
"""Folder of the index, beside the shards. Names that begin with _ or . are no data, as Hive has it."""
PLACE = "\0place"
"""Key of a row's cells under which its number or offset lies: no column is called so."""
SIZE = "\0size"

IMAGE, CAPTION, LICENCE, SOURCE, TITLE, AUTHOR = "image", "caption", "licence", "source", "title", "author"
FIELDS: Mapping[str, tuple[str, ...]] = {
    IMAGE: ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes"),
    CAPTION: ("caption", "text", "txt", "alt", "alt_text", "description"),
    LICENCE: ("licence", "license"),
    SOURCE: ("source", "url", "source_url", "page_url"),
    TITLE: ("title",),
    AUTHOR: ("author", "creator", "photographer"),
}
"""What is known of an image, and the columns in which it is looked for, the first that there is."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LONGEST_JSON = 1 << 20  # bytes
_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
_TEXT_SUFFIXES = {"txt": CAPTION, "caption": CAPTION, "text": CAPTION}


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a pool."""

    name: str
    """Relative to the pool."""
    size: int  # bytes
    etag: str
    """Changes with the content."""


@dataclass(frozen=True, slots=True)
class Columns:
    """In which columns things lie, where that is not as FIELDS has it; and which columns are exactly known facts."""

    named: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def of(self, what: str, there: Sequence[str] | Mapping[str, Any]) -> str | None:
        """The column of a field among those that there are; None: there is none."""
        if what in self.named:
            return self.named[what] if self.named[what] in there else None
        return next((name for name in FIELDS[what] if name in there), None)


def list_shards(store: Store, uri: str) -> list[Shard]:
    """All shards of a pool by name. BadConfig: compressed tars; BadData: there is no shard."""
    root = uri.rstrip("/") + "/"
    found = [(o.uri.removeprefix(root), o) for o in store.list(uri)]
    seen = [(name, o) for name, o in found if not any(part[0] in "_." for part in PurePosixPath(name).parts)]
    packed = [name for name, _ in seen if name.endswith(_COMPRESSED)]
    if packed:
        raise BadConfig(
            "CompressedShard",
            f"{root}{packed[0]} is compressed: no image can be read out of its middle; unpack it to .tar",
        )
    shards = [Shard(name, o.size, o.etag) for name, o in seen if name.endswith((".parquet", ".tar"))]
    if not shards:
        raise BadData(
            "EmptyPool", f"{uri} holds no .parquet and no .tar file: upload the shards or correct the address"
        )
    return shards


def read(path: Path, shard: Shard, wanted: Columns) -> Iterator[Row]:
    """The rows of a shard that lies on disk, with PLACE and SIZE among their cells. SourceBreaksOff: it is damaged.

    BadConfig: it has no column of images.
    """
    return _tar_rows(path, shard.name) if shard.name.endswith(".tar") else _parquet_rows(path, shard.name, wanted)


def image_bytes(cell: Any) -> bytes | None:
    """The bytes of an image cell: themselves, or a struct of bytes and path as `datasets` has it."""
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if isinstance(data, bytes) and data else None


def _parquet_rows(path: Path, name: str, wanted: Columns) -> Iterator[Row]:
    there = columns(path)
    if wanted.of(IMAGE, there) is None:
        raise BadConfig(
            "NoImageColumn",
            f"{name} has no column {' or '.join([wanted.named[IMAGE]] if IMAGE in wanted.named else FIELDS[IMAGE])}; "
            f"it has {', '.join(there)}: name it with --column image=NAME",
        )
    for row in rows(path, name, 0, there):
        size = len(image_bytes(row.cells.get(wanted.of(IMAGE, there) or "")) or b"")
        yield Row(row.number, row.place, {**row.cells, PLACE: row.number, SIZE: size}, row.fault)


@dataclass(slots=True)
class _Sample:
    """Consecutive members of a tar that share a key."""

    key: str
    cells: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


def _tar_rows(path: Path, name: str) -> Iterator[Row]:
    """One row for each key: the members' common name up to its first dot (WebDataset)."""
    number, sample = 0, None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would remember every one
                if not member.isfile():
                    continue
                key, _, suffix = _split(member.name)
                if sample is not None and sample.key != key:
                    yield _row(number, name, sample)
                    number, sample = number + 1, None
                sample = sample or _Sample(key)
                _add(sample, suffix.lower(), member, tar)
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SourceBreaksOff(Row(number, f"{name} sample {number}"), str(error) or type(error).__name__) from error
    if sample is not None:
        yield _row(number, name, sample)


def _check_end(path: Path, offset: int) -> None:
    """TarError when the file does not end where its members do: tarfile takes a torn header for the end."""
    with path.open("rb") as handle:
        handle.seek(offset)
        rest = handle.read(tarfile.BLOCKSIZE)
    if len(rest) % tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise tarfile.ReadError("it ends in the middle of a member")


def _split(member: str) -> tuple[str, str, str]:
    folder, slash, base = member.rpartition("/")
    key, dot, suffix = base.partition(".")
    return folder + slash + key, dot, suffix


def _row(number: int, name: str, sample: _Sample) -> Row:
    return Row(number, f"{name} sample {sample.key!r}", sample.cells, sample.fault)


def _add(sample: _Sample, suffix: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    kind = suffix.rpartition(".")[2]
    is_image = kind in _IMAGE_SUFFIXES
    if is_image and IMAGE in sample.cells:
        return  # of several images of one key the first one counts
    if not (is_image or kind in _TEXT_SUFFIXES or kind == "json"):
        return
    if member.size > (MAX_IMAGE_BYTES if is_image else _LONGEST_JSON):
        sample.fault = Fault(suffix, f"{member.size} bytes, more than allowed")
        return
    handle = tar.extractfile(member)
    data = b"" if handle is None else handle.read()
    if is_image:
        sample.cells |= {IMAGE: data, PLACE: member.offset_data, SIZE: member.size}
    elif kind == "json":
        _add_json(sample, data)
    else:
        sample.cells[_TEXT_SUFFIXES[kind]] = data.decode(errors="replace")


def _add_json(sample: _Sample, data: bytes) -> None:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        sample.fault = Fault("json", "no JSON")
        return
    if isinstance(values, dict):
        sample.cells = {**{str(k): v for k, v in values.items() if k != IMAGE}, **sample.cells}


class Reader(Protocol):
    """Reads one image of one shard again."""

    def image(self, place: int, size: int) -> bytes:
        """The image file; ValueError: what lies there is none any more."""


class ParquetReader:
    """Images of a Parquet file. Of a row group it reads as far as the row, a page at a time; the footer is kept."""

    def __init__(self, store: Store, uri: str, size: int, wanted: Columns) -> None:
        raw = RangeFile(store, uri, size)
        self._file = pq.ParquetFile(pa.PythonFile(raw, mode="r"), buffer_size=1 << 18, pre_buffer=False)
        metadata = self._file.metadata
        self._starts = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]
        self._column = wanted.of(IMAGE, self._file.schema_arrow.names)

    def image(self, place: int, size: int) -> bytes:
        group = bisect_right(self._starts, place) - 1
        if self._column is None or not 0 <= group < len(self._starts) - 1:
            raise ValueError(f"there is no row {place}")
        left = place - self._starts[group]
        # few rows at a time: what is read beyond the wanted one is read in vain
        for batch in self._file.iter_batches(8, row_groups=[group], columns=[self._column]):
            if left < batch.num_rows:
                data = image_bytes(batch.column(0)[left].as_py())
                if data is None or len(data) != size:
                    raise ValueError(f"row {place} holds another image than when it was indexed")
                return data
            left -= batch.num_rows
        raise ValueError(f"there is no row {place}")


class TarReader:
    """Images of a tar, each by one range request."""

    def __init__(self, store: Store, uri: str) -> None:
        self._store, self._uri = store, uri

    def image(self, place: int, size: int) -> bytes:
        return self._store.get_range(self._uri, place, size)


def reader(store: Store, uri: str, shard: Shard, wanted: Columns) -> Reader:
    """For images of one shard of a pool."""
    address = join(uri, shard.name)
    return (
        TarReader(store, address) if shard.name.endswith(".tar") else ParquetReader(store, address, shard.size, wanted)
    )
