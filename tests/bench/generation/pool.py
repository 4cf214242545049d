"""How fast a pool of real images is indexed and searched, and in how much memory.

    python tests/bench/generation/pool.py --images 24000

The images are the handwritten digits of tests/pictures, those of easy-vqa, and parts of three photographs, the third
from matplotlib, each part another one; half of the shards are Parquet, half WebDataset. They lie in a MinIO of its own
on this machine. Index and searches are processes of their own, whose peak memory is told. With --vectors 384 texts
have vectors of so many dimensions, of a server on this machine that counts words: it takes the place of a model, whose
own time is not in the figures.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import easy_vqa
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests import pictures
from tests.cluster.own_minio import Minio
from tests.fakes.openai_images import serving

from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient
from dpe_jobs.generation.pool import Pool, Query
from dpe_jobs.generation.pool.describe import _NAMED
from dpe_jobs.generation.pool.embed import QueryEmbedder
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import IMAGE_TYPE
from dpe_jobs.store import Store

SHARD = 1500  # images
MODEL = "counted-words"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Row = dict[str, Any]


def digits() -> Iterator[Row]:
    """1,797 scans of 8x8 pixels, enlarged."""
    for pixels, digit in zip(*pictures.digits(), strict=True):
        image = Image.fromarray(255 - pixels).resize((64, 64), Image.Resampling.BICUBIC)
        yield {"image": encoded(image.convert("RGB"), "PNG"), "caption": f"handwritten digit {NAMES[digit]}"}


def shapes() -> Iterator[Row]:
    """5,000 images of one shape; nothing is said about them."""
    for folder in sorted(Path(str(files(easy_vqa) / "data")).glob("*/images")):
        for path in sorted(folder.glob("*.png"), key=lambda p: int(p.stem)):
            yield {"image": path.read_bytes(), "caption": ""}


def photographs(count: int) -> Iterator[Row]:
    """Different parts of three photographs."""
    whole = dict(pictures.photographs())
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    whole["portrait of grace hopper"] = Image.open(portrait).convert("RGB")
    rng = random.Random(0)
    for number in range(count):
        name = rng.choice(list(whole))
        image, side = whole[name], rng.randint(96, 320)
        x, y = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
        part = image.crop((x, y, x + side, y + side))
        yield {"image": encoded(part, "JPEG"), "caption": f"part {number} of a photograph, {name}, {side} pixels"}


def encoded(image: Image.Image, kind: str) -> bytes:
    """An image file."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def fill(store: Store, pool: str, count: int, scratch: Path) -> int:
    """Upload the shards; returns their bytes."""
    rows: list[Row] = [*digits(), *shapes()]
    rows += photographs(max(0, count - len(rows)))
    random.Random(1).shuffle(rows)
    total = 0
    for number in range(0, len(rows), SHARD):
        write = parquet if number // SHARD % 2 else tar
        path = write(scratch / f"{number // SHARD:04d}", rows[number : number + SHARD])
        total += path.stat().st_size
        store.upload(path, f"{pool}/{path.name}")
        path.unlink()
    return total


def parquet(path: Path, rows: list[Row]) -> Path:
    """As `datasets` writes them, 100 rows in a group."""
    schema = pa.schema([("image", IMAGE_TYPE), ("caption", pa.string()), ("licence", pa.string())])
    cells = [{**r, "image": {"bytes": r["image"], "path": None}, "licence": "CC0-1.0"} for r in rows]
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(cells, schema=schema), path, row_group_size=100)
    return path


