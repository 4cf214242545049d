"""Vectors of texts from an endpoint: in the index, and of queries."""

import asyncio
import json

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_images import DIMENSIONS, FakeImages, embedding, serving
from tests.fakes.openai_server import Reply, complaint
from tests.unit.generation.pool.pools import POOL, put_parquet, row

from dpe_api.endpoints import Endpoint
from dpe_api.names import Exit
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.generation.pool import Pool, Query, cli
from dpe_jobs.generation.pool.build import Options, index_pool
from dpe_jobs.generation.pool.embed import Embedder, QueryEmbedder, vectors
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import BadConfig


def embedder(server: FakeImages, model: str = "words-32") -> Embedder:
    return Embedder(Endpoint(name="embedder", url=f"{server.url}/v1", model=model))


async def searched(pool: Pool, server: FakeImages, text: str, model: str = "words-32") -> str:
    """The caption of the first image that is found by words and vectors."""
    with Ledger(MemoryStore(), "s3://b/ledger") as ledger:
        async with ModelClient.of(Endpoint(name="embedder", url=f"{server.url}/v1", model=model)) as client:
            pool.embed_by(QueryEmbedder("embedder", client, ledger))
            (hit,) = await pool.search(Query(text), 1)
    return hit.caption


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    put_parquet(store, "a.parquet", [row(i) for i in range(40)])
    put_parquet(store, "b.parquet", [row(40, caption="a harbour at dusk"), row(41, image={"bytes": None})])
    return store


def test_every_good_image_has_a_vector_and_only_new_shards_are_paid_for(store):
    with serving(lambda asked: asked.image) as server:
        report = index_pool(Options(POOL, embedder=embedder(server)), store)
        assert (report.images, report.bad, report.embedding_model) == (41, 1, "words-32")
        asked = [text for texts in server.texts for text in texts]
        assert len([text for text in asked if text != "a picture"]) == 41
        server.texts.clear()
        put_parquet(store, "c.parquet", [row(i) for i in range(50, 60)])
        index_pool(Options(POOL, embedder=embedder(server)), store)
        assert len([t for texts in server.texts for t in texts if t != "a picture"]) == 10
        assert asyncio.run(searched(Pool(store, POOL), server, "a harbour at dusk")) == "a harbour at dusk"


def test_another_model_than_the_one_of_the_index_is_refused(store):
    index_pool(Options(POOL), store)
    with serving(lambda asked: asked.image) as server:
        with pytest.raises(BadConfig, match="was indexed without an embedding model, asked is 'words-32'"):
            asyncio.run(searched(Pool(store, POOL), server, "x"))
        report = index_pool(Options(POOL, embedder=embedder(server)), store)
        assert (report.embedding_model, report.embedding_dimensions) == ("words-32", 32)
        with pytest.raises(BadConfig, match="with embedding model 'words-32' of 32 dimensions, asked is 'other'"):
            asyncio.run(searched(Pool(store, POOL), server, "x", "other"))
        server.dimensions = 48
        with pytest.raises(BadConfig, match="'words-32' of 32 dimensions, asked is 'words-32' of 48 dimensions"):
            asyncio.run(searched(Pool(store, POOL), server, "x"))
        put_parquet(store, "c.parquet", [row(i) for i in range(50, 60)])
        with pytest.raises(BadConfig, match=r"of 32 dimensions for a.parquet, and now makes 48"):
            index_pool(Options(POOL, embedder=embedder(server)), store)


def test_an_image_is_found_that_shares_no_word_with_the_query_when_its_vector_is_near(store):
    near = embedding("harbour dusk")
    with serving(lambda asked: asked.image) as server:
        index_pool(Options(POOL, embedder=embedder(server)), store)
        pool = Pool(store, POOL)
        assert asyncio.run(pool.search(Query("quay twilight"), 1)) == [], "no caption has these words"
        server._embed = lambda body: Reply(body=json.dumps({"data": [{"index": 0, "embedding": near}]}).encode())
        assert asyncio.run(searched(pool, server, "quay twilight")) == "a harbour at dusk"


