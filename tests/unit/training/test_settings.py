import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpe_api.training_spec import DeepSpeed, Precision, RolloutEngine, Training
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training.settings import (
    batch_of_rank,
    cores_allowed,
    deepspeed_config,
    grpo_arguments,
    model_dtype,
    prompts_of_run,
    threads_of_rank,
    within_context,
    without_placeholders,
)

CPU = {"rollout_engine": RolloutEngine.TRANSFORMERS, "precision": Precision.FP32}


def training(**fields: object) -> Training:
    return Training.model_validate({"nodes": 1, "gpus_per_node": 0, **CPU, **fields})


@given(prompts=st.integers(1, 64), rollouts=st.integers(2, 16), world=st.integers(1, 16), micro=st.integers(1, 64))
def test_a_step_has_exactly_the_completions_of_the_spec_or_is_refused(
    prompts: int, rollouts: int, world: int, micro: int
) -> None:
    spec = training(prompts_per_step=prompts, rollouts_per_prompt=rollouts, micro_batch_size=micro)
    try:
        size, passes = batch_of_rank(spec, world)
    except BadConfig as error:
        assert error.reason == "UnevenBatch"  # noqa: PT017 - which of both outcomes comes is what is drawn
    else:
        assert size * passes * world == prompts * rollouts
        assert size <= micro


def test_without_a_micro_batch_all_completions_go_at_once() -> None:
    assert batch_of_rank(training(prompts_per_step=16, rollouts_per_prompt=8), 2) == (64, 1)


def test_an_uneven_micro_batch_is_refused_by_its_field() -> None:
    with pytest.raises(BadConfig, match=r"spec\.training\.microBatchSize is 3, .*divisor of 128"):
        batch_of_rank(training(prompts_per_step=16, rollouts_per_prompt=8, micro_batch_size=3), 1)


def test_vllm_without_cuda_is_refused_with_what_to_write() -> None:
    spec = training(rollout_engine=RolloutEngine.VLLM)
    with pytest.raises(BadConfig, match=r"rolloutEngine is vllm.*write transformers"):
        grpo_arguments(spec, 0, 1, False, Path("out"))


def test_vllm_with_cuda_shares_the_gpu_with_the_trainer() -> None:
    arguments = grpo_arguments(training(rollout_engine=RolloutEngine.VLLM, gpus_per_node=1), 0, 1, True, Path("out"))
    assert arguments["use_vllm"]
    assert arguments["vllm_mode"] == "colocate"
    assert arguments["ddp_backend"] == "nccl"


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, None),
        ({"loss_type": "vespo"}, "token_truncate"),
        ({"trainer": {"extra": {"top_p": 0.95}}}, "token_truncate"),
        ({"trainer": {"extra": {"top_k": 50}}}, "token_truncate"),
        ({"trainer": {"extra": {"min_p": 0.1}}}, "token_truncate"),
        ({"trainer": {"extra": {"repetition_penalty": 1.1}}}, "token_truncate"),
        ({"trainer": {"extra": {"generation_kwargs": {"top_p": 0.9}}}}, "token_truncate"),
        ({"trainer": {"extra": {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}}}, None),
        (
            {"loss_type": "vespo", "trainer": {"extra": {"vllm_importance_sampling_mode": "token_mask"}}},
            "token_mask",
        ),
    ],
)
def test_vllm_is_corrected_token_by_token_where_whole_completions_cannot_be(fields, mode) -> None:
    spec = training(rollout_engine=RolloutEngine.VLLM, gpus_per_node=1, **fields)
    assert grpo_arguments(spec, 0, 1, True, Path("out")).get("vllm_importance_sampling_mode") == mode


def test_without_vllm_there_is_nothing_to_correct() -> None:
    arguments = grpo_arguments(training(loss_type="vespo"), 0, 1, False, Path("out"))
    assert "vllm_importance_sampling_mode" not in arguments


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_zero_stage_reaches_deepspeed(stage: int) -> None:
    config = deepspeed_config(training(deepspeed=DeepSpeed(zero_stage=stage)), cuda=False)
    assert config is not None
    assert config["zero_optimization"]["stage"] == stage


