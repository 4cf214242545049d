"""From spec.training to the settings of TRL and DeepSpeed. Pure: no torch in here."""

from pathlib import Path
from typing import Any

from dpe_api.training_spec import ROLLOUT_PROMPT_TOKENS, Precision, RolloutEngine, Training
from dpe_jobs.runtime import BadConfig

COLLECTIVE_TIMEOUT_S = 1800  # longest wait of a rank for the others, checkpoint uploads included
_VLLM_MEMORY_SHARE = 0.3  # of the GPU; the trainer has the rest, and vLLM sleeps while it trains


def batch_of_rank(training: Training, world_size: int) -> tuple[int, int]:
    """Completions per rank in one pass, and passes per step. BadConfig when they do not come out even."""
    completions = training.prompts_per_step * training.rollouts_per_prompt
    if completions % world_size:
        raise BadConfig(
            "UnevenBatch",
            f"spec.training.promptsPerStep * rolloutsPerPrompt is {completions}, not a multiple of the {world_size} "
            "ranks: change promptsPerStep",
        )
    of_rank = completions // world_size
    micro = min(training.micro_batch_size or of_rank, of_rank)
    if of_rank % micro:
        raise BadConfig(
            "UnevenBatch",
            f"spec.training.microBatchSize is {micro}, but each of the {world_size} ranks has {of_rank} completions a "
            f"step: choose a divisor of {of_rank}",
        )
    return micro, of_rank // micro


def deepspeed_config(training: Training, cuda: bool) -> dict[str, Any] | None:
    """DeepSpeed's configuration; None at stage 0, where plain data parallelism does the same with less."""
    stage = training.deepspeed.zero_stage
    if stage == 0:
        return None
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": cuda}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # else no model is saved at all
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": training.precision is Precision.BF16},
        "fp16": {"enabled": False},
        **dict.fromkeys(
            (
                "train_micro_batch_size_per_gpu",
                "gradient_accumulation_steps",
                "train_batch_size",
                "gradient_clipping",
            ),
            "auto",
        ),
    }


def model_dtype(training: Training) -> str:
    """Number format that the weights are loaded in.

    DeepSpeed keeps its own fp32 copy of bf16 weights. Without it the weights themselves stay fp32 and only the
    activations are bf16, because updates at RL's learning rates vanish in bf16.
    """
    bf16_weights = training.precision is Precision.BF16 and training.deepspeed.zero_stage > 0
    return "bfloat16" if bf16_weights else "float32"


def grpo_arguments(training: Training, seed: int, world_size: int, cuda: bool, output: Path) -> dict[str, Any]:
    """Arguments of TRL's GRPOConfig; what matters is said, not left to defaults that change between versions."""
    micro, passes = batch_of_rank(training, world_size)
    if training.rollout_engine is RolloutEngine.VLLM and not cuda:
        raise BadConfig(
            "NoCuda",
            "spec.training.rolloutEngine is vllm, which needs CUDA and none is visible: write transformers, or set "
            "gpusPerNode and a pool with GPUs",
        )
    rollouts: dict[str, Any] = {"use_vllm": False}
    if training.rollout_engine is RolloutEngine.VLLM:
        rollouts = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_tensor_parallel_size": 1,
            "vllm_gpu_memory_utilization": _VLLM_MEMORY_SHARE,
            "vllm_max_model_length": training.max_completion_length + ROLLOUT_PROMPT_TOKENS,
            "vllm_enable_sleep_mode": True,
            "vllm_importance_sampling_correction": True,
        }
    return {
        "output_dir": str(output),
        "seed": seed,
        # the algorithm: DAPO's token-level loss, advantages normalised in the group, one update per rollout
        "loss_type": "dapo",
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "epsilon": 0.2,
        "num_iterations": 1,
        "beta": training.beta,
        "num_generations": training.rollouts_per_prompt,
        "max_completion_length": training.max_completion_length,
        "mask_truncated_completions": False,
        "temperature": training.temperature,
        "top_p": 1.0,
        "top_k": 0,
        **rollouts,
        # the optimizer
        "max_steps": training.max_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": training.warmup_steps,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "disable_dropout": True,
        # the order of the samples is ours (data.prompt_order): TRL's own is not restored on resume
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "remove_unused_columns": False,
        # the machine
        "use_cpu": not cuda,
        "ddp_backend": "nccl" if cuda else "gloo",
        "ddp_timeout": COLLECTIVE_TIMEOUT_S,
        "bf16": training.precision is Precision.BF16,
        "fp16": False,
        "tf32": None,
        "gradient_checkpointing": training.gradient_checkpointing,
        "deepspeed": deepspeed_config(training, cuda),
        "model_init_kwargs": {"dtype": model_dtype(training)},
        # what is kept and said
        "save_strategy": "steps",
        "save_steps": training.checkpoint_every_steps,
        "save_only_model": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
