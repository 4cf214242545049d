"""How busy the diagnosis keeps a slow server: `python -m tests.bench.diagnosis.throughput`. It takes some minutes.

The stage as a process, a real MinIO, and a server with latencies of p50 1 s and p99 8 s that fails 1% of requests.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import urllib3
from tests.cluster.own_minio import Minio
from tests.fakes import entry_points, worlds

from dpe_api.diagnosis_spec import Diagnosis, Probe
from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY

REPOSITORY = Path(__file__).parents[3]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


def start(command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A Python process of this checkout."""
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", *command], env=env, cwd=REPOSITORY, stderr=out)


def watch(process: subprocess.Popen[bytes], url: str, log: Path) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """What the server saw when the stage is done; seconds since the start and MiB of the stage, by the second."""
    memory, began, seen = [], time.monotonic(), psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory.append((time.monotonic() - began, seen.memory_info().rss / 2**20))
        except psutil.NoSuchProcess:
            break
        time.sleep(1)
    if process.wait() != 0:
        raise RuntimeError(f"the stage failed: {log.read_text()[-2000:]}")
    figures: dict[str, float] = urllib3.request("GET", f"{url}/figures").json()
    return figures, memory


def flatness(memory: list[tuple[float, float]], seconds: float) -> str:
    """Mean MiB in fifths of the time that was spent asking."""
    begin = memory[-1][0] - seconds
    fifths = [begin + seconds * i / 5 for i in range(6)]
    parts = [[m for t, m in memory if low <= t < high] for low, high in pairwise(fifths)]
    return ", ".join(f"{sum(p) / len(p):.0f}" for p in parts if p)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rollouts", type=int, default=9, help="0: greedy answers only, as of a benchmark")
    parser.add_argument("--adaptive", type=float, default=0.0, help="spec.probe.adaptiveShare")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        entry_points.install(folder, patch)
        minio = Minio(folder / "minio")
        minio.start()
        port = free_port()
        paths = [folder / "site", *(REPOSITORY / p for p in ("crds", "jobs", "."))]
        keys = {ENV_ACCESS_KEY: minio.key, ENV_SECRET_KEY: minio.secret}
        env = {**os.environ, **keys, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        server = start(["tests.bench.diagnosis.slow_server", str(port)], env, folder / "server.log")
        try:
            root, store = minio.bucket("bench"), minio.store()
            asked = worlds.questions(-(-options.items // 3))[: options.items]
            greedy = options.rollouts == 0
            worlds.upload(store, f"{root}/items", asked)
            worlds.upload(store, f"{root}/one", asked[:1])
            store.put(f"{root}/base/model.safetensors", b"base")
            launch = worlds.diagnosis(
                f"http://127.0.0.1:{port}",
                uri=f"{root}/base",
                output=f"{root}/diagnosis",
                store=StoreAddress(endpoint=f"http://{minio.address}"),
                probe=Probe(
                    uri=f"{root}/{'one' if greedy else 'items'}",
                    sample_size=options.items,
                    adaptive_share=options.adaptive,
                ),
                benchmarks=[{"name": "items", "uri": f"{root}/items"}] if greedy else [],
                diagnosis=Diagnosis(rollouts_per_item=max(options.rollouts, 1), concurrency=options.concurrency),
            )
            (folder / "launch.json").write_text(launch.model_dump_json(by_alias=True))
            stage = start(["tests.fakes.stage_process", str(folder / "launch.json")], env, folder / "stage.log")
            began = time.monotonic()
            figures, memory = watch(stage, f"http://127.0.0.1:{port}", folder / "stage.log")
            store.download(f"{root}/diagnosis/items.parquet", folder / "items.parquet")
            lost = sum(r is None for r in pq.read_table(folder / "items.parquet")["response"].to_pylist())
        finally:
            server.kill()
            server.wait()
            minio.stop()
    print(json.dumps(figures, indent=1))
    print(f"stage {time.monotonic() - began:.0f} s, {lost} items without an answer")
    print(f"busy {figures['mean_in_flight'] / options.concurrency:.1%}, the last replies included")
    print(f"busy {figures['mean_in_flight_before_the_end'] / options.concurrency:.1%}, until the last request was sent")
    print(f"memory of the stage in fifths of the time, MiB: {flatness(memory, figures['seconds'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
