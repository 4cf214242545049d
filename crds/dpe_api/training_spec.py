"""`spec.training`: GRPO over several nodes."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Name, rules

ROLLOUT_PROMPT_TOKENS = 8192
"""What vLLM keeps free for prompt and image beside the completion, while it samples for the trainer."""


class Precision(StrEnum):
    """Number format of weights and activations while training."""

    BF16 = "bf16"
    FP32 = "fp32"


class RolloutEngine(StrEnum):
    """What samples completions while training."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"


class DeepSpeed(ApiModel):
    """DeepSpeed settings."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 3
    """0: replicated, 1: optimizer, 2: and gradients, 3: and parameters are sharded over the ranks."""


class Training(ApiModel):
    """GRPO on the kept samples, over several nodes. Names are TRL's where TRL has one."""

    model_config = rules(
        (
            "(self.promptsPerStep * self.rolloutsPerPrompt) % "
            "(self.nodes * (self.gpusPerNode > 0 ? self.gpusPerNode : 1)) == 0",
            "spec.training.promptsPerStep * rolloutsPerPrompt must be a multiple of the number of ranks "
            "(nodes * gpusPerNode)",
            ".promptsPerStep",
        )
    )
    nodes: Annotated[int, Field(ge=1, le=256)] = 2
    """Pods, one on each node."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 8
    """GPUs of one pod, one rank each; 0 trains with one rank per pod on CPU."""
    pool: Name = "training"
    """Node pool, as named in the Helm values."""
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Optimizer steps."""
    prompts_per_step: Annotated[int, Field(ge=1, le=65536)] = 64
    """Distinct prompts of one optimizer step, over all ranks."""
    rollouts_per_prompt: Annotated[int, Field(ge=2, le=64)] = 8
    """Completions per prompt: the group that advantages are normalised in."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Completions per rank in one forward and backward pass; left out: all of the step's at once."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Peak learning rate."""
    warmup_steps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Steps until the learning rate is reached."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of the rollouts."""
    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the KL penalty against the base model."""
    max_completion_length: Annotated[int, Field(ge=1, le=32768)] = 512
    """Longest completion, in tokens."""
    precision: Precision = Precision.BF16
    """bf16 or fp32."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    rollout_engine: RolloutEngine = RolloutEngine.VLLM
    """vllm (colocated with the trainer, GPU only) or transformers."""
    deepspeed: DeepSpeed = Field(default_factory=DeepSpeed)
    """DeepSpeed settings."""
    checkpoint_every_steps: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Steps between checkpoints in the object store."""
