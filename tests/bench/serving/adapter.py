"""A LoRA adapter on the running base beside the merged model: `python -m tests.bench.serving.adapter`.

The adapter is one of random weights on the layers that a training adapts by default, merged by the training's own
code. Log-probs of a server that loads it at run time are compared with those of a server of the merged model, in each
number format; and so are answers per second: a server that can load adapters computes its base's answers differently.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from examples.shapes.base_model import BASE_DIR
from tests.bench.serving import inplace as bench
from tests.bench.serving.inplace import ask, furthest, perturb, picture, serving

from dpe_api.training_spec import Lora, Training
from dpe_jobs.client import ModelClient
from dpe_jobs.serving import guard
from dpe_jobs.training import weights
from dpe_jobs.training.model import peft_config

ADAPTER = "candidate"
RANK = 16
ASKED = 64  # questions of the throughput, at once


def random_adapter(base: Path, folder: Path, scale: float) -> Path:
    """Save an adapter as a training does, with both matrices random."""
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    training = Training(lora=Lora(r=RANK, alpha=RANK), prompts_per_step=4, rollouts_per_prompt=4)
    config: Any = peft_config(training, str(base))
    model: Any = get_peft_model(AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=scale)
    model.save_pretrained(folder)
    weights.complete_adapter(folder, "s3://none/base")
    return folder


async def _answers_per_second(base_url: str) -> float:
    async with ModelClient(base_url, concurrency=16) as client:
        began = time.monotonic()
        shown = picture((0, 128, 128))
        await asyncio.gather(
            *(client.ask(shown, f"question {number}?", n=4, temperature=1.0, max_tokens=8) for number in range(ASKED))
        )
        return ASKED / (time.monotonic() - began)


def with_adapter(base: Path, adapter: Path, key: str, towers: list[str]) -> tuple[bench.LogProbs, float]:
    """Log-probs of a server of the base that has loaded the adapter; answers per second of its base."""
    more = ["--enable-lora", "--max-lora-rank", str(RANK), *towers]
    with serving(base, key, more, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}) as (server, _):
        began = time.monotonic()
        body = {"lora_name": ADAPTER, "lora_path": str(adapter)}
        reply = httpx.post(
            f"{server.base_url}/v1/load_lora_adapter", json=body, headers={guard.HEADER: key}, timeout=60
        )
        print(f"load_lora_adapter: {reply.status_code} {reply.text[:300]}, {time.monotonic() - began:.2f} s")
        return ask(server.base_url, ADAPTER), asyncio.run(_answers_per_second(server.base_url))


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.05, help="spread of the second matrix (default: %(default)s)")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--towers", action="store_true", help="let vLLM adapt the vision tower, too")
    options = parser.parse_args()
    key, towers = guard.new_key(), ["--enable-tower-connector-lora"] if options.towers else []
    with tempfile.TemporaryDirectory() as name:
        for dtype in options.dtypes:
            folder = Path(name) / dtype
            folder.mkdir()
            base = perturb(BASE_DIR, folder / "base", 0.0, dtype=getattr(torch, dtype))
            adapter = random_adapter(base, folder / "adapter", options.scale)
            merged = folder / "merged"
            weights.merge(base, adapter, merged)
            weights.complete(merged, base)
            bench.LAUNCH.extra_args[1] = dtype
            with serving(base, key) as (server, _):
                before, plain = ask(server.base_url), asyncio.run(_answers_per_second(server.base_url))
            with serving(merged, key) as (server, _):
                expected = ask(server.base_url)
            found, adapted = with_adapter(base, adapter, key, towers)
            print(f"{dtype}: adapter and merged {furthest(found, expected):.6f} apart", end="")
            print(f", base and merged {furthest(before, expected):.6f}")
            print(f"{dtype}: the base answers {plain:.2f}/s, {adapted:.2f}/s where adapters can be loaded")


if __name__ == "__main__":
    main()
