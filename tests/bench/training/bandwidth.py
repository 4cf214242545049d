"""Checkpoints up and down beside raw MinIO: `python -m tests.bench.training.bandwidth`.

Raw: PUT and GET over presigned addresses with as many connections, from and to disk, without a checksum. Ours:
`checkpoints.upload` with the sha256 of every file, and `restore`, which verifies them. In turns; the best of each, for
other work on the machine only ever takes away.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import urllib3
from tests.cluster.own_minio import Minio
from tests.training.support import World

from dpe_api.launch import StoreAddress
from dpe_jobs.training import checkpoints
from dpe_jobs.training.checkpoints import Place

THREADS = 8
CHUNK = 1 << 20  # bytes


def raw(minio: Minio, files: list[Path], target: Path) -> tuple[float, float]:
    """Seconds up and down without any of our code."""
    client = minio.store()._client
    http = urllib3.PoolManager(maxsize=THREADS, retries=False)

    def up(path: Path) -> None:
        url = client.presigned_put_object("dpe", f"raw/{path.name}", timedelta(minutes=10))
        with path.open("rb") as body:
            response = http.request("PUT", url, body=body, headers={"Content-Length": str(path.stat().st_size)})
            assert response.status == 200, response.data

    def down(path: Path) -> None:
        url = client.presigned_get_object("dpe", f"raw/{path.name}", timedelta(minutes=10))
        response = http.request("GET", url, preload_content=False)
        with (target / path.name).open("wb") as out:
            for chunk in response.stream(CHUNK):
                out.write(chunk)
        response.release_conn()

    seconds = []
    for move in (up, down):
        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, files))
        seconds.append(time.monotonic() - began)
    return seconds[0], seconds[1]


def ours(world: World, local: Path, attempt: int) -> tuple[float, float]:
    """Seconds up and down of a checkpoint."""
    launch = world.launch("bandwidth", attempt=attempt)
    place = Place(1, attempt)
    began = time.monotonic()
    outputs = checkpoints.upload(world.store, launch, place, local)
    uploaded = time.monotonic()
    checkpoints.commit(world.store, launch, place, outputs)
    with tempfile.TemporaryDirectory(dir=local.parent) as target:
        downloading = time.monotonic()
        assert checkpoints.restore(world.store, launch, Path(target)) == 1
        return uploaded - began, time.monotonic() - downloading


def main() -> None:
    """Print both in MB/s, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=128, help="of each file")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    size = arguments.files * arguments.megabytes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("data", "local", "raw"):
            (folder / part).mkdir()
        files = [folder / "local" / f"shard-{number}.pt" for number in range(arguments.files)]
        for path in files:
            path.write_bytes(os.urandom(arguments.megabytes * 1_000_000))
        minio = Minio(folder / "data")
        minio.start()
        minio.bucket("dpe")
        world = World(minio.store(), StoreAddress(endpoint=f"http://{minio.address}"), folder)
        try:
            world.store.put("s3://dpe/ready", b"")  # a starting server refuses a while
            theirs, mine = [], []
            for run in range(arguments.runs):
                theirs.append(raw(minio, files, folder / "raw"))
                mine.append(ours(world, folder / "local", run))
        finally:
            minio.stop()
    for way, number in (("up", 0), ("down", 1)):
        best, own = min(t[number] for t in theirs), min(t[number] for t in mine)
        print(f"{way}: raw {size / best:.0f} MB/s, ours {size / own:.0f} MB/s, ratio {best / own:.2f}")


if __name__ == "__main__":
    main()
