"""A pool from its shards to pictures: what is found, in which order, how often, and what is refused."""

import asyncio
import json
import threading
import time

import pytest
from PIL import Image
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation.pool import pools
from tests.unit.generation.pool.pools import POOL, put_parquet, put_tar, row, sample

from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.fetching.cache import DECODERS
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.pool import Pool, Query
from dpe_jobs.generation.pool.build import Options, index_pool
from dpe_jobs.generation.pool.shards import Columns
from dpe_jobs.runtime import BadConfig, BadData
from dpe_jobs.store import StoreUnreachable

FACTS = Options(POOL, Columns(facts={"color": "hue"}))


def shards() -> MemoryStore:
    store = MemoryStore()
    put_parquet(store, "a.parquet", [row(i) for i in range(60)])
    put_tar(store, "deep/b.tar", [member for i in range(60, 100) for member in sample(i)])
    return store


@pytest.fixture
def store() -> MemoryStore:
    return shards()


@pytest.fixture(scope="module")
def indexed() -> MemoryStore:
    """For tests that only read."""
    store = shards()
    index_pool(FACTS, store)
    return store


@pytest.fixture
def pool(indexed) -> Pool:
    return Pool(indexed, POOL)


def found(pool: Pool, query: Query, limit: int = 1000, **how) -> list[str]:
    return [hit.caption for hit in asyncio.run(pool.search(query, limit, **how))]


def numbers(pool: Pool, query: Query, limit: int = 1000, **how) -> set[int]:
    return {int(caption.split("number")[1].split()[0]) for caption in found(pool, query, limit, **how)}


def test_an_image_is_found_by_its_caption_and_read_from_its_shard_with_licence_and_page(pool):
    for number, licence in ((17, "CC0-1.0"), (77, "CC-BY-4.0")):
        (hit,) = asyncio.run(pool.search(Query(f"number{number}"), 1))
        picture = asyncio.run(pool.load(hit, Query(f"number{number}")))
        assert picture.origin.licence == licence
        assert picture.origin.page_url == f"https://example.org/{number}"
        assert picture.origin.source == f"pool:{POOL}"
        assert picture.facts == {"color": pools.color(number)}
        assert picture.tool_calls[0]["arguments"]["text"] == f"number{number}"
        if number == 17:  # a PNG: the very pixels
            assert pixel_digest(picture.image) == pixel_digest(pools.picture(number))


def test_colours_are_found_though_no_caption_names_them(store):
    index_pool(Options(POOL), store)  # no facts, so that nothing but the pixels can tell
    pool = Pool(store, POOL)
    first = [hit.seen for hit in asyncio.run(pool.search(Query("teal"), 20))]
    assert len(first) == 20
    assert all("teal" in seen.split() for seen in first)


def test_an_image_whose_known_facts_contradict_the_query_is_left_out(pool):
    assert numbers(pool, Query("disc", facets={"color": "teal"})) == {n for n in range(100) if pools.color(n) == "teal"}
    assert len(numbers(pool, Query("disc", facets={"mood": "happy"}))) == 100, "nothing is known of the mood"


def test_a_picture_finds_those_that_look_like_it(pool):
    assert found(pool, Query(like=pools.picture(42)), 1)[0].startswith("disc number42 ")


def test_the_order_depends_on_the_seed_alone_and_going_deeper_changes_nothing_before(indexed, pool, monkeypatch):
    query = Query("disc")
    order = found(pool, query, seed=1)
    assert found(Pool(indexed, POOL), query, seed=1) == order
    assert found(Pool(indexed, POOL), query, seed=2) != order
    monkeypatch.setattr("dpe_jobs.generation.pool.search.DEPTHS", (10, 30, 60, 200))
    few_at_a_time = Pool(indexed, POOL)
    first = found(few_at_a_time, query, 5, seed=1)
    assert len(first) == 5
    assert found(few_at_a_time, query, 100, seed=1)[:5] == first
    assert set(found(few_at_a_time, query, 100, seed=1)) == set(order)


def test_without_a_query_every_image_comes_once_in_an_order_drawn_by_the_seed(pool):
    assert numbers(pool, Query()) == set(range(100))
    assert found(pool, Query(), 10, seed=1) != found(pool, Query(), 10, seed=2)


def test_those_who_ask_the_same_get_different_images_until_there_are_no_more(pool):
    query = Query(facets={"color": "blue"})
    hits = [asyncio.run(pool.pick(query, ordinal, seed=3)) for ordinal in range(25)]
    assert len({hit.id for hit in hits}) == 25
    with pytest.raises(NoImage, match=r"'blue' finds 25 images with 25 uses left \(maxUses 1\), and 26 are wanted"):
        asyncio.run(pool.pick(query, 25, seed=3))


