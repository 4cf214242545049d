"""How often an image was used, by what earlier rounds published."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import InputRef, Manifest
from dpe_api.generation_spec import SourceKind
from dpe_api.names import Stage
from dpe_jobs.generation.images import Origin
from dpe_jobs.generation.pool import uses
from dpe_jobs.generation.samples import SAMPLE_SCHEMA, ancestry
from dpe_jobs.store import join

POOL, BASE = "s3://bucket/pool", "s3://bucket/base"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pooled(name: str, pool: str = POOL) -> Origin:
    return Origin(SourceKind.POOL, f"pool:{pool}", name, "CC0-1.0")


def edited(*parents: Origin) -> Origin:
    return Origin(SourceKind.EDIT, "edit:compose", "x", "CC0-1.0", parents=parents)


DRAWN = Origin(SourceKind.RENDER, "render:shapes", "a", "Apache-2.0")


def samples(path: Path, origins: list[Origin]) -> None:
    def plain(origin: Origin) -> dict[str, object]:
        return {n: getattr(origin, n) for n in ("source", "id", "licence", "page_url", "image_url", "title", "author")}

    provenance = [{"origins": [plain(o) for o in ancestry(origin)]} for origin in origins]
    pq.write_table(pa.Table.from_pylist([{"provenance": p} for p in provenance], schema=SAMPLE_SCHEMA), path)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def trained(store: MemoryStore, folder: Path, model: str, before: str, origins: list[Origin], **rejected) -> None:
    """One round: samples, and a model trained on them."""
    generation = f"{model}-generation"
    samples(folder / "part-0.parquet", origins)
    kept = store.upload(folder / "part-0.parquet", join(generation, "samples/part-0.parquet"))
    outputs = [kept.model_copy(update={"path": "samples/part-0.parquet"})]
    store.publish(generation, Manifest(stage=str(Stage.GENERATION), created_at=NOW, outputs=outputs))
    inputs = [InputRef(uri=uri, sha256="") for uri in (before, generation)]
    store.publish(model, Manifest(stage="model", created_at=NOW, inputs=inputs))


def test_every_round_of_the_lineage_counts_and_a_rejected_one_does_not(store, tmp_path):
    first, second, rejected = (f"s3://bucket/{name}" for name in ("first", "second", "rejected"))
    trained(store, tmp_path, first, BASE, [pooled("a"), pooled("a"), pooled("b"), DRAWN])
    trained(store, tmp_path, second, first, [pooled("a"), pooled("c")])
    trained(store, tmp_path, rejected, second, [pooled("b")] * 5)
    assert uses.count(store, second, POOL) == {"a": 3, "b": 1, "c": 1}
    assert uses.count(store, first, POOL + "/") == {"a": 2, "b": 1}
    assert uses.count(store, BASE, POOL) == {}


def test_an_edit_uses_each_of_its_originals_once_and_another_pool_is_another_pool(store, tmp_path):
    origins = [edited(pooled("a"), pooled("b")), edited(pooled("a"), pooled("a")), pooled("a", "s3://bucket/pool-2")]
    trained(store, tmp_path, "s3://bucket/model", BASE, origins)
    assert uses.count(store, "s3://bucket/model", POOL) == {"a": 2, "b": 1}
    assert uses.count(store, "s3://bucket/model", "s3://bucket/pool-2") == {"a": 1}


def test_samples_of_an_older_release_used_nothing(store, tmp_path):
    trained(store, tmp_path, "s3://bucket/model", BASE, [])
    old = pa.schema([("provenance", pa.struct([("source_url", pa.string())]))])
    path = tmp_path / "old.parquet"
    pq.write_table(pa.Table.from_pylist([{"provenance": {"source_url": "x"}}], schema=old), path)
    kept = store.upload(path, "s3://bucket/old/samples/part-0.parquet")
    outputs = [kept.model_copy(update={"path": "samples/part-0.parquet"})]
    store.publish("s3://bucket/old", Manifest(stage=str(Stage.GENERATION), created_at=NOW, outputs=outputs))
    inputs = [InputRef(uri=uri, sha256="") for uri in ("s3://bucket/model", "s3://bucket/old")]
    store.publish("s3://bucket/next", Manifest(stage="model", created_at=NOW, inputs=inputs))
    assert uses.count(store, "s3://bucket/next", POOL) == {}
