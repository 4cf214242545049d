"""Our step beside a plain TRL script's, and what a checkpoint costs a step: `python -m tests.bench.training.step_time`.

Both train the example's model on the same samples with the same settings, one rank each, in turns on the same machine,
and keep no checkpoints on the way. A third run keeps one every few steps: its stall is the time from one step's log to
the next one's where a checkpoint lies between, less where none does, and what its upload takes from the steps beside it
shows in their time. Medians of all runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tests.cluster.own_minio import Minio
from tests.training.support import BASE, REPOSITORY, World, draw_samples, free_port

from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY

SAMPLES = 64
EVERY = 4  # steps between checkpoints
NEVER = 10_000


def ours(world: World, launch: TrainingLaunch) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each step after the first; and from log to log, with and without a checkpoint between."""
    (pod,) = world.start(launch)
    if pod.wait(600) != 0:
        raise SystemExit(pod.output())
    rows = [json.loads(line) for line in (pod.work / "metrics.jsonl").read_text().splitlines()]
    logged: dict[int, datetime] = {}
    for line in pod.output().splitlines():
        if line.startswith("{") and '"message": "step ' in line:
            entry = json.loads(line)
            logged[int(entry["message"].split()[1])] = datetime.fromisoformat(entry["time"])
    with_one: list[float] = []
    without: list[float] = []
    for (step, at), (_, then) in pairwise(sorted(logged.items())):
        (with_one if step == 1 or step % EVERY == 0 else without).append((then - at).total_seconds())
    return [row["seconds"] for row in rows[1:]], with_one[1:], without  # the first save compiles and imports


def plain(world: World, launch: TrainingLaunch, folder: Path) -> list[float]:
    """Seconds of each step after the first of the plain script."""
    folder.mkdir()
    draw_samples(folder / "samples.parquet", SAMPLES)
    (folder / "launch.json").write_text(json.dumps(launch.wire()))
    script = Path(__file__).with_name("plain_trl.py")
    sources = os.pathsep.join(map(str, (REPOSITORY / "crds", REPOSITORY / "jobs")))
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", f"--master-port={free_port()}"),
            *(
                str(script),
                str(folder / "launch.json"),
                str(BASE),
                str(folder / "samples.parquet"),
                str(folder / "out.json"),
            ),
        ],
        env={**os.environ, "PYTHONPATH": sources, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [float(s) for s in json.loads((folder / "out.json").read_text())][1:]


def main() -> None:
    """Print both in seconds, their ratio, and the stall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "pods").mkdir()
        minio = Minio(folder / "data")
        minio.start()
        minio.bucket("dpe")
        keys = {ENV_ACCESS_KEY: minio.key, ENV_SECRET_KEY: minio.secret}
        address = StoreAddress(endpoint=f"http://{minio.address}")
        world = World(minio.store(), address, folder / "pods", credentials=keys)
        try:
            world.fill(SAMPLES)
            mine: list[float] = []
            theirs: list[float] = []
            saving: list[float] = []
            with_one: list[float] = []
            without: list[float] = []
            for run in range(arguments.runs):
                settings = {"max_steps": arguments.steps, "prompts_per_step": 16, "rollouts_per_prompt": 8}
                launch = world.launch(f"bench-{run}", checkpoint_every_steps=NEVER, **settings)
                mine += ours(world, launch)[0]
                theirs += plain(world, launch, folder / f"plain-{run}")
                saves = world.launch(f"saves-{run}", checkpoint_every_steps=EVERY, **settings)
                seconds, saved, unsaved = ours(world, saves)
                saving += seconds
                with_one += saved
                without += unsaved
        finally:
            minio.stop()
    print(f"{arguments.runs} runs of {arguments.steps} steps of 128 completions, one rank; medians")
    for name, seconds in (("ours", mine), ("plain TRL", theirs), (f"ours, saving every {EVERY} steps", saving)):
        low, median, high = statistics.quantiles(seconds, n=4)
        print(f"{name}: {median:.3f} s a step, quartiles {low:.3f} and {high:.3f}")
    print(f"ratio {statistics.median(mine) / statistics.median(theirs):.3f}")
    stall = statistics.median(with_one) - statistics.median(without)
    print(f"a checkpoint holds the ranks up for {stall:.3f} s, {stall / EVERY:.3f} s a step at one in {EVERY} steps")


if __name__ == "__main__":
    main()
