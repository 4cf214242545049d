"""Checkpoints up and down beside raw MinIO: `python -m tests.bench.training.bandwidth`.

Raw: PUT and GET over presigned addresses, eight at once, of the same files in pieces of the same size, from
and to disk, without a checksum. Ours: `checkpoints.upload` with the sha256 of every file, and `restore`, which verifies
them. In turns, each from a disk that has nothing left to write; the best of each, for other work on the machine only
ever takes away. With --gbit (as root, with iproute2) MinIO is behind a link of that speed, in a network of its own.
Without it both ends share a loopback and the cores, which no cluster has them do.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
_NET = "198.18.77"  # of the addresses for benchmarks (RFC 2544)


@contextmanager
def behind_link(folder: Path, gbit: float) -> Iterator[Minio]:
    """MinIO's end of a pair of interfaces, both of which send at most that much."""
    name = f"bench{os.getpid()}"
    here, there = f"{name}h"[-15:], f"{name}m"[-15:]
    within = ("ip", "netns", "exec", name)
    shaped = ("root", "tbf", "rate", f"{gbit}gbit", "burst", "4mb", "latency", "20ms")
    try:
        for command in (
            ("ip", "netns", "add", name),
            ("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name),
            ("ip", "addr", "add", f"{_NET}.1/30", "dev", here),
            ("ip", "link", "set", here, "up"),
            (*within, "ip", "addr", "add", f"{_NET}.2/30", "dev", there),
            (*within, "ip", "link", "set", there, "up"),
            (*within, "ip", "link", "set", "lo", "up"),
            ("tc", "qdisc", "add", "dev", here, *shaped),
            (*within, "tc", "qdisc", "add", "dev", there, *shaped),
        ):
            subprocess.run(command, check=True)
        yield Minio(folder, f"{_NET}.2", within)
    finally:
        subprocess.run(
            ("ip", "netns", "delete", name), check=False
        )  # its interface goes with it, and with that the pair


def raw(minio: Minio, files: list[Path], target: Path) -> tuple[float, float]:
    """Seconds up and down without any of our code."""
    client = minio.store()._client
    http = urllib3.PoolManager(maxsize=THREADS, retries=False, blocksize=CHUNK)

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
        for old in target.iterdir():
            old.unlink()
        os.sync()
        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, files))
        seconds.append(time.monotonic() - began)
    return seconds[0], seconds[1]


def ours(world: World, local: Path, attempt: int) -> tuple[float, float]:
    """Seconds up and down of a checkpoint."""
    launch = world.launch("bandwidth", attempt=attempt)
    place = Place(1, attempt)
    os.sync()
    began = time.monotonic()
    outputs = checkpoints.upload(world.store, launch, place, local)
    uploaded = time.monotonic()
    checkpoints.commit(world.store, launch, place, outputs)
    with tempfile.TemporaryDirectory(dir=local.parent) as target:
        os.sync()
        downloading = time.monotonic()
        assert checkpoints.restore(world.store, launch, Path(target)) == 1
        return uploaded - began, time.monotonic() - downloading


def main() -> None:
    """Print both in MB/s, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=128, help="of each file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gbit", type=float, help="speed of a link between the two")
    arguments = parser.parse_args()
    size = arguments.files * arguments.megabytes
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for part in ("data", "local", "raw"):
            (folder / part).mkdir()
        files = [folder / "local" / f"shard-{number}.pt" for number in range(arguments.files)]
        for path in files:
            path.write_bytes(os.urandom(arguments.megabytes * 1_000_000))
        data = folder / "data"
        minio = stack.enter_context(behind_link(data, arguments.gbit)) if arguments.gbit else Minio(data)
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
