"""How busy generation keeps a slow server: `python -m tests.bench.generation.throughput`. It takes some minutes.

The stage as a process, a real MinIO, and a server of known latency (p50 1 s, p99 8 s) that fails 1% of requests. Then
the same candidates by a loop of asyncio.gather: drawn, asked about and forgotten, without ledger, checks or files.
With --distilabel and the Python of an environment that has distilabel, requests and pillow (it is no requirement of the
project), some of the same questions, drawn before, by a pipeline of its own.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
from tests.bench.diagnosis.throughput import REPOSITORY, flatness, free_port, start, watch
from tests.cluster.own_minio import Minio
from tests.fakes import entry_points
from tests.unit.generation import world

from dpe_api.generation_spec import SolverFilter
from dpe_api.launch import GenerationLaunch, StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY
from dpe_jobs.chat import messages
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.writer import ask

CATEGORIES = ("color", "color_fine", "shape", "shape_ref", "exist_color")
EVERYTHING = SolverFilter(rollouts=9, min_pass_rate=0.0, max_pass_rate=1.0)


def launched(url: str, minio: Minio, targets: int, concurrency: int) -> GenerationLaunch:
    """The stage: as many targets as candidates, for the server's answers say nothing about difficulty."""
    generation = {"target_samples": targets, "max_candidates": 2 * targets, "filter": EVERYTHING}
    return world.launch(
        url, store=StoreAddress(endpoint=f"http://{minio.address}"), concurrency=concurrency, generation=generation
    )


def question(program: Shapes, number: int) -> tuple[bytes, str]:
    """A picture and what is asked about it."""
    category, rng = CATEGORIES[number % len(CATEGORIES)], random.Random(number)
    knobs = choose_knobs(program.knobs(category), number, 1)
    drawn = program.draw(knobs, rng)
    return world.png(drawn.image), ask(program, category, knobs, drawn, rng).question


async def gathered(url: str, targets: int, concurrency: int) -> None:
    """The plain loop."""
    program, gate = Shapes(), asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def one(number: int) -> None:
            async with gate:
                asked = messages(*question(program, number))
                body: dict[str, Any] = {"model": "model", "messages": asked, "n": 9, "temperature": 1.0}
                while (await client.post("/v1/chat/completions", json=body)).status_code != 200:
                    pass

        await asyncio.gather(*(one(number) for number in range(targets)))


def distilled(python: str, url: str, questions: int, concurrency: int, folder: Path) -> dict[str, float]:
    """What the server saw of a pipeline of distilabel."""
    path, program = folder / "questions.jsonl", Shapes()
    with path.open("w", encoding="utf-8") as lines:
        for number in range(questions):
            image, text = question(program, number)
            row = {"instruction": f"{text} ({number})", "image": base64.b64encode(image).decode()}
            lines.write(json.dumps(row) + "\n")
    script = Path(__file__).with_name("distilabel_pipeline.py")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [python, str(script), url, str(path), str(concurrency)],
        env={**env, "DISTILABEL_LOG_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "HOME": str(folder)},
        cwd=folder,
        check=True,
    )
    figures: dict[str, float] = urllib3.request("GET", f"{url}/figures").json()
    return figures


def report(name: str, figures: dict[str, float], concurrency: int) -> None:
    """What the server saw."""
    print(json.dumps(figures, indent=1))
    print(f"{name}: {figures['requests']:.0f} requests in {figures['seconds']:.1f} s")
    print(f"{name}: busy {figures['mean_in_flight'] / concurrency:.1%}, the last replies included")
    print(f"{name}: busy {figures['mean_in_flight_before_the_end'] / concurrency:.1%}, until the last request was sent")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--distilabel", metavar="PYTHON", help="compare with it, too")
    parser.add_argument("--distilabel-targets", type=int, default=1000, metavar="N")
    parser.add_argument("--p50", default="1", help="seconds: the server's median latency")
    parser.add_argument("--p99", default="8", help="seconds")
    options = parser.parse_args()
    latency = ["--p50", options.p50, "--p99", options.p99]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        entry_points.install(folder, patch)
        minio = Minio(folder / "minio")
        minio.start()
        paths = [folder / "site", *(REPOSITORY / p for p in ("crds", "jobs", "."))]
        keys = {ENV_ACCESS_KEY: minio.key, ENV_SECRET_KEY: minio.secret}
        env = {**os.environ, **keys, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        servers = []
        try:
            minio.bucket("dpe")
            patch.setattr(world, "STRONG", set())
            world.fill(minio.store(), dict.fromkeys(CATEGORIES, options.targets // len(CATEGORIES)))
            urls = []
            for _ in range(3):
                port = free_port()
                command = ["tests.bench.diagnosis.slow_server", str(port), *latency]
                servers.append(start(command, env, folder / f"{port}.log"))
                urls.append(f"http://127.0.0.1:{port}")
            launch = launched(urls[0], minio, options.targets, options.concurrency)
            (folder / "launch.json").write_text(launch.model_dump_json(by_alias=True))
            stage = start(["tests.fakes.stage_process", str(folder / "launch.json")], env, folder / "stage.log")
            ours, memory = watch(stage, urls[0], folder / "stage.log")
            manifest = minio.store().manifest(world.OUT)
            began = time.monotonic()
            asyncio.run(gathered(urls[1], options.targets, options.concurrency))
            plain = urllib3.request("GET", f"{urls[1]}/figures").json()
            plain["wall"] = time.monotonic() - began
            compared = {"asyncio.gather": plain}
            if options.distilabel:
                asked = (options.distilabel, urls[2], options.distilabel_targets, options.concurrency, folder)
                compared["distilabel"] = distilled(*asked)
        finally:
            for server in servers:
                server.kill()
                server.wait()
            minio.stop()
    report("stage", ours, options.concurrency)
    print(f"memory of the stage in fifths of the time, MiB: {flatness(memory, ours['seconds'])}")
    print(f"summary: {manifest.summary if manifest else None}")
    ours_rate = ours["requests"] / ours["seconds"]
    for who, figures in compared.items():
        report(who, figures, options.concurrency)
        rate = figures["requests"] / figures["seconds"]
        print(f"requests/s: stage {ours_rate:.1f}, {who} {rate:.1f}, ratio {ours_rate / rate:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
