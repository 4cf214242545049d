"""Weights taken in place beside a fresh start: `python -m tests.bench.serving.inplace`.

vLLM serves the example's model, then takes the weights of a copy with noise on them as the serving stage has it do.
Log-probs of the whole vocabulary for questions about images, before and after, are compared with those of a server
that was started with the copy; the questions are asked before the change, too, so that every cache holds what the old
weights saw. Both are the product's own command line, in the product's own order.
"""

import argparse
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch
from examples.shapes.base_model import BASE_DIR
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tests.training.support import COLORS, free_port

from dpe_api.artifacts import IterationId
from dpe_api.launch import ServingLaunch, StoreAddress
from dpe_api.names import SERVED_MODEL_NAME, Stage
from dpe_jobs.chat import messages
from dpe_jobs.serving import guard, inplace
from dpe_jobs.serving.server import Server, command, environment, is_cpu_build, warm_up
from dpe_jobs.training.weights import write_head

QUESTIONS = ("what color is the shape?", "what is in the image?", "is there a circle in the image?")
VOCABULARY = 366  # tokens of the example's model
LAUNCH = ServingLaunch(
    iteration=IterationId(namespace="bench", name="inplace", uid="0" * 8),
    attempt=1,
    seed=0,
    store=StoreAddress(endpoint="http://none:9000"),
    output="s3://none/none",
    stage=Stage.SERVE_BASE,
    model_uri="s3://none/base",
    max_model_len=512,
    tensor_parallel_size=1,
    extra_args=["--dtype", "float32", "--enforce-eager", "--max-logprobs", str(VOCABULARY)],
    next_model_uri="s3://none/next",
)
ON_CPU = {  # as dev/values.yaml has it
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
LogProbs = list[dict[str, float]]
"""Of the first token of each answer, by token."""


def picture(color: tuple[int, int, int]) -> bytes:
    """A PNG with a square of this colour."""
    image, out = Image.new("RGB", (64, 64), (240, 240, 240)), io.BytesIO()
    ImageDraw.Draw(image).rectangle((16, 16, 48, 48), fill=color)
    image.save(out, "PNG")
    return out.getvalue()


def perturb(source: Path, target: Path, scale: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A copy of a model whose every weight has noise on it, of this share of the weights' own spread."""
    shutil.copytree(source, target)
    generator = torch.Generator().manual_seed(seed)
    file = target / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("lm_head.weight")  # tied to the embedding, whose noise it gets below
    for name, tensor in tensors.items():
        wide = tensor.float()
        noise = torch.randn(wide.shape, generator=generator) * scale * (wide.std() if wide.numel() > 1 else 1.0)
        tensors[name] = (wide + noise).to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    write_head(target)
    return target


@contextmanager
def serving(
    model: Path, key: str, more: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[tuple[Server, float]]:
    """The stage's vLLM with a model folder; and the seconds until it had answered."""
    port = free_port()
    arguments = [*command(LAUNCH, on_cpu=is_cpu_build(), model=str(model)), "--port", str(port), *more]
    began = time.monotonic()
    server = Server.start(arguments, {**environment(key), **ON_CPU, **(env or {})})
    server.base_url = f"http://127.0.0.1:{port}"
    try:
        threading.Thread(target=lambda: server.tail.extend(server.process.stdout or ()), daemon=True).start()
        warm_up(server)
        if not server.warm.is_set():
            raise SystemExit("".join(server.tail))
        yield server, time.monotonic() - began
    finally:
        server.stop()


def ask(base_url: str, model: str = SERVED_MODEL_NAME) -> LogProbs:
    """Log-probs for every question about every picture."""
    found = []
    for color in COLORS.values():
        for question in QUESTIONS:
            body = {
                "model": model,
                "messages": messages(picture(color), question),
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": VOCABULARY,
                "return_tokens_as_token_ids": True,
            }
            reply = httpx.post(f"{base_url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
            reply.raise_for_status()
            (token,) = reply.json()["choices"][0]["logprobs"]["content"]
            found.append({one["token"]: one["logprob"] for one in token["top_logprobs"]})
    return found


def furthest(some: LogProbs, others: LogProbs) -> float:
    """Largest difference of any log-prob that both have; tokens that one of them lacks are an error."""
    return max(abs(a[t] - b[t]) for a, b in zip(some, others, strict=True) for t in a.keys() | b.keys())


def main() -> None:
    """Print what was found; the exit status is 1 when the log-probs are further apart than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", type=float, default=0.05, help="share of the weights' spread (default: %(default)s)")
    parser.add_argument("--allowed", type=float, default=1e-6, help="largest difference (default: %(default)s)")
    parser.add_argument("--times", type=int, default=3, help="changes to and fro (default: %(default)s)")
    options = parser.parse_args()
    key = guard.new_key()
    with tempfile.TemporaryDirectory() as name:
        base = perturb(BASE_DIR, Path(name) / "base", 0.0)
        other = perturb(BASE_DIR, Path(name) / "other", options.noise)
        seconds = []
        with serving(base, key) as (server, started):
            if (status := httpx.post(f"{server.base_url}/pause", trust_env=False).status_code) != 404:
                raise SystemExit(f"/pause answers {status} to somebody without the key")
            before = ask(server.base_url)
            for _ in range(options.times):
                began = time.monotonic()
                inplace.reload(server.base_url, other, key)
                seconds.append(time.monotonic() - began)
                after = ask(server.base_url)
                inplace.reload(server.base_url, base, key)
                back = ask(server.base_url)
        with serving(other, key) as (fresh_server, fresh):
            expected = ask(fresh_server.base_url)
    moved, apart, returned = furthest(before, expected), furthest(after, expected), furthest(before, back)
    print(f"{len(before)} questions, {len(before[0])} log-probs each; the two models are {moved:.6f} apart")
    print(f"in place against a fresh start: {apart:.6f} apart; back again: {returned:.6f}")
    shown = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"fresh starts {started:.1f} s and {fresh:.1f} s, in place {shown} s, on {os.cpu_count()} cores")
    if not (moved > 100 * options.allowed and max(apart, returned) <= options.allowed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
