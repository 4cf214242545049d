"""Index a pool: `python -m dpe_jobs index POOL`. Shard by shard into parts, then all parts into one table.

One shard lies on disk at a time while parts are made; then one part, and the table in the making. In memory are the
rows of a batch and what LanceDB holds while it builds its indexes: nothing that grows with the number of images but
the ids on disk by which duplicates are found.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dpe_api.artifacts import InputRef, Manifest
from dpe_api.base import ApiModel
from dpe_jobs.generation.pool import parts, published
from dpe_jobs.generation.pool.embed import Embedder
from dpe_jobs.generation.pool.shards import INDEX, Columns, Shard, list_shards
from dpe_jobs.importing.index import Index
from dpe_jobs.importing.report import BadRowEntry
from dpe_jobs.runtime import BadConfig, BadData, package_versions
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

BAD_ROWS = "bad-rows.jsonl"
LISTED = 100  # bad rows in the report; all of them are in bad-rows.jsonl
VECTOR_INDEX_FROM = 5000  # rows; fewer are compared one by one, which is exact
_BATCH = 2048  # rows
_NOT_IN_TABLE = ("field", "reason", "row", "where")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    pool: str
    columns: Columns = field(default_factory=Columns)
    embedder: Embedder | None = None
    max_bad_share: float = 0.05
    """Of all rows; more broken images are the sign of a broken pool, and nothing is published."""


class IndexReport(ApiModel):
    """What is in an index; the summary of its manifest."""

    shards: int
    new_shards: int
    """Those that no earlier run had looked at."""
    rows: int
    images: int
    """Different ones, by their pixels."""
    duplicates: int
    """Rows with the pixels of an earlier one, which are left out."""
    look_alikes: int
    """Images with the perceptual hash of an earlier one, which are in it: a search shows one of them."""
    bad: int
    bad_by_reason: dict[str, int] = Field(default_factory=dict)
    first_bad: list[BadRowEntry] = Field(default_factory=list)
    embedding_model: str = ""
    """Empty: no vectors of texts."""
    embedding_dimensions: int = 0
    columns: dict[str, str] = Field(default_factory=dict)
    """Fields whose column was named on the command line."""
    facts: dict[str, str] = Field(default_factory=dict)
    content: str
    """Hash of the names of all parts: the same one, the same index."""
    folder: str
    """Where this version lies."""
    published: bool = True
    """False: there was nothing new."""


@dataclass(slots=True)
class _Counts:
    new_shards: int = 0
    rows: int = 0
    images: int = 0
    duplicates: int = 0
    look_alikes: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_bad: list[BadRowEntry] = field(default_factory=list)


class _Build:
    """One run."""

    def __init__(self, options: Options, store: Store, scratch: Path) -> None:
        self._options, self._store, self._scratch = options, store, scratch
        self._parts_folder = join(options.pool, INDEX, "parts")
        self.shards = list_shards(store, options.pool)
        model = options.embedder.model if options.embedder else ""
        self.names = {shard.name: parts.name_of(shard, options.columns, model) for shard in self.shards}
        self.content = hashlib.sha256("\n".join(self.names[s.name] for s in self.shards).encode()).hexdigest()
        self._ids, self._looks = Index(scratch / "ids.sqlite"), Index(scratch / "looks.sqlite")
        self._counts = _Counts()
        self._dimensions = 0

    def make_parts(self) -> None:
        """The parts that are not there yet, each put when it is whole."""
        there = {o.uri.removeprefix(self._parts_folder + "/") for o in self._store.list(self._parts_folder)}
        todo = [shard for shard in self.shards if self.names[shard.name] not in there]
        self._counts.new_shards = len(todo)
        embed, dimensions = None, 0
        if self._options.embedder is not None and todo:
            embed = self._options.embedder.embed_now
            dimensions = len(embed(["a picture"])[0])
            self._check_dimensions(dimensions, [shard for shard in self.shards if shard not in todo])
        for number, shard in enumerate(todo, 1):
            rows = self._make_part(shard, embed, dimensions)
            log.info("%s: %d rows, shard %d of %d", shard.name, rows, number, len(todo))

    def _check_dimensions(self, dimensions: int, made: Sequence[Shard]) -> None:
        """BadConfig: earlier shards were embedded by another model of the same name."""
        known = parts.dimensions_of(self._schema(made[0])) if made else dimensions
        if known != dimensions and self._options.embedder is not None:
            raise BadConfig(
                "OtherEmbedder",
                f"{self._options.pool}: --embed-model {self._options.embedder.model!r} made vectors of {known} "
                f"dimensions for {made[0].name}, and now makes {dimensions}: give models that differ different names",
            )

    def _schema(self, shard: Shard) -> pa.Schema:
        """Of a shard's part."""
        path = self._scratch / "schema.parquet"
        self._store.download(join(self._parts_folder, self.names[shard.name]), path)
        schema = pq.read_schema(path)
        path.unlink()
        return schema

    def _make_part(self, shard: Shard, embed: parts.Embed | None, dimensions: int) -> int:
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            local, part = Path(folder) / "shard", Path(folder) / self.names[shard.name]
            self._store.download(join(self._options.pool, shard.name), local)
            rows = parts.write(local, shard, self._options.columns, part, embed, dimensions)
            self._store.upload(part, join(self._parts_folder, part.name))
        return rows

    def _batches(self, bad_rows: Path) -> Iterator[pa.RecordBatch]:
        """All good rows of all parts without duplicates, in the order of the shards; the others are counted."""
        with bad_rows.open("w", encoding="utf-8") as handle, tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            for shard in self.shards:
                path = Path(folder) / "part.parquet"
                self._store.download(join(self._parts_folder, self.names[shard.name]), path)
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH):
                        yield self._good(batch, handle)

    def _good(self, batch: pa.RecordBatch, bad_rows: TextIO) -> pa.RecordBatch:
        keep, counts = [], self._counts
        named = batch.select(["row", "where", "id", "look", "seen", "field", "reason"]).to_pylist()
        for number, row in enumerate(named):
            counts.rows += 1
            if row["reason"] is not None:
                self._list_bad(row, bad_rows)
            elif self._ids.add(row["id"], counts.rows) is not None:
                counts.duplicates += 1
            else:
                counts.look_alikes += self._looks.add(f"{row['look']} {row['seen']}", counts.rows) is not None
                counts.images += 1
                keep.append(number)
        return batch.drop_columns(list(_NOT_IN_TABLE)).take(pa.array(keep, pa.int64()))

    def _list_bad(self, row: Mapping[str, Any], bad_rows: TextIO) -> None:
        entry = BadRowEntry(row=row["row"], place=row["where"], field=row["field"], reason=row["reason"])
        bad_rows.write(entry.model_dump_json(by_alias=True) + "\n")
        self._counts.bad += 1
        self._counts.reasons[entry.reason.split(":", 1)[0]] += 1
        if len(self._counts.first_bad) < LISTED:
            self._counts.first_bad.append(entry)

    def make_table(self, folder: Path) -> Path:
        """The table with its indexes, on disk, and the list of bad rows."""
        import lancedb  # seconds, and the search, which knows this module, may never open a table
        from lancedb.index import FTS, BTree, IvfFlat

        schema = self._schema(self.shards[0])
        self._dimensions = parts.dimensions_of(schema)
        for name in _NOT_IN_TABLE:
            schema = schema.remove(schema.get_field_index(name))
        bad_rows = self._scratch / BAD_ROWS
        reader = pa.RecordBatchReader.from_batches(schema, self._batches(bad_rows))
        table = lancedb.connect(folder).create_table(published.TABLE, reader)
        self._check()
        table.create_index("words", config=FTS())
        table.create_index("id", config=BTree())
        if self._counts.images >= VECTOR_INDEX_FROM:
            for name in {"visual", "vector"} & set(schema.names):
                table.create_index(name, config=IvfFlat(distance_type="cosine"))
        return bad_rows

    def _check(self) -> None:
        """BadData: too much is broken, or nothing is good."""
        counts, pool = self._counts, self._options.pool
        examples = "; ".join(f"{e.place}, {e.field}: {e.reason}" for e in counts.first_bad[:3])
        if counts.bad > self._options.max_bad_share * counts.rows:
            raise BadData(
                "BadImages",
                f"{pool}: {counts.bad} of {counts.rows} images are broken, more than --max-bad-share "
                f"{self._options.max_bad_share:g} allows ({examples}): mend the shards or raise it",
            )
        if not counts.images:
            raise BadData("EmptyPool", f"{pool}: no shard holds an image: upload others")

    def _report(self, folder: str) -> IndexReport:
        counts, options = self._counts, self._options
        return IndexReport(
            shards=len(self.shards),
            new_shards=counts.new_shards,
            rows=counts.rows,
            images=counts.images,
            duplicates=counts.duplicates,
            look_alikes=counts.look_alikes,
            bad=counts.bad,
            bad_by_reason=dict(counts.reasons.most_common(20)),
            first_bad=counts.first_bad,
            embedding_model=options.embedder.model if options.embedder else "",
            embedding_dimensions=self._dimensions,
            columns=dict(options.columns.named),
            facts=dict(options.columns.facts),
            content=self.content,
            folder=folder,
        )

    def publish(self) -> IndexReport:
        """Build the table here, bring it into the store, then the manifest."""
        target = published.next_folder(self._store, self._options.pool)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            bad_rows = self.make_table(Path(folder))
            if self._counts.bad:
                bad_rows.rename(Path(folder) / BAD_ROWS)
            outputs = self._store.upload_tree(Path(folder), target)
        report = self._report(target)
        manifest = Manifest(
            stage=published.STAGE,
            created_at=datetime.now(UTC),
            inputs=[InputRef(uri=self._options.pool, sha256=self.content)],
            outputs=outputs,
            summary=report.wire(),
            versions=package_versions("dpe", "lancedb", "pyarrow", "pillow", "numpy"),
        )
        self._store.publish(target, manifest)
        published.clean_up(self._store, self._options.pool, set(self.names.values()))
        return report


def index_pool(options: Options, store: Store) -> IndexReport:
    """Bring the index of a pool up to date; a report with `published` False when it is. BadData: the pool is bad."""
    with tempfile.TemporaryDirectory(prefix="dpe-index-") as folder:
        build = _Build(options, store, Path(folder))
        newest = published.latest(store, options.pool)
        if newest is not None:
            report = IndexReport.model_validate(newest[1].summary)
            if report.content == build.content:
                return report.model_copy(update={"published": False})
        build.make_parts()
        return build.publish()
