"""What is told to vLLM beside the trainer, against the vLLM that is installed: in one process, and on the CPU."""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.training.support import BASE

from dpe_api.training_spec import Training
from dpe_jobs.runtime import BadConfig
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