def test_stage_three_gathers_the_weights_when_it_saves() -> None:
    config = deepspeed_config(training(deepspeed=DeepSpeed(zero_stage=3)), cuda=False)
    assert config is not None
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]


@pytest.mark.parametrize(
    ("precision", "stage", "dtype"),
    [("fp32", 2, None), ("bf16", 1, None), ("bf16", 2, "fp32"), ("bf16", 3, "fp32")],
)
def test_gradients_of_a_steps_passes_are_added_up_in_fp32(precision: str, stage: int, dtype: str | None) -> None:
    config = deepspeed_config(training(precision=precision, deepspeed=DeepSpeed(zero_stage=stage)), cuda=False)
    assert config is not None
    assert config["data_types"].get("grad_accum_dtype") == dtype


@pytest.mark.parametrize(
    ("precision", "stage", "dtype"),
    [("fp32", 0, "float32"), ("fp32", 3, "float32"), ("bf16", 0, "float32"), ("bf16", 2, "bfloat16")],
)
def test_weights_are_bf16_only_where_somebody_keeps_an_fp32_copy(precision: str, stage: int, dtype: str) -> None:
    assert model_dtype(training(precision=precision, deepspeed=DeepSpeed(zero_stage=stage))) == dtype


def test_every_field_of_the_spec_that_concerns_the_trainer_arrives() -> None:
    spec = training(
        max_steps=17,
        prompts_per_step=6,
        rollouts_per_prompt=4,
        micro_batch_size=12,
        learning_rate=3e-5,
        warmup_steps=2,
        temperature=0.7,
        beta=0.04,
        max_completion_length=99,
        gradient_checkpointing=True,
        checkpoint_every_steps=5,
        loss_type="dr_grpo",
        epsilon=0.1,
        epsilon_high=0.28,
        scale_rewards="none",
        importance_sampling_level="sequence",
        mask_truncated_completions=True,
        lr_scheduler_type="cosine",
        weight_decay=0.1,
        max_grad_norm=0.5,
    )
    arguments = grpo_arguments(spec, 11, 1, False, Path("out"))
    expected = {
        "max_steps": 17,
        "num_generations": 4,
        "per_device_train_batch_size": 12,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-5,
        "warmup_steps": 2,
        "temperature": 0.7,
        "beta": 0.04,
        "max_completion_length": 99,
        "gradient_checkpointing": True,
        "save_steps": 5,
        "seed": 11,
        "use_cpu": True,
        "bf16": False,
        "loss_type": "dr_grpo",
        "epsilon": 0.1,
        "epsilon_high": 0.28,
        "scale_rewards": "none",
        "importance_sampling_level": "sequence",
        "mask_truncated_completions": True,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
        "disable_dropout": True,
    }
    assert {name: arguments[name] for name in expected} == expected


