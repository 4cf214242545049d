"""`spec.training.trainer.extra`: which arguments of TRL's GRPOConfig may be written there, known without TRL.

The names are those of TRL's dataclass in the version that the training image pins; a test compares them.
"""

import difflib
from collections.abc import Iterable

_TRL = """
accelerator_config adam_beta1 adam_beta2 adam_epsilon auto_find_batch_size average_tokens_across_devices
batch_eval_metrics beta bf16 bf16_full_eval cache_implementation cast_lm_head_to_fp32 chat_template_kwargs
data_seed dataloader_drop_last dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers
dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers
ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout debug deepspeed delta disable_dropout
disable_tqdm do_eval do_predict do_train ds3_gather_for_generation enable_jit_checkpoint entropy_coef
entropy_coef_delta entropy_coef_max entropy_coef_min entropy_target epsilon epsilon_high eval_accumulation_steps
eval_delay eval_do_concat_batches eval_on_start eval_steps eval_strategy eval_use_gather_object fp16
fp16_full_eval fsdp fsdp_config full_determinism generation_batch_size generation_kwargs
gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs greater_is_better
hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token ignore_data_skip
importance_sampling_level include_for_metrics include_num_input_tokens_seen label_names label_smoothing_factor
learning_rate length_column_name liger_kernel_config load_best_model_at_end local_rank log_completions
log_completions_hub_repo log_level log_level_replica log_multimodal log_on_each_node log_unique_prompts
logging_first_step logging_nan_inf_filter logging_steps logging_strategy loss_type lr_scheduler_kwargs
lr_scheduler_type mask_truncated_completions max_completion_length max_grad_norm max_steps
max_tool_calling_iterations metric_for_best_model min_p model_init_kwargs multi_objective_aggregation
neftune_noise_alpha num_completions_to_print num_generations num_generations_eval num_iterations
num_train_epochs off_policy_mask_threshold optim optim_args optim_target_modules output_dir pad_to_multiple_of
parallelism_config per_device_eval_batch_size per_device_train_batch_size prediction_loss_only project
push_to_hub ref_model_mixup_alpha ref_model_sync_steps remove_unused_columns repetition_penalty report_to
restore_callback_states_from_checkpoint resume_from_checkpoint reward_weights router_aux_loss_coef run_name
sapo_temperature_neg sapo_temperature_pos save_on_each_node save_only_model save_steps save_strategy
save_total_limit scale_rewards seed shuffle_dataset skip_memory_metrics steps_per_generation sync_ref_model
temperature tf32 top_entropy_quantile top_k top_p torch_compile torch_compile_backend torch_compile_mode
torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id train_sampling_strategy
transformers_continuous_batching_config trust_remote_code use_adaptive_entropy use_bias_correction_kl use_cache
use_cpu use_liger_kernel use_transformers_continuous_batching use_transformers_paged use_vllm vespo_k_neg
vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port
vllm_importance_sampling_cap vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min
vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_max_model_length vllm_mode
vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
vllm_structured_outputs_regex vllm_tensor_parallel_size warmup_steps weight_decay
"""
NAMES = frozenset(_TRL.split())
"""Arguments of TRL's GRPOConfig."""

_FIELDS = {
    "beta": "beta",
    "bf16": "precision",
    "fp16": "precision",
    "deepspeed": "deepspeed",
    "disable_dropout": "lora.dropout",
    "epsilon": "epsilon",
    "epsilon_high": "epsilonHigh",
    "gradient_accumulation_steps": "microBatchSize",
    "gradient_checkpointing": "gradientCheckpointing",
    "importance_sampling_level": "importanceSamplingLevel",
    "learning_rate": "learningRate",
    "loss_type": "lossType",
    "lr_scheduler_type": "lrSchedulerType",
    "mask_truncated_completions": "maskTruncatedCompletions",
    "max_completion_length": "maxCompletionLength",
    "max_grad_norm": "maxGradNorm",
    "max_steps": "maxSteps",
    "num_generations": "rolloutsPerPrompt",
    "num_iterations": "numIterations",
    "num_train_epochs": "maxSteps",
    "per_device_train_batch_size": "microBatchSize",
    "reward_weights": "rewards",
    "save_steps": "checkpointEverySteps",
    "save_total_limit": "saveTotalLimit",
    "scale_rewards": "scaleRewards",
    "temperature": "temperature",
    "use_vllm": "rolloutEngine",
    "vllm_max_model_length": "maxPromptLength",
    "warmup_steps": "warmupSteps",
    "weight_decay": "weightDecay",
}
"""Arguments that have a field of their own in spec.training."""

