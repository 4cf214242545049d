"""vLLM on one GPU under the stage's wrapper: ready means that it answered a question about an image."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from PIL import Image, ImageDraw
from tests.training.support import BASE, COLORS, REPOSITORY, World, wait_for
from transformers import AutoModelForImageTextToText, AutoProcessor

from dpe_api.launch import ServingLaunch
from dpe_api.names import METRICS_PORT, MODEL_DIR, SERVED_MODEL_NAME, SERVING_PORT, Exit, Stage
from dpe_jobs.chat import messages
from dpe_jobs.client import Answers, ModelClient

pytestmark = pytest.mark.timeout(300)

QUESTION = "what color is the shape?"
QUESTIONS, ROLLOUTS = 200, 9  # asked at once; as a diagnosis asks
CONCURRENCY, LONG_ANSWERS, LONG = 32, 256, 128  # of the throughput: requests in flight, requests, tokens of each
PROBABILITY = 0.05  # how far bf16 may be from fp32


@dataclass(frozen=True)
class Serving:
    """The stage as a process."""

    process: subprocess.Popen[bytes]
    folder: Path
    seconds: float
    """From its start until it was ready."""

    def reason(self) -> str:
        """Reason in its termination message."""
        return str(json.loads((self.folder / "termination").read_text())["reason"])

    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output.log").read_text()


def _ready() -> int:
    """HTTP status of the readiness probe; 0 while nobody listens."""
    try:
        return int(urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/ready", timeout=3).status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextlib.contextmanager
def serving(world: World, model: Path, folder: Path, *extra_args: str) -> Iterator[Serving]:
    """The stage, ready, with the model where the init container puts it and its termination message in `folder`."""
    place = Path(MODEL_DIR)
    assert not place.exists(), f"{place} is there already: run this test in a container of its own"
    base = world.launch("gpu-serving")
    launch = ServingLaunch(
        **base.model_dump(include={"iteration", "attempt", "seed", "store", "output"}),
        stage=Stage.SERVE_BASE,
        model_uri=world.model_uri,
        max_model_len=1024,
        tensor_parallel_size=1,
        extra_args=["--dtype", "bfloat16", *extra_args],
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(model)
    started = time.monotonic()
    process = _start(launch, folder)
    try:
        wait_for("vLLM answers", lambda: _ready() == 200 or process.poll() is not None, 280)
        it = Serving(process, folder, time.monotonic() - started)
        assert process.poll() is None, it.output()[-6000:]
        yield it
    finally:
        process.terminate()  # and vLLM with it, which SIGKILL would leave behind
        try:
            process.wait(40)
        finally:
            process.kill()
            place.unlink()


def _start(launch: ServingLaunch, folder: Path) -> subprocess.Popen[bytes]:
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


def _picture(color: tuple[int, int, int], side: int = 64) -> Image.Image:
    picture = Image.new("RGB", (side, side), (240, 240, 240))
    ImageDraw.Draw(picture).rectangle((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=color)
    return picture


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _first_token(picture: Image.Image) -> dict[int, float]:
    """Log-probs that the server gives the likeliest first tokens of its answer, by token."""
    body = {
        "model": SERVED_MODEL_NAME,
        "messages": messages(_png(picture), QUESTION),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 10,
        "return_tokens_as_token_ids": True,
    }
    reply = httpx.post(f"http://127.0.0.1:{SERVING_PORT}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    (token,) = reply.json()["choices"][0]["logprobs"]["content"]
    return {int(one["token"].removeprefix("token_id:")): one["logprob"] for one in token["top_logprobs"]}


def _reference(pictures: Sequence[Image.Image]) -> Iterator[torch.Tensor]:
    """Probabilities (vocabulary,) of the same token from transformers, in fp32 on the CPU, for each picture."""
    processor: Any = AutoProcessor.from_pretrained(BASE)
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32).eval()
    for picture in pictures:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            yield model(**inputs).logits[0, -1].softmax(-1)


async def _ask_all() -> float:
    """Seconds for all questions about one picture, asked at once."""
    async with ModelClient(f"http://127.0.0.1:{SERVING_PORT}", concurrency=64) as client:
        picture = _png(_picture(COLORS["teal"]))

        async def ask(seed: int) -> Answers:
            return await client.ask(picture, QUESTION, n=ROLLOUTS, temperature=1.0, max_tokens=4, seed=seed)

        begun = time.monotonic()
        answers = await asyncio.gather(*(ask(seed) for seed in range(QUESTIONS)))
        assert all(len(one.texts) == ROLLOUTS for one in answers)
        return time.monotonic() - begun


async def _throughput(side: int) -> str:
    """Long answers about pictures that all differ, so that no cache of prefixes or images helps."""
    gate = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{SERVING_PORT}/v1", timeout=120) as http:

        async def ask(number: int) -> int:
            picture = _png(_picture((number % 256, 7 * number % 256, number // 256), side))
            body = {
                "model": SERVED_MODEL_NAME,
                "messages": messages(picture, QUESTION),
                "max_tokens": LONG,
                "temperature": 1.0,
                "ignore_eos": True,
            }
            async with gate:
                reply = await http.post("/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            return int(reply.json()["usage"]["completion_tokens"])

        await asyncio.gather(*(ask(1000 + number) for number in range(CONCURRENCY)))  # every batch size once
        begun = time.monotonic()
        spent = sum(await asyncio.gather(*(ask(number) for number in range(LONG_ANSWERS))))
        seconds = time.monotonic() - begun
    assert spent == LONG_ANSWERS * LONG
    return f"{spent / seconds:.0f} tokens/s, {LONG_ANSWERS / seconds:.1f} pictures/s at concurrency {CONCURRENCY}"


def test_what_it_serves_on_cuda_is_what_the_model_says_and_it_stops_when_told(world: World, tmp_path: Path) -> None:
    with serving(world, BASE, tmp_path, "--gpu-memory-utilization", "0.3") as server:
        print(f"ready after {server.seconds:.1f} s")
        pictures = [_picture(color) for color in COLORS.values()]
        differences = [
            abs(float(torch.tensor(logp).exp() - reference[token]))
            for picture, reference in zip(pictures, _reference(pictures), strict=True)
            for token, logp in _first_token(picture).items()
        ]
        print(f"furthest from transformers: a probability by {max(differences):.4f}")
        assert max(differences) < PROBABILITY
        print(f"{QUESTIONS} questions with n={ROLLOUTS} in {asyncio.run(_ask_all()):.1f} s")
        print(asyncio.run(_throughput(64)))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == Exit.STOPPED
    assert _ready() == 0


def test_an_engine_that_dies_on_the_gpu_ends_the_stage_as_something_to_try_again(world: World, tmp_path: Path) -> None:
    with serving(world, BASE, tmp_path, "--gpu-memory-utilization", "0.3", "--enforce-eager") as server:
        print(f"without compilation ready after {server.seconds:.1f} s")
        children = psutil.Process(server.process.pid).children(recursive=True)
        (engine,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
        engine.kill()
        assert server.process.wait(40) == Exit.PROGRAM_DIED, server.output()[-6000:]
        assert server.reason() == "ServerDied"


def _seven_billion(folder: Path) -> Path:
    """A model folder with the layers of Qwen2.5-VL-7B, the vocabulary of the small base model, and no weights."""
    config = json.loads((BASE / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "layer_types": ["full_attention"] * 28,
        "rope_parameters": {"mrope_section": [16, 24, 24], "rope_theta": 1000000.0, "rope_type": "default"},
    }
    config["vision_config"] |= {
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "window_size": 112,
    }
    processor = json.loads((BASE / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        processor[part] |= {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 448 * 448}}
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_bytes((BASE / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_model_with_the_layers_of_a_7b_is_served_on_one_gpu(world: World, tmp_path: Path) -> None:
    model = _seven_billion(tmp_path / "model")
    with serving(world, model, tmp_path, "--load-format", "dummy") as server:
        print(f"7B, random weights: ready after {server.seconds:.1f} s")
        print(f"7B, random weights: {asyncio.run(_throughput(448))}")