def test_offloading_reaches_deepspeed_without_its_compiled_optimizer() -> None:
    spec = training(deepspeed=DeepSpeed(zero_stage=3, offload_optimizer=True, offload_param=True))
    config = deepspeed_config(spec, cuda=True)
    assert config is not None
    zero = config["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert config["zero_force_ds_cpu_optimizer"] is False


def test_dropout_of_adapters_is_not_switched_off() -> None:
    assert grpo_arguments(training(lora={"dropout": 0.05}), 0, 1, False, Path("out"))["disable_dropout"] is False
    assert grpo_arguments(training(lora={}), 0, 1, False, Path("out"))["disable_dropout"] is True


def test_updates_on_the_same_rollouts_need_no_prompts_of_their_own() -> None:
    assert prompts_of_run(training(max_steps=6, prompts_per_step=4)) == 24
    assert prompts_of_run(training(max_steps=6, prompts_per_step=4, num_iterations=2)) == 12


@pytest.mark.parametrize(("config", "room"), [({"text_config": {"max_position_embeddings": 2048}}, 2048), ({}, 8704)])
def test_vllm_gets_no_more_room_than_the_model_has_positions(tmp_path: Path, config, room) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = Training(gpus_per_node=1, nodes=1, max_prompt_length=8192, max_completion_length=512)
    arguments = grpo_arguments(spec, 0, 1, True, tmp_path)
    assert arguments["vllm_max_model_length"] == 8704
    assert within_context(arguments, tmp_path)["vllm_max_model_length"] == room


def test_without_vllm_the_models_positions_are_not_looked_for(tmp_path: Path) -> None:
    assert within_context({"use_vllm": False}, tmp_path / "nowhere") == {"use_vllm": False}


QWEN = {"image_token_id": 151655, "video_token_id": 151656}


@pytest.mark.parametrize(
    ("config", "extra", "sampling"),
    [
        (QWEN, {}, {"logit_bias": {151655: -100.0, 151656: -100.0}}),
        ({"image_token_index": 32000}, {}, {"logit_bias": {32000: -100.0}}),
        ({}, {}, None),
        (
            QWEN,
            {"generation_kwargs": {"min_tokens": 2, "logit_bias": {"7": -5, "151656": 1}}},
            {"min_tokens": 2, "logit_bias": {151655: -100.0, 151656: 1, 7: -5}},
        ),
    ],
)
def test_vllm_samples_no_token_that_stands_for_a_picture(tmp_path: Path, config, extra, sampling) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = training(rollout_engine=RolloutEngine.VLLM, gpus_per_node=1, trainer={"extra": extra})
    arguments = without_placeholders(grpo_arguments(spec, 0, 1, True, tmp_path), tmp_path)
    assert arguments.get("generation_kwargs") == sampling


def test_transformers_is_kept_from_such_tokens_by_trl(tmp_path: Path) -> None:
    assert without_placeholders({"use_vllm": False}, tmp_path / "nowhere") == {"use_vllm": False}


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ('{"min_p": 0.1}', r"generation_kwargs is .*: write a map"),
        ({"logit_bias": {"yes": 1}}, r"logit_bias is \{'yes': 1\}: write a map from token ids"),
        ({"logit_bias": [7]}, r"logit_bias is \[7\]: write a map from token ids"),
    ],
)
def test_what_is_no_map_of_tokens_is_refused_by_its_field(tmp_path: Path, sampling, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    extra = {"generation_kwargs": sampling}
    spec = training(rollout_engine=RolloutEngine.VLLM, gpus_per_node=1, trainer={"extra": extra})
    with pytest.raises(BadConfig, match=words):
        without_placeholders(grpo_arguments(spec, 0, 1, True, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("cuda", "cores", "ranks", "threads"), [(True, 96, 8, 12), (True, 16, 1, 16), (True, 4, 8, 1), (False, 16, 1, 1)]
)
def test_ranks_with_gpus_share_the_cores_of_their_pod(cuda: bool, cores: int, ranks: int, threads: int) -> None:
    assert threads_of_rank(cuda, cores, ranks) == threads


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 96),
        ("max", 96),
        ("1600000 100000\n", 16),
        ("350000 100000\n", 3),
        ("50000 100000\n", 1),
        ("20000000 100000\n", 96),
    ],
)
def test_no_more_cores_are_used_than_the_cpu_limit_is_worth(cpu_max: str, cores: int) -> None:
    assert cores_allowed(96, cpu_max) == cores


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"loss_type": "cispo"}, 5.0),
        ({"loss_type": "cispo", "epsilon_high": 3.0}, 3.0),
        ({"loss_type": "dapo"}, None),
        ({"loss_type": "dapo", "epsilon_high": 0.28}, 0.28),
    ],
)
def test_cispo_bounds_the_ratio_itself_and_others_how_far_it_is_above_one(fields, bound) -> None:
    assert grpo_arguments(training(**fields), 0, 1, False, Path("out"))["epsilon_high"] == bound


def test_a_bound_of_cispo_below_one_is_refused_by_its_field() -> None:
    with pytest.raises(BadConfig, match=r"epsilonHigh is 0\.28, .*leave it out"):
        grpo_arguments(training(loss_type="cispo", epsilon_high=0.28), 0, 1, False, Path("out"))
