"""vLLM on one GPU under the stage's wrapper: ready means that it answered a question about an image."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.training.support import BASE, REPOSITORY, World, wait_for

from dpe_api.launch import ServingLaunch
from dpe_api.names import METRICS_PORT, MODEL_DIR, SERVING_PORT, Exit, Stage
from dpe_jobs.client import Answers, ModelClient

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def model_folder() -> Iterator[None]:
    """The base model where the init container puts it. Only on a machine that has no such folder of its own."""
    folder = Path(MODEL_DIR)
    assert not folder.exists(), f"{folder} is there already: run this test in a container of its own"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(BASE)
    yield
    folder.unlink()


def _ready() -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/ready", timeout=3).status == 200
    except (urllib.error.URLError, OSError):
        return False


QUESTIONS, ROLLOUTS = 200, 9


async def _ask_all() -> float:
    """Seconds for all questions about one picture, asked at once."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(picture, "PNG")
    async with ModelClient(f"http://127.0.0.1:{SERVING_PORT}", concurrency=64) as client:

        async def ask(seed: int) -> Answers:
            return await client.ask(
                picture.getvalue(), "what color is the shape?", n=ROLLOUTS, temperature=1.0, max_tokens=4, seed=seed
            )

        begun = time.monotonic()
        answers = await asyncio.gather(*(ask(seed) for seed in range(QUESTIONS)))
        assert all(len(one.texts) == ROLLOUTS for one in answers)
        return time.monotonic() - begun


def _start(launch: ServingLaunch, folder: Path) -> subprocess.Popen[bytes]:
    """The stage, with its termination message in a folder of ours."""
    file = folder / "launch.json"
    file.write_text(json.dumps(launch.wire()))
    code = f"""
from dpe_api.launch import read_launch
from dpe_jobs import runtime
from dpe_jobs.serving.run import main
runtime.TERMINATION_PATH = {str(folder / "termination")!r}
raise SystemExit(main(read_launch({str(file)!r})))
"""
    paths = [*map(str, (REPOSITORY / "crds", REPOSITORY / "jobs")), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with (folder / "output.log").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log, stderr=subprocess.STDOUT)


def test_serves_images_on_cuda_and_stops_when_told(world: World, model_folder: None, tmp_path: Path) -> None:
    base = world.launch("gpu-serving")
    launch = ServingLaunch(
        **base.model_dump(include={"iteration", "attempt", "seed", "store", "output"}),
        stage=Stage.SERVE_BASE,
        model_uri=world.model_uri,
        max_model_len=1024,
        tensor_parallel_size=1,
        extra_args=["--dtype", "bfloat16", "--enforce-eager", "--gpu-memory-utilization", "0.3"],
    )
    started = time.monotonic()
    server = _start(launch, tmp_path)
    try:
        wait_for("vLLM answers", lambda: _ready() or server.poll() is not None, 240)
        assert server.poll() is None, (tmp_path / "output.log").read_text()[-6000:]
        print(f"ready after {time.monotonic() - started:.1f} s")
        print(f"{QUESTIONS} questions with n={ROLLOUTS} in {asyncio.run(_ask_all()):.1f} s")
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == Exit.STOPPED
    finally:
        server.kill()
        server.wait()
