"""`trainer.extra`: what TRL knows and nobody else sets."""

from pathlib import Path

import pytest

from dpe_api.trainer_arguments import NAMES, problems, why_not
from dpe_api.training_spec import Training
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training.settings import grpo_arguments

OPEN = {"top_p", "top_k", "optim", "tf32", "model_init_kwargs", "lr_scheduler_kwargs"}
"""Arguments that have a value of ours and may be set all the same."""
VLLM_OPEN = {
    "vllm_tensor_parallel_size",
    "vllm_gpu_memory_utilization",
    "vllm_enable_sleep_mode",
    "vllm_importance_sampling_correction",
}


def arguments(**extra: object) -> dict[str, object]:
    spec = {"nodes": 1, "gpusPerNode": 1, "rolloutEngine": "vllm", "trainer": {"extra": extra}}
    return grpo_arguments(Training.model_validate(spec), 0, 1, True, Path("out"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adam_beta3", "is no argument of TRL's GRPOConfig: did you mean adam_beta"),
        ("learning_rate", "write spec.training.learningRate instead"),
        ("num_generations", "write spec.training.rolloutsPerPrompt instead"),
        ("output_dir", "checkpoints and the model go to the object store"),
        ("save_on_each_node", "checkpoints and the model go to the object store"),
        ("hub_token", "checkpoints and the model go to the object store"),
        ("eval_steps", "evaluation is a stage of its own"),
        ("sync_ref_model", "the reference stays what GRPO starts from"),
        ("ref_model_sync_steps", "the reference stays what GRPO starts from"),
        ("ref_model_mixup_alpha", "the reference stays what GRPO starts from"),
        ("dataloader_num_workers", "the run's order of samples is laid out beforehand"),
    ],
)
def test_a_name_that_may_not_be_set_is_refused_with_the_reason(name: str, words: str) -> None:
    assert words in (why_not(name) or "")


def test_what_trl_knows_and_nobody_sets_goes_through() -> None:
    assert problems(["adam_beta2", "top_p", "delta", "vllm_gpu_memory_utilization"]) == []
    found = arguments(adam_beta2=0.98, top_p=0.9, vllm_gpu_memory_utilization=0.5)
    assert (found["adam_beta2"], found["top_p"], found["vllm_gpu_memory_utilization"]) == (0.98, 0.9, 0.5)


def test_all_that_the_system_sets_is_known_to_trl_and_refused_but_for_what_is_left_open() -> None:
    ours = set(arguments()) | {"reward_weights"}
    assert ours <= NAMES
    assert {name for name in ours if why_not(name) is None} == OPEN | VLLM_OPEN


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(BadConfig, match=r"(?s)learningrate.*seed") as caught:
        arguments(learningrate=1e-3, seed=2)
    assert caught.value.reason == "TrainerArgument"


def test_model_arguments_are_added_and_never_change_the_number_format() -> None:
    given = {"attn_implementation": "sdpa"}
    assert arguments(model_init_kwargs=given)["model_init_kwargs"] == {**given, "dtype": "bfloat16"}
    with pytest.raises(BadConfig, match="write a map without dtype"):
        arguments(model_init_kwargs={"dtype": "float16"})