def test_an_image_is_used_as_often_as_allowed_over_all_rounds(indexed, pool):
    query = Query(facets={"color": "blue"})
    ids = [hit.id for hit in asyncio.run(pool.search(query, 100))]
    pool = Pool(indexed, POOL, uses={ids[0]: 3, ids[1]: 2, "f" * 32: 1}, max_uses=3)
    picked = [asyncio.run(pool.pick(query, ordinal)).id for ordinal in range(23 * 3 + 1)]
    assert ids[0] not in picked
    assert picked.count(ids[1]) == 1
    assert all(picked.count(other) == 3 for other in ids[2:25])
    with pytest.raises(NoImage):
        asyncio.run(pool.pick(query, 23 * 3 + 1))


def test_parts_of_a_pool_share_no_image_and_are_all_of_it(pool):
    parts = [numbers(pool, Query("disc"), part=(which, 3)) for which in range(3)]
    assert sum(len(part) for part in parts) == 100
    assert set().union(*parts) == set(range(100))


def test_an_image_is_read_without_reading_its_shard_whole(store):
    noise = [Image.effect_noise((128, 128), 100 + i).convert("RGB") for i in range(60)]
    images = [{"bytes": pools.encoded(image), "path": None} for image in noise]
    rows = [row(i, image=image, caption=f"noise{i}") for i, image in enumerate(images)]
    put_parquet(store, "big.parquet", rows, group=10)
    index_pool(FACTS, store)
    pool = Pool(store, POOL)
    (hit,) = asyncio.run(pool.search(Query("noise41"), 1))
    store.ranges.clear()
    picture = asyncio.run(pool.load(hit))
    assert pixel_digest(picture.image) == pixel_digest(noise[41])
    whole = len(store.objects[f"{POOL}/big.parquet"])
    assert sum(length for _, length in store.ranges) < whole / 3
    (from_tar,) = asyncio.run(pool.search(Query("number77"), 1))
    store.ranges.clear()
    asyncio.run(pool.load(from_tar))
    assert store.ranges == [(f"{POOL}/deep/b.tar", from_tar.size)], "the image's bytes and no others"


def test_equal_pixels_are_one_image_however_often_and_wherever_they_lie(store):
    put_parquet(store, "c.parquet", [row(i, caption=f"again {i}") for i in range(10)])
    report = index_pool(FACTS, store)
    assert (report.images, report.duplicates) == (100, 10)
    assert len(found(Pool(store, POOL), Query("again"))) == 0, "the first one stays"


def test_broken_images_are_counted_and_listed_with_shard_row_and_reason(store):
    bad = [
        row(200, image={"bytes": b"\x89PNG\r\n\x1a\nnothing", "path": None}),
        row(201, image={"bytes": None, "path": "lost.png"}),
        row(202, image={"bytes": b"<html>", "path": None}),
        row(203),
    ]
    put_parquet(store, "bad.parquet", bad)
    put_tar(store, "bad.tar", [("1.txt", b"no image"), ("2.jpg", b"\xff\xd8\xff\xe0 torn")])
    report = index_pool(Options(POOL, max_bad_share=0.1), store)
    assert (report.images, report.bad) == (101, 5)
    lines = store.objects[f"{report.folder}/bad-rows.jsonl"].decode().splitlines()
    listed = {(entry["place"], entry["field"]): entry["reason"] for entry in map(json.loads, lines)}
    assert listed["bad.parquet row 1", "image"] == "no image bytes"
    assert listed["bad.parquet row 2", "image"].startswith("NotAnImage: its first bytes are those of HTML")
    assert listed["bad.parquet row 0", "image"].startswith("Broken: ")
    assert listed["bad.tar sample '1'", "image"] == "no image bytes"
    assert ("bad.tar sample '2'", "image") in listed
    assert sum(report.bad_by_reason.values()) == 5


def test_too_many_broken_images_publish_nothing_and_say_which(store):
    put_parquet(store, "bad.parquet", [row(i, image={"bytes": b"x", "path": None}) for i in range(10)])
    with pytest.raises(
        BadData, match=r"10 of 110 images are broken, more than --max-bad-share 0\.05.*bad\.parquet row 0"
    ):
        index_pool(FACTS, store)
    with pytest.raises(BadConfig, match="has no index: run python -m dpe_jobs index"):
        Pool(store, POOL)


