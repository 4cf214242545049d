"""Samples read from the store as they are asked for: Parquet row groups by range requests, a bounded number in memory.

A file's footer says where its row groups lie; a row group is fetched when one of its rows is asked for, and kept while
its neighbours in the run's order are. So neither disk nor memory grows with the number of samples.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpe_jobs.graders import NEEDS_JUDGE
from dpe_jobs.ranges import RangeFile
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store, join

SAMPLES = "samples"
NEEDED = ("id", "image", "question", "answer", "answer_type")
CACHED_BYTES = 256 << 20  # of row groups in memory, in each rank; one is kept whatever its size


@dataclass(frozen=True, slots=True)
class Source:
    """One file of samples."""

    name: str
    open: Callable[[], Any]
    """A new file object over its bytes."""


def in_store(store: Store, artifact: str, folder: str = SAMPLES) -> list[Source]:
    """The Parquet files of a folder that a generation's manifest promises, by name. BadData: GRPO would have none."""
    manifest = store.manifest(artifact)
    if manifest is None:
        raise BadData("NoSamples", f"{artifact} has no manifest: the generation did not finish")
    files = [o for o in manifest.outputs if o.path.startswith(f"{folder}/") and o.path.endswith(".parquet")]
    if not files and folder == SAMPLES:
        raise BadData("NoSamples", f"{artifact} lists no samples/*.parquet: nothing to train on")

    def source(path: str, size: int) -> Source:
        return Source(path, lambda: RangeFile(store, join(artifact, path), size))

    return [source(file.path, file.size) for file in sorted(files, key=lambda o: o.path)]


def _opened(source: Source) -> pq.ParquetFile:
    """One file, checked. BadData when it is no Parquet file, lacks a column, or has rows that rules cannot grade."""
    try:
        file = pq.ParquetFile(source.open(), pre_buffer=True)
    except (pa.ArrowException, OSError) as error:
        raise BadData("UnreadableSamples", f"{source.name} is no readable Parquet file: {error}") from error
    missing = [c for c in NEEDED if c not in file.schema_arrow.names]
    if missing:
        raise BadData("MissingColumn", f"{source.name} has no column {', '.join(missing)}: generate the samples again")
    kinds = file.read(columns=["answer_type"])["answer_type"]
    if pc.any(pc.is_in(kinds, pa.array([kind.value for kind in NEEDS_JUDGE]))).as_py():
        raise BadData(
            "JudgedSamples",
            f"{source.name} has samples of answer_type {', '.join(sorted(NEEDS_JUDGE))}: training grades by rules "
            "alone; let generation keep other types",
        )
    return file


class Samples:
    """All rows of some files, by number. Not for several threads."""

    def __init__(self, sources: Sequence[Source], cached_bytes: int = CACHED_BYTES) -> None:
        """BadData when a file is not what it should be, or no row is in any."""
        self._names = [source.name for source in sources]
        self._files = [_opened(source) for source in sources]
        self._places = [(f, g) for f, file in enumerate(self._files) for g in range(file.metadata.num_row_groups)]
        self.groups: list[int] = [self._files[f].metadata.row_group(g).num_rows for f, g in self._places]
        """Rows of each row group, in order."""
        self._ends: list[int] = list(accumulate(self.groups))
        if not self._ends or not self._ends[-1]:
            raise BadData("NoSamples", "the samples hold no row: generation kept nothing to train on")
        self._cached_bytes = cached_bytes
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()

    def __getstate__(self) -> list[str]:
        """What `datasets` makes its fingerprint of: the names. It is never unpickled."""
        return self._names

    def __len__(self) -> int:
        return self._ends[-1]

    def columns(self, *names: str) -> Iterator[dict[str, Any]]:
        """Some columns of all rows, a batch in memory at a time; None where a file has no such column."""
        for file in self._files:
            there = [name for name in names if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=there):
                yield from (dict.fromkeys(names) | row for row in batch.to_pylist())

    def row(self, number: int) -> dict[str, Any]:
        """One row, with the columns that training reads."""
        group = bisect_right(self._ends, number)
        first = self._ends[group] - self.groups[group]
        found: dict[str, Any] = self._group(group).slice(number - first, 1).to_pylist()[0]
        return found

    def _group(self, group: int) -> pa.Table:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        file, place = self._places[group]
        columns = [c for c in (*NEEDED, "choices") if c in self._files[file].schema_arrow.names]
        try:
            table = self._files[file].read_row_group(place, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise BadData("UnreadableSamples", f"{self._names[file]}: row group {place}: {error}") from error
        self._cache[group] = table
        while len(self._cache) > 1 and sum(t.nbytes for t in self._cache.values()) > self._cached_bytes:
            self._cache.popitem(last=False)
        return table
