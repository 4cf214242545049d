"""From spec.training to the settings of TRL and DeepSpeed. Pure: no torch in here."""

import json
from pathlib import Path
from typing import Any

from dpe_api import trainer_arguments
from dpe_api.training_spec import LossType, LrScheduler, Precision, RolloutEngine, Training, Warmup
from dpe_jobs.runtime import BadConfig

COLLECTIVE_TIMEOUT_S = 1800  # longest wait of a rank for the others, checkpoint uploads included
_MIN_LR_SHARE = 0.1  # where cosine_with_min_lr ends, unless trainer.extra.lr_scheduler_kwargs says otherwise
_CISPO_BOUND = 5.0  # of the ratio itself, as TRL recommends (ScaleRL, arXiv 2510.13786)
# buffers that stay fp32 beside bf16 weights: RoPE's frequencies, which vLLM has in fp32, too. ZeRO-3 makes bf16 of all
# but those that are listed here; a list takes the place of what models list themselves, which is the second name
_FP32_BUFFERS = ("inv_freq", "e_score_correction_bias")
_NEVER = -100.0  # logit bias of a token that is not to be sampled: the least that vLLM takes
_VLLM_MEMORY_SHARE = 0.3  # of the GPU; the trainer has the rest, and vLLM sleeps while it trains

# values of trainer.extra that leave the model's distribution as it is
_WHOLE: dict[str, tuple[float | None, ...]] = {
    "top_p": (None, 1),
    "top_k": (None, 0, -1),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
}


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


def warmup_batch_of_rank(training: Training, warmup: Warmup, world_size: int) -> tuple[int, int]:
    """Samples per rank in one pass of the warm-up, and passes per step. BadConfig when they do not come out even."""
    if warmup.batch_size % world_size:
        raise BadConfig(
            "UnevenBatch",
            f"spec.training.warmup.batchSize is {warmup.batch_size}, not a multiple of the {world_size} ranks: change "
            "it",
        )
    of_rank = warmup.batch_size // world_size
    most = min(training.micro_batch_size or of_rank, of_rank)
    micro = next(size for size in range(most, 0, -1) if of_rank % size == 0)
    return micro, of_rank // micro


