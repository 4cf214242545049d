"""The index as a process of its own, against a real MinIO, killed at random moments; and a pool searched there."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lancedb
import pytest
from tests.cluster.own_minio import Minio
from tests.patience import SLOWNESS, deadline
from tests.unit.generation.pool import pools

from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, Exit
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.pool import Pool, Query, published
from dpe_jobs.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
SHARDS, ROWS = 12, 25
WITHIN_S = SLOWNESS * 120


@pytest.fixture(scope="module")
def minio(tmp_path_factory) -> Iterator[Minio]:
    it = Minio(tmp_path_factory.mktemp("minio"))
    it.start()
    yield it
    it.stop()


class Place:
    """A bucket with a pool at `pools.POOL`'s path, and the command that indexes it."""

    def __init__(self, minio: Minio, name: str) -> None:
        self._minio, self.store = minio, minio.store()
        self._scratch = minio.data.parent / f"{name}-scratch"
        self._scratch.mkdir()
        self.pool = minio.bucket(name) + "/pool"
        for number in range(SHARDS):
            rows = range(number * ROWS, (number + 1) * ROWS)
            if number % 2:
                pools.put_tar(self, f"{number:02d}.tar", [member for i in rows for member in pools.sample(i)])
            else:
                pools.put_parquet(self, f"{number:02d}.parquet", [pools.row(i) for i in rows])

    def put(self, uri: str, data: bytes) -> None:
        """Where `pools` puts its shards."""
        self.store.put(uri.replace(pools.POOL, self.pool), data)

    def start(self) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "TMPDIR": str(self._scratch),  # what a killed process leaves there goes with the test
            "PYTHONPATH": ":".join(str(REPOSITORY / part) for part in ("crds", "jobs", ".")),
            "DPE_S3_ENDPOINT": f"http://{self._minio.address}",
            ENV_ACCESS_KEY: self._minio.key,
            ENV_SECRET_KEY: self._minio.secret,
        }
        command = [sys.executable, "-m", "dpe_jobs", "index", self.pool]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def content(self) -> list[dict[str, object]]:
        """Every row of the published table, in its order."""
        found = published.latest(self.store, self.pool)
        assert found is not None
        address, options = self.store.native(found[0])
        rows = lancedb.connect(address, storage_options=options).open_table(published.TABLE).to_arrow().to_pylist()
        return list(rows)


def wait_for_parts(place: Place, process: subprocess.Popen[bytes], count: int) -> None:
    """Until so many parts are there, or it has come to its end."""
    end = deadline(120)
    while process.poll() is None and len(place.store.list(f"{place.pool}/_index/parts")) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_index_killed_again_and_again_equals_an_undisturbed_one_and_is_never_seen_half_done(minio):
    calm, killed = Place(minio, "calm"), Place(minio, "killed")
    assert calm.start().wait(WITHIN_S) == Exit.DONE
    rng, kills = random.Random(5), 0
    # by what is there, not by the clock: while it makes parts, and at moments of the publication after the last one
    for parts in (0, 1, 2, 4, 6, 8, 10, SHARDS, SHARDS, SHARDS):
        process = killed.start()
        wait_for_parts(killed, process, parts)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            break  # it came to its end: there is nothing left to kill
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        newest = published.latest(killed.store, killed.pool)
        assert newest is None or len(killed.content()) == SHARDS * ROWS, "whole or not at all"
    assert killed.start().wait(WITHIN_S) == Exit.DONE
    assert kills >= 3, "too few kills to tell anything"
    assert killed.content() == calm.content()


def test_parts_that_a_killed_run_finished_are_not_made_again(minio):
    place = Place(minio, "parts")
    process = place.start()
    parts: dict[str, str] = {}
    end = deadline(60)
    while len(parts) < 3:
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before it could be killed: use more shards"
        parts = {o.uri: o.etag for o in place.store.list(f"{place.pool}/_index/parts")}
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert place.start().wait(WITHIN_S) == Exit.DONE
    report = Pool(place.store, place.pool).report
    assert report.new_shards <= SHARDS - len(parts)
    after = {o.uri: o.etag for o in place.store.list(f"{place.pool}/_index/parts")}
    assert parts.items() <= after.items()


def test_a_stop_signal_publishes_nothing_and_says_so(minio):
    place = Place(minio, "stopped")
    process = place.start()
    end = deadline(60)
    while not place.store.list(f"{place.pool}/_index/parts"):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == Exit.STOPPED
    assert published.latest(place.store, place.pool) is None


def test_a_pool_is_searched_and_read_in_a_real_store(minio):
    place = Place(minio, "searched")
    assert place.start().wait(WITHIN_S) == Exit.DONE
    pool = Pool(place.store, place.pool)

    async def look(number: int) -> None:
        (hit,) = await pool.search(Query(f"number{number}"), 1)
        picture = await pool.load(hit)
        assert f"number{number} " in picture.origin.title
        if number % 50 < 25:  # of a Parquet shard: PNG, the very pixels
            assert pixel_digest(picture.image) == pixel_digest(pools.picture(number))

    for number in (3, 30, 77, 299):
        asyncio.run(look(number))
    assert len(asyncio.run(pool.search(Query(), 1000))) == SHARDS * ROWS


def test_a_range_of_an_object_is_read_and_a_missing_one_is_named(minio):
    store: Store = minio.store()
    bucket = minio.bucket("ranges")
    store.put(f"{bucket}/x", b"0123456789")
    assert store.get_range(f"{bucket}/x", 3, 4) == b"3456"
    with pytest.raises(Exception, match=r"x: .* at 8, expected 4|InvalidRange"):
        store.get_range(f"{bucket}/x", 8, 4)