def test_an_endpoint_that_cannot_embed_stops_the_index_and_nothing_is_published(store):
    with serving(lambda asked: asked.image) as server:
        server._embed = lambda body: complaint(400, "This model does not support embeddings")
        with pytest.raises(RequestFailed, match="does not support embeddings"):
            index_pool(Options(POOL, embedder=embedder(server)), store)
        with pytest.raises(BadConfig, match="has no index"):
            Pool(store, POOL)
        server._embed = lambda body: Reply(status=404)
        with pytest.raises(BadConfig, match="it has no embeddings there, or no model"):
            index_pool(Options(POOL, embedder=embedder(server)), store)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ({}, "no list of embeddings"),
        ({"data": [{"index": 0, "embedding": [1.0]}]}, "asked for 2 embeddings, got 1"),
        ({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}, r"lengths \[1, 2\]"),
        ({"data": [{"index": 0, "embedding": [float("nan")]}, {"index": 1, "embedding": [1.0]}]}, "no number"),
        ({"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": [1.0]}]}, "no list of embeddings"),
    ],
)
def test_a_reply_that_holds_no_vectors_is_told_apart(reply, why):
    with pytest.raises(ValueError, match=why):
        vectors(reply, 2)


def test_vectors_come_in_the_order_of_the_texts_whatever_that_of_the_reply(store):
    texts = [f"word{i}" for i in range(200)]
    with serving(lambda asked: asked.image) as server:
        found = embedder(server).embed_now(texts)
        assert all(len(texts) <= 64 for texts in server.texts)
    assert len(found) == 200
    assert {len(vector) for vector in found} == {DIMENSIONS}
    with serving(lambda asked: asked.image) as server:
        assert embedder(server).embed_now(["word150"])[0] == found[150]


def test_the_command_says_what_to_mend(monkeypatch, capsys):
    assert cli.main(["not-an-address"]) == Exit.BAD_CONFIG
    assert "'not-an-address' is not an s3://BUCKET/KEY address" in capsys.readouterr().err
    for name in ("DPE_S3_ENDPOINT", "DPE_S3_ACCESS_KEY", "DPE_S3_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main([POOL]) == Exit.BAD_CONFIG
    assert "not set: DPE_S3_ENDPOINT" in capsys.readouterr().err
    assert cli.main([POOL, "--embed-url", "http://x/v1"]) == Exit.BAD_CONFIG
    assert "--embed-url and --embed-model go together" in capsys.readouterr().err
    assert cli.main([POOL, "--embed-url", "ftp://x", "--embed-model", "m"]) == Exit.BAD_CONFIG
    assert "--embed-url: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([POOL, "--column", "pixels=x"])
    assert "is not FIELD=COLUMN with a field of image, caption" in capsys.readouterr().err


def test_the_command_indexes_reports_and_says_when_there_is_nothing_new(store, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "connect", lambda region: store)
    report = tmp_path / "report.json"
    assert cli.main([POOL, "--fact", "color=hue", "--max-bad-share", "0.1", "--report", str(report)]) == Exit.DONE
    said = capsys.readouterr()
    assert "41 images of 2 shards (2 new), 0 duplicates left out" in said.out
    assert "1 of 42 rows are broken and left out" in said.out
    assert "b.parquet row 1, image: no image bytes" in said.err
    assert '"images":41' in report.read_text().replace(" ", "").replace("\n", "")
    assert cli.main([POOL, "--fact", "color=hue", "--max-bad-share", "0.1"]) == Exit.DONE
    assert "nothing new; 41 images of 2 shards" in capsys.readouterr().out
    assert cli.main([POOL, "--max-bad-share", "0"]) == Exit.BAD_DATA
    assert "BadImages: s3://bucket/pool: 1 of 42 images are broken" in capsys.readouterr().err