_BATCHES = "promptsPerStep, rolloutsPerPrompt and microBatchSize decide the batches"
_ORDER = "the run's order of samples is laid out beforehand, so that it can be resumed exactly"
_MACHINE = "the system sets it by what it finds in the pod"
_SAID = "steps are logged one by one, into metrics.jsonl, Prometheus and the log of the pod"
_SAVED = "checkpoints and the model go to the object store, whole, by the system"
_NO_EVALUATION = "evaluation is a stage of its own: see spec.evaluation"
_NO_SERVER = "rolloutEngine vllm is colocated with the trainer"
_TEXT_ONLY = "TRL has it for models without images only"
_REFERENCE = "the reference stays what GRPO starts from: checkpoints hold no other, so that a resumed run would differ"

_SYSTEM = {
    "output_dir": _SAVED,
    "seed": "it derives from spec.seed",
    "data_seed": "it derives from spec.seed",
    **dict.fromkeys(("generation_batch_size", "steps_per_generation", "auto_find_batch_size"), _BATCHES),
    **dict.fromkeys(
        (
            "shuffle_dataset",
            "ignore_data_skip",
            "remove_unused_columns",
            "train_sampling_strategy",
            "length_column_name",
            "label_names",
        ),
        _ORDER,
    ),
    **dict.fromkeys(
        (
            "use_cpu",
            "ddp_backend",
            "ddp_timeout",
            "fsdp",
            "fsdp_config",
            "accelerator_config",
            "parallelism_config",
            "local_rank",
            "trust_remote_code",
        ),
        _MACHINE,
    ),
    **dict.fromkeys(
        (
            "disable_tqdm",
            "report_to",
            "run_name",
            "project",
            "num_completions_to_print",
            "include_num_input_tokens_seen",
            "skip_memory_metrics",
        ),
        _SAID,
    ),
    **dict.fromkeys(
        (
            "push_to_hub",
            "resume_from_checkpoint",
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
            "enable_jit_checkpoint",
            "restore_callback_states_from_checkpoint",
        ),
        _SAVED,
    ),
    **dict.fromkeys(
        (
            "batch_eval_metrics",
            "bf16_full_eval",
            "fp16_full_eval",
            "include_for_metrics",
            "num_generations_eval",
            "per_device_eval_batch_size",
            "prediction_loss_only",
        ),
        _NO_EVALUATION,
    ),
    **dict.fromkeys(("vllm_mode", "vllm_group_port"), _NO_SERVER),
    **dict.fromkeys(
        (
            "use_transformers_continuous_batching",
            "transformers_continuous_batching_config",
            "use_transformers_paged",
        ),
        _TEXT_ONLY,
    ),
    **dict.fromkeys(("sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha"), _REFERENCE),
    "chat_template_kwargs": "prompts are those of serving, token for token",
}
_SYSTEM_PREFIXES = {
    "dataloader_": _ORDER,
    "log_": _SAID,
    "logging_": _SAID,
    "trackio_": _SAID,
    "hub_": _SAVED,
    "save_": _SAVED,
    "eval_": _NO_EVALUATION,
    "do_": _NO_EVALUATION,
    "vllm_server_": _NO_SERVER,
}


def why_not(name: str) -> str | None:
    """Why an argument may not be written in `trainer.extra`, and what to do; None when it may."""
    where = f"spec.training.trainer.extra.{name}"
    if name not in NAMES:
        near = difflib.get_close_matches(name, sorted(NAMES), n=1)
        hint = f": did you mean {near[0]}?" if near else ": remove it"
        return f"{where} is no argument of TRL's GRPOConfig{hint}"
    if name in _FIELDS:
        return f"{where}: write spec.training.{_FIELDS[name]} instead"
    reason = _SYSTEM.get(name) or next((why for p, why in _SYSTEM_PREFIXES.items() if name.startswith(p)), None)
    return None if reason is None else f"{where} cannot be set: {reason}: remove it"


def problems(names: Iterable[str]) -> list[str]:
    """What is wrong with the names of `trainer.extra`, sorted; empty when nothing is."""
    return [why for name in sorted(names) if (why := why_not(name)) is not None]
