"""What is told to vLLM, beside the trainer and by the serving stage, against the vLLM that is installed: on the CPU."""

import asyncio
import json
import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.training.support import BASE, free_port

from dpe_api.artifacts import IterationId
from dpe_api.launch import ServingLaunch, StoreAddress
from dpe_api.names import Stage
from dpe_api.training_spec import Training
from dpe_jobs.client import ModelClient
from dpe_jobs.runtime import BadConfig
from dpe_jobs.serving.server import Server, command, environment, is_cpu_build, warm_up
from dpe_jobs.training.libraries import seed_sampling
from dpe_jobs.training.rank import prompts_have_room
from dpe_jobs.training.settings import grpo_arguments, without_placeholders

pytestmark = pytest.mark.timeout(600)

ROOM = 128  # tokens
ASKED = [20, 21, 22]


class Sampled(NamedTuple):
    """What an engine gave."""

    liked: list[list[int]]
    """Completions where the tokens for pictures and videos are made likely."""
    masked: list[list[int]]
    """Completions with the run's own arguments."""
    by_seed: list[list[list[int]]]
    """Completions of one prompt for the seeds 1, 1 and 2."""
    refused: list[str]
    """Reasons for which prompts that are too long end the run."""


def sample(placeholders: list[int], folder: Path) -> Sampled:
    """Ask an engine in this process; it is one of its own, which vLLM changes."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    from vllm import LLM, SamplingParams

    arguments = grpo_arguments(Training(nodes=1, gpus_per_node=1), 0, 1, True, folder)
    ours = without_placeholders(arguments, BASE)["generation_kwargs"]
    engine = LLM(str(BASE), max_model_len=ROOM, enforce_eager=True, dtype="float32", logprobs_mode="processed_logprobs")

    def ask(count: int, tokens: list[int], **more: Any) -> list[list[int]]:
        settings = SamplingParams(temperature=2.0, max_tokens=32, ignore_eos=True, logprobs=0, **more)
        found = engine.generate([{"prompt_token_ids": tokens}] * count, settings, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in found]

    liked = ask(64, ASKED, logit_bias=dict.fromkeys(placeholders, 8.0))
    masked = ask(64, ASKED, **ours)
    by_seed = []
    for seed in (1, 1, 2):
        seed_sampling(seed, 0, 1)
        by_seed.append(ask(2, ASKED, **ours))
    refused = []
    for length in (ROOM, ROOM + 1):
        try:
            with prompts_have_room():
                ask(1, [20] * length)
        except BadConfig as error:
            refused.append(error.reason)
    return Sampled(liked, masked, by_seed, refused)


def test_vllm_heeds_mask_and_seed_of_the_run_and_its_words_for_a_long_prompt_are_known(tmp_path: Path) -> None:
    config = json.loads((BASE / "config.json").read_text())
    placeholders = [config["image_token_id"], config["video_token_id"]]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(sample, placeholders, tmp_path).result()
    assert any(token in placeholders for answer in found.liked for token in answer), "else nothing is shown"
    assert not any(token in placeholders for answer in found.masked for token in answer)
    first, again, other = found.by_seed
    assert first == again != other
    assert first[0] != first[1], "rollouts of a prompt are draws of their own"
    assert found.refused == ["PromptTooLong", "PromptTooLong"]


SERVED = ServingLaunch(
    iteration=IterationId(namespace="team", name="served", uid="0" * 8),
    attempt=1,
    seed=0,
    store=StoreAddress(endpoint="http://none:9000"),
    output="s3://none/none",
    stage=Stage.SERVE_BASE,
    model_uri="s3://none/base",
    max_model_len=ROOM,
    tensor_parallel_size=1,
    extra_args=["--dtype", "float32", "--enforce-eager"],
)
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


async def rollouts(base_url: str) -> list[str]:
    async with ModelClient(base_url, concurrency=1) as client:
        found = await client.ask(None, "what is it?", n=32, temperature=1.0, max_tokens=16, seed=0)
    return list(found.texts)


def test_rollouts_of_a_model_whose_own_defaults_would_make_them_all_the_likeliest_answer_differ(tmp_path: Path) -> None:
    model, port = tmp_path / "model", free_port()
    shutil.copytree(BASE, model)
    file = model / "generation_config.json"
    defaults = json.loads(file.read_text()) | {"do_sample": True, "top_k": 1, "repetition_penalty": 1.05}
    file.write_text(json.dumps(defaults))
    arguments = [*command(SERVED, on_cpu=is_cpu_build(), model=str(model)), "--port", str(port)]
    server = Server.start(arguments, {**environment(), **ON_CPU})
    server.base_url = f"http://127.0.0.1:{port}"
    try:
        threading.Thread(target=lambda: server.tail.extend(server.process.stdout or ()), daemon=True).start()
        warm_up(server)
        assert server.warm.is_set(), "".join(server.tail)
        texts = asyncio.run(rollouts(server.base_url))
    finally:
        server.stop()
    assert len(set(texts)) > 1
