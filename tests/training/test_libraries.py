"""What is asked of TRL and DeepSpeed beside their arguments."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dpe_jobs.training.libraries import copy_weights_once, seed_sampling


def drawn() -> tuple[float, float, float]:
    """What vLLM draws from: torch's state, or NumPy's in its newer model runner."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_seed_of_the_run_decides_what_vllm_samples_and_ranks_that_share_a_model_draw_the_same() -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    found = {}
    for seed in (1, 1000):
        for rank in range(4):
            torch.manual_seed(rank // 2)  # what vLLM leaves
            seed_sampling(seed, rank, 2)
            found[seed, rank] = drawn()
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    assert found[1, 0] == found[1, 1] != found[1, 2] == found[1, 3]
    assert not {found[1, rank] for rank in range(4)} & {found[1000, rank] for rank in range(4)}


@pytest.mark.parametrize(
    ("stage", "writes", "copies"),
    [(0, False, True), (1, False, False), (2, False, False), (3, False, True), (2, True, True)],
)
def test_only_the_rank_that_writes_copies_whole_weights(stage: int, writes: bool, copies: bool) -> None:
    saved: list[str] = []

    def save_model(folder: str, _internal_call: bool = False) -> None:
        saved.append(folder)

    trainer = SimpleNamespace(args=SimpleNamespace(should_save=writes), save_model=save_model)
    copy_weights_once(trainer, stage)
    trainer.save_model("checkpoint-1", _internal_call=True)
    trainer.save_model("model")
    assert saved == (["checkpoint-1", "model"] if copies else [])
