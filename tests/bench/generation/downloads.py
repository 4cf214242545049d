"""What safety costs: images by the downloader and by plain httpx, from the same server in the same run.

    python -m tests.bench.generation.downloads [IMAGES]

Both take turns, so that a busy machine slows both alike; processor time is told beside the rate. The server is another
process on this machine; distances between requests are switched off, for they would be all that is measured. What
decoding takes is told, too.
"""

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import httpx
from tests.fakes.image_files import file, photo
from tests.fakes.web import Answer, site

from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.fetching.manners import Manners

AT_ONCE = 16
TURNS = 5
SIZE = (1280, 853)


def serve(told: Connection, data: bytes) -> None:
    """A website with one image, until it is told to stop."""
    with site({"/robots.txt": Answer(b"User-agent: *\nDisallow: /private/"), "/a.jpg": Answer(data)}) as web:
        told.send(web.url)
        told.recv()


async def rate(get: Callable[[], Awaitable[bytes]], images: int, expected: bytes) -> tuple[float, float]:
    """Images a second, AT_ONCE of them at a time, and this process's milliseconds of processor for each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            assert await get() == expected

    begin, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(images)))
    return images / (time.perf_counter() - begin), (time.process_time() - worked) * 1000 / images


async def compare(url: str, data: bytes, images: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """What both did, turn by turn."""
    manners = Manners(at_once=AT_ONCE, interval_s=0.0)
    async with (
        Downloader("dpe-bench/1", allowed=Allowed.of(["127.0.0.2"]), manners=manners, at_once=AT_ONCE) as safe,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE), trust_env=False) as plain,
    ):

        async def safely() -> bytes:
            return (await safe.get(url)).data

        async def plainly() -> bytes:
            return (await plain.get(url)).content

        await rate(safely, AT_ONCE, data), await rate(plainly, AT_ONCE, data)  # connections
        return [(await rate(safely, images, data), await rate(plainly, images, data)) for _ in range(TURNS)]


def main() -> None:
    """Print the rates."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    data = file(photo(128, 85).resize(SIZE), quality=95)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, data))
    server.start()
    try:
        turns = asyncio.run(compare(f"{here.recv()}/a.jpg", data, images))
    finally:
        here.send("stop")
        server.join()
    begin = time.process_time()
    for _ in range(50):
        decode(data, 40_000_000)
    each_ms = (time.process_time() - begin) * 1000 / 50
    print(f"{images} images of {len(data) / 1024:.0f} KiB, {AT_ONCE} at once; medians (ranges) of {TURNS} turns")
    for place, what in enumerate(("images/s", "processor, ms each")):
        safe, plain = [a[place] for a, _ in turns], [b[place] for _, b in turns]
        ratio = [a / b for a, b in zip(safe, plain, strict=True)]
        told = (f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in (safe, plain, ratio))
        print("  {}: downloader {}, plain httpx {}, ratio {}".format(what, *told))
    print(f"  decoding {SIZE[0]}x{SIZE[1]}: {each_ms:.1f} ms of one core")


if __name__ == "__main__":
    main()