def tar(path: Path, rows: list[Row]) -> Path:
    """WebDataset."""
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for number, row in enumerate(rows):
            kind = "png" if row["image"].startswith(b"\x89PNG") else "jpg"
            for name, data in ((kind, row["image"]), ("txt", row["caption"].encode())):
                info = tarfile.TarInfo(f"{number:06d}.{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def queries(count: int) -> Iterator[Query]:
    """No two alike: words of captions, colours, both, facets, likeness, and nothing at all."""
    rng = random.Random(2)
    subjects = ["temple in china", "dahlia flower", "portrait", "photograph", *(f"digit {name}" for name in NAMES)]
    likenesses = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in photographs(count // 5)]
    for number in range(count):
        color, subject = rng.choice(list(_NAMED)), rng.choice(subjects)
        words = f"part {rng.randint(0, 9999)}"
        yield (
            Query(f"{subject} {words}"),
            Query(f"{color} {rng.choice(('dark', 'bright', 'plain', 'grayscale'))} {words}"),
            Query(f"{color} {subject} {words}"),
            Query(subject, facets={"color": color, "size": words}),
            Query(subject if number % 2 else "", like=likenesses[number // 5 % len(likenesses)]),
        )[number % 5]


def percentiles(times: list[float]) -> str:
    """In milliseconds."""
    p50, p95, p99 = np.percentile(np.array(times) * 1000, [50, 95, 99])
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, longest {max(times) * 1000:.1f} ms"


async def search(store: Store, pool_uri: str, count: int, embedder: str | None) -> None:
    """Time searches for 32 images, and reading the first of them; `embedder` is the address of who embeds queries."""
    async with AsyncExitStack() as stack:
        started = time.perf_counter()
        pool = Pool(store, pool_uri)
        if embedder is not None:
            client = await stack.enter_async_context(ModelClient.of(Endpoint(name="words", url=embedder, model=MODEL)))
            ledger = stack.enter_context(Ledger(store, f"{pool_uri}-ledger"))
            pool.embed_by(QueryEmbedder("words", client, ledger))
        await measure(pool, started, count)


async def measure(pool: Pool, started: float, count: int) -> None:
    """Print the times."""
    print(f"opening: {(time.perf_counter() - started) * 1000:.0f} ms; {pool.report.images} images")

    async def timed(times: list[float], work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = await work()
        times.append(time.perf_counter() - began)
        return found

    searches: list[float] = []
    loads: list[float] = []
    empty = 0
    for number, query in enumerate(queries(count)):
        hits = await timed(searches, partial(pool.search, query, 32, seed=number))
        empty += not hits
        if hits:
            await timed(loads, partial(pool.load, hits[0]))
    print(
        f"first search: {searches[0] * 1000:.0f} ms; then {count - 1}: {percentiles(searches[1:])}; {empty} found none"
    )
    print(f"reading one image: {percentiles(loads)}")
    deep: list[float] = []
    hits = await timed(deep, lambda: pool.search(Query("photograph"), 10_000))
    print(f"the {len(hits)} best of one query: {deep[0]:.2f} s")
    print(f"peak memory of the searching process: {peak_mib('self')} MiB")


def peak_mib(process: int | str) -> int:
    """Largest resident set of a process so far; ru_maxrss would begin with that of the one that forked it."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) >> 10


def index(command: list[str]) -> int:
    """Run it; returns its peak memory, MiB."""
    peak = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # it has just ended
                peak = max(peak, peak_mib(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return peak


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--vectors", type=int, default=0, metavar="D", help="dimensions; 0: words alone")
    parser.add_argument("--search", metavar="POOL", help=argparse.SUPPRESS)
    parser.add_argument("--embedder", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.search:
        from dpe_jobs.importing.cli import connect

        asyncio.run(search(connect("us-east-1"), given.search, given.queries, given.embedder))
        return 0
    with tempfile.TemporaryDirectory() as folder, serving(lambda asked: asked.image) as words:
        words.dimensions = given.vectors
        embedder = f"{words.url}/v1"
        minio = Minio(Path(folder) / "minio")
        minio.data.mkdir()
        minio.start()
        try:
            pool = f"{minio.bucket('bench')}/pool"
            size = fill(minio.store(), pool, given.images, Path(folder))
            print(f"{given.images} images in {size / 1e6:.0f} MB of shards")
            os.environ |= {
                "DPE_S3_ENDPOINT": f"http://{minio.address}",
                "DPE_S3_ACCESS_KEY": minio.key,
                "DPE_S3_SECRET_KEY": minio.secret,
            }
            report = Path(folder) / "report.json"
            began = time.perf_counter()
            command = [sys.executable, "-m", "dpe_jobs", "index", pool, "--report", str(report)]
            command += ["--embed-url", embedder, "--embed-model", MODEL] if given.vectors else []
            peak = index(command)
            seconds = time.perf_counter() - began
            found = json.loads(report.read_text())
            print(f"indexing: {seconds:.1f} s, {found['rows'] / seconds:.0f} images/s, start included")
            print(f"peak memory of the indexing process: {peak} MiB")
            listed = minio.store().list(f"{pool}/_index")
            print(f"index: {sum(o.size for o in listed if '/parts/' not in o.uri) / 1e6:.1f} MB, parts "
                  f"{sum(o.size for o in listed if '/parts/' in o.uri) / 1e6:.1f} MB")  # fmt: skip
            began = time.perf_counter()
            subprocess.run(command, check=True)
            print(f"indexing again, nothing new: {time.perf_counter() - began:.1f} s")
            script = [sys.executable, __file__, "--search", pool, "--queries", str(given.queries)]
            subprocess.run(script + (["--embedder", embedder] if given.vectors else []), check=True)
        finally:
            minio.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