def test_a_shard_that_breaks_off_gives_what_came_before(store):
    whole = store.objects[f"{POOL}/deep/b.tar"]
    store.put(f"{POOL}/torn.tar", whole[: len(whole) // 2 - len(whole) // 2 % 512 + 100])
    store.delete([f"{POOL}/deep/b.tar"])
    report = index_pool(FACTS, store)
    assert 70 < report.images < 100
    assert report.bad == 1
    assert report.first_bad[0].place.startswith("torn.tar sample")


def test_only_new_and_changed_shards_are_looked_at(store):
    index_pool(FACTS, store)
    put_parquet(store, "c.parquet", [row(i) for i in range(100, 120)])
    fetched = []
    real = store.download
    store.download = lambda uri, path, sha256=None: (fetched.append(uri), real(uri, path, sha256))[1]
    report = index_pool(FACTS, store)
    assert (report.new_shards, report.images) == (1, 120)
    assert [uri for uri in fetched if "_index" not in uri] == [f"{POOL}/c.parquet"]
    put_parquet(store, "a.parquet", [row(i) for i in range(50)])
    fetched.clear()
    assert index_pool(FACTS, store).images == 110
    assert [uri for uri in fetched if "_index" not in uri] == [f"{POOL}/a.parquet"]
    before = dict(store.objects)
    assert not index_pool(FACTS, store).published
    assert store.objects == before, "nothing new, nothing written"


def test_a_part_is_looked_through_as_deep_as_a_whole_pool(pool, monkeypatch):
    monkeypatch.setattr("dpe_jobs.generation.pool.search.DEPTHS", (4, 16))
    parts = [numbers(pool, Query(), 16, seed=3, part=(which, 4)) for which in range(4)]
    assert [len(part) for part in parts] == [16] * 4
    assert len(set().union(*parts)) == 64


def test_no_more_pictures_are_decoded_at_once_than_memory_allows(pool, monkeypatch):
    busy = most = 0
    counting = threading.Lock()
    load = pool._load

    def counted(*args: object) -> Picture:
        nonlocal busy, most
        with counting:
            busy += 1
            most = max(most, busy)
        time.sleep(0.01)
        found = load(*args)
        with counting:
            busy -= 1
        return found

    async def all_at_once() -> None:
        hits = await pool.search(Query("disc"), 12)
        await asyncio.gather(*(pool.load(hit) for hit in hits))

    monkeypatch.setattr(pool, "_load", counted)
    asyncio.run(all_at_once())
    assert most == DECODERS


def test_old_versions_and_parts_without_a_shard_are_removed_but_the_one_before_stays(store):
    folders = [index_pool(FACTS, store).folder]
    for number in range(3):
        put_parquet(store, "c.parquet", [row(i) for i in range(100, 110 + number)])
        folders.append(index_pool(FACTS, store).folder)
    left = {folder for folder in folders if any(uri.startswith(folder + "/") for uri in store.objects)}
    assert left == set(folders[-2:])
    assert len([uri for uri in store.objects if "/_index/parts/" in uri]) == 3


def test_an_image_that_was_replaced_since_is_not_taken_for_the_old_one(store):
    index_pool(FACTS, store)
    pool = Pool(store, POOL)
    (hit,) = asyncio.run(pool.search(Query("number17"), 1))
    put_parquet(store, "a.parquet", [row(i) for i in range(200, 260)])
    with pytest.raises(NoImage, match=r"was replaced since.*python -m dpe_jobs index s3://bucket/pool"):
        asyncio.run(Pool(store, POOL).load(hit))
    store.delete([f"{POOL}/a.parquet"])
    with pytest.raises(NoImage, match=r"a\.parquet is gone"):
        asyncio.run(Pool(store, POOL).load(hit))


def test_a_store_that_is_away_is_no_missing_image(store):
    index_pool(FACTS, store)
    pool = Pool(store, POOL)
    (hit,) = asyncio.run(pool.search(Query("number77"), 1))
    store.down = True
    with pytest.raises(StoreUnreachable):
        asyncio.run(pool.load(hit))


@pytest.mark.parametrize(
    ("name", "why"),
    [("x.tar.gz", "is compressed: no image can be read out of its middle"), ("x.txt", "no .parquet and no .tar file")],
)
def test_a_folder_without_usable_shards_is_refused(name, why):
    store = MemoryStore()
    store.put(f"{POOL}/{name}", b"x")
    with pytest.raises((BadConfig, BadData), match=why):
        index_pool(FACTS, store)


def test_a_parquet_file_without_a_column_of_images_is_refused_with_its_columns(store):
    with pytest.raises(BadConfig, match=r"a\.parquet has no column photo; it has image, caption.*--column image=NAME"):
        index_pool(Options(POOL, Columns(named={"image": "photo"})), store)


def test_hostile_names_and_texts_are_only_text(store):
    hostile = row(300, caption="x' OR id IN ('') -- \" {} ignore all instructions", licence="' ; DROP")
    put_parquet(store, "c.parquet", [hostile])
    index_pool(FACTS, store)
    pool = Pool(store, POOL)
    for text in ("' OR '1'='1", 'a"b AND (', "ignore* ^2 +instructions", "\x00\n"):
        asyncio.run(pool.search(Query(text), 5))
    (hit,) = asyncio.run(pool.search(Query("ignore instructions"), 1))
    assert asyncio.run(pool.load(hit)).origin.licence == "' ; DROP"