def cores_allowed(seen: int, cpu_max: str) -> int:
    """Cores that a pod may keep busy: those that it sees, or fewer where its CPU limit is worth fewer.

    `cpu_max` is what the pod's cgroup says (v2, `cpu.max`): microseconds of CPU time in each period of so many, or max.
    """
    quota, *period = cpu_max.split()
    return seen if quota == "max" or not period else max(1, min(seen, int(quota) // int(period[0])))


def threads_of_rank(cuda: bool, cores: int, ranks: int) -> int:
    """Threads of a rank's operators on the host, where ranks share the cores that the pod may use.

    Beside a GPU they prepare images, and step the optimizer where that is offloaded. Ranks without CUDA get one: they
    are for trials, several to a machine, with models so small that more are no faster.
    """
    return max(1, cores // ranks) if cuda else 1


def deepspeed_config(training: Training, cuda: bool) -> dict[str, Any] | None:
    """DeepSpeed's configuration; None at stage 0, where plain data parallelism does the same with less."""
    stage = training.deepspeed.zero_stage
    if stage == 0:
        return None
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": cuda}
    pinned = {"device": "cpu", "pin_memory": cuda}
    if training.deepspeed.offload_optimizer:
        zero["offload_optimizer"] = pinned
    if training.deepspeed.offload_param:
        zero["offload_param"] = pinned
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # else no model is saved at all
    bf16 = training.precision is Precision.BF16
    # else many small gradients vanish beside the sum of those before. Not at stage 1, where DeepSpeed has another
    # optimizer for it, which keeps all gradients in fp32 on every rank
    accumulation = {"grad_accum_dtype": "fp32"} if bf16 and stage > 1 else {}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # torch's AdamW steps on the host too; DeepSpeed's own would be compiled on every node at first use
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        "fp16": {"enabled": False},
        "data_types": {"keep_in_fp32_modules": list(_FP32_BUFFERS), **accumulation},
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


def _corrects_each_token(training: Training) -> bool:
    """Whether vLLM's log-probs can only be corrected token by token, not by TRL's default of whole completions.

    VESPO asks for that. And vLLM's log-probs are those of the distribution that it samples from: renormalised after a
    cut they differ a little at each token, which over a whole completion is beyond every bound and masks nearly all.
    """
    extra = training.trainer.extra
    nested = extra.get("generation_kwargs")
    sampling = {**extra, **nested} if isinstance(nested, dict) else extra  # in TRL the nested ones win
    cuts = any(sampling.get(name) not in whole for name, whole in _WHOLE.items())
    return cuts or training.loss_type is LossType.VESPO


def _rollouts(training: Training, cuda: bool) -> dict[str, Any]:
    """Arguments of whoever samples. BadConfig when that is vLLM and there is no CUDA."""
    if training.rollout_engine is not RolloutEngine.VLLM:
        return {"use_vllm": False}
    if not cuda:
        raise BadConfig(
            "NoCuda",
            "spec.training.rolloutEngine is vllm, which needs CUDA and none is visible: write transformers, or set "
            "gpusPerNode and a pool with GPUs",
        )
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": 1,
        "vllm_gpu_memory_utilization": _VLLM_MEMORY_SHARE,
        "vllm_max_model_length": training.max_completion_length + training.max_prompt_length,
        "vllm_enable_sleep_mode": True,
        "vllm_importance_sampling_correction": True,
        **({"vllm_importance_sampling_mode": "token_truncate"} if _corrects_each_token(training) else {}),
    }


def _extra(training: Training) -> dict[str, Any]:
    """`trainer.extra`, checked by name; values are TRL's to check. BadConfig lists all wrong names at once."""
    wrong = trainer_arguments.problems(training.trainer.extra)
    if wrong:
        raise BadConfig("TrainerArgument", "; ".join(wrong))
    extra = dict(training.trainer.extra)
    sampling = extra.get("generation_kwargs")
    if not isinstance(sampling, dict | None):
        raise BadConfig(
            "TrainerArgument", f"spec.training.trainer.extra.generation_kwargs is {sampling!r}: write a map"
        )
    loading = extra.pop("model_init_kwargs", {})
    if not isinstance(loading, dict) or "dtype" in loading or "torch_dtype" in loading:
        raise BadConfig(
            "TrainerArgument",
            f"spec.training.trainer.extra.model_init_kwargs is {loading!r}: write a map without dtype, which "
            "spec.training.precision decides",
        )
    return {**extra, "model_init_kwargs": {**loading, "dtype": model_dtype(training)}}


def prompts_of_run(training: Training) -> int:
    """Prompts that are asked over the whole run; numIterations updates share those of one step."""
    return training.prompts_per_step * training.max_steps // training.num_iterations


def within_context(arguments: dict[str, Any], model: Path) -> dict[str, Any]:
    """The arguments with no more room in vLLM than the model has positions, above which vLLM refuses to start."""
    wanted = arguments.get("vllm_max_model_length")
    if wanted is None:
        return arguments
    config = json.loads((model / "config.json").read_text())
    positions = config.get("text_config", config).get("max_position_embeddings")
    return arguments if positions is None else {**arguments, "vllm_max_model_length": min(wanted, positions)}


def without_placeholders(arguments: dict[str, Any], model: Path) -> dict[str, Any]:
    """The arguments with a bias in vLLM against the tokens that stand for pictures and videos in a prompt.

    Sampled, one ends the run: the trainer finds more of them than there are pictures. TRL itself keeps transformers
    from sampling them, but not vLLM. What `trainer.extra` says of a token stays. BadConfig when it names no tokens.
    """
    if not arguments["use_vllm"]:
        return arguments
    config = json.loads((model / "config.json").read_text())
    placeholders = (config.get(f"{kind}_token_{key}") for kind in ("image", "video") for key in ("id", "index"))
    sampling = arguments.get("generation_kwargs") or {}
    theirs = sampling.get("logit_bias") or {}
    try:
        bias = {int(token): value for token, value in theirs.items()}  # JSON has strings, vLLM wants numbers
    except (AttributeError, ValueError) as error:
        raise BadConfig(
            "TrainerArgument",
            f"spec.training.trainer.extra.generation_kwargs.logit_bias is {theirs!r}: write a map from token ids to "
            "numbers",
        ) from error
    bias = {token: _NEVER for token in placeholders if token is not None} | bias
    return {**arguments, "generation_kwargs": {**sampling, "logit_bias": bias}} if bias else arguments


def upper_bound(training: Training) -> float | None:
    """TRL's epsilon_high; None: as epsilon. BadConfig when CISPO's is below 1.

    CISPO cuts the ratio itself at epsilon_high, where others cut it at 1 + epsilon_high: with epsilon in its place
    nearly every ratio would be 0.2.
    """
    if training.loss_type is not LossType.CISPO:
        return training.epsilon_high
    bound = _CISPO_BOUND if training.epsilon_high is None else training.epsilon_high
    if bound < 1:
        raise BadConfig(
            "TrainerArgument",
            f"spec.training.epsilonHigh is {bound:g}, but lossType cispo cuts the ratio itself at it: leave it out for "
            f"{_CISPO_BOUND:g}, or write 1 or more",
        )
    return bound


def grpo_arguments(training: Training, seed: int, world_size: int, cuda: bool, output: Path) -> dict[str, Any]:
    """Arguments of TRL's GRPOConfig; what matters is said, not left to defaults that change between versions."""
    micro, passes = batch_of_rank(training, world_size)
    min_lr = training.lr_scheduler_type is LrScheduler.COSINE_WITH_MIN_LR
    return {
        "output_dir": str(output),
        "seed": seed,
        # the algorithm
        "loss_type": training.loss_type.value,
        "scale_rewards": training.scale_rewards.value,
        "importance_sampling_level": training.importance_sampling_level.value,
        "epsilon": training.epsilon,
        "epsilon_high": upper_bound(training),
        "num_iterations": training.num_iterations,
        "beta": training.beta,
        "num_generations": training.rollouts_per_prompt,
        "max_completion_length": training.max_completion_length,
        "mask_truncated_completions": training.mask_truncated_completions,
        "temperature": training.temperature,
        "top_p": 1.0,
        "top_k": 0,
        **_rollouts(training, cuda),
        # the optimizer
        "max_steps": training.max_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type.value,
        "lr_scheduler_kwargs": {"min_lr_rate": _MIN_LR_SHARE} if min_lr else None,
        "warmup_steps": training.warmup_steps,
        "optim": "adamw_torch",
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "disable_dropout": training.lora is None or training.lora.dropout == 0,
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
        # what is kept and said
        "save_strategy": "steps",
        "save_steps": training.checkpoint_every_steps,
        "save_only_model": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        **_extra(training),
    }


# what the warm-up and GRPO have in common: the machine, the number format, the optimizer
_COMMON = (
    "use_cpu",
    "ddp_backend",
    "ddp_timeout",
    "bf16",
    "fp16",
    "tf32",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "deepspeed",
    "model_init_kwargs",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "dataloader_num_workers",
    "remove_unused_columns",
    "logging_nan_inf_filter",
    "report_to",
    "disable_tqdm",
)


def sft_arguments(
    training: Training, warmup: Warmup, seed: int, world_size: int, cuda: bool, output: Path
) -> dict[str, Any]:
    """Arguments of TRL's SFTConfig for the warm-up."""
    of_grpo = grpo_arguments(training, seed, world_size, cuda, output)
    micro, passes = warmup_batch_of_rank(training, warmup, world_size)
    return {
        **{name: of_grpo[name] for name in _COMMON if name in of_grpo},
        "output_dir": str(output),
        "seed": seed,
        "max_steps": warmup.max_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "learning_rate": warmup.learning_rate,
        "lr_scheduler_type": "constant",
        # the order is ours (lessons.lesson_order)
        "train_sampling_strategy": "sequential",
        "shuffle_dataset": False,
        "packing": False,
        "max_length": None,  # a prompt that is cut has lost image tokens
        "completion_only_loss": True,
        "save_strategy": "no",
        "logging_steps": 1,
    }
