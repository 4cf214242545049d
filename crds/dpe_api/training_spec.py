"""`spec.training`: GRPO over several nodes."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue

from dpe_api.base import ApiModel
from dpe_api.fields import Fraction, Name, rules


class Precision(StrEnum):
    """Number format of weights and activations while training."""

    BF16 = "bf16"
    FP32 = "fp32"


class RolloutEngine(StrEnum):
    """What samples completions while training."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"


class LossType(StrEnum):
    """How token losses become one number, as TRL names them."""

    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    DAPO = "dapo"
    BNPO = "bnpo"
    CISPO = "cispo"
    SAPO = "sapo"
    LUSPO = "luspo"
    VESPO = "vespo"


class ScaleRewards(StrEnum):
    """By what deviation advantages are divided."""

    GROUP = "group"
    BATCH = "batch"
    NONE = "none"


class ImportanceSamplingLevel(StrEnum):
    """Per what the probability ratio is clipped."""

    TOKEN = "token"
    SEQUENCE = "sequence"


class LrScheduler(StrEnum):
    """Course of the learning rate after its warmup."""

    CONSTANT = "constant_with_warmup"
    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    INVERSE_SQRT = "inverse_sqrt"


class ModelPart(StrEnum):
    """Part of a multimodal model."""

    VISION = "vision"
    PROJECTOR = "projector"
    LANGUAGE = "language"


class DeepSpeed(ApiModel):
    """DeepSpeed settings."""

    model_config = rules(
        (
            "!self.offloadOptimizer || self.zeroStage >= 1",
            "spec.training.deepspeed.offloadOptimizer needs zeroStage 1, 2 or 3: raise zeroStage or set it to false",
            ".offloadOptimizer",
        ),
        (
            "!self.offloadParam || self.zeroStage == 3",
            "spec.training.deepspeed.offloadParam needs zeroStage 3: raise zeroStage or set it to false",
            ".offloadParam",
        ),
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 3
    """0: replicated, 1: optimizer, 2: and gradients, 3: and parameters are sharded over the ranks."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in host memory, and step there: slower, with more room on the GPU."""
    offload_param: bool = False
    """Keep parameters in host memory too, and bring each layer to the GPU when it is used. Only with zeroStage 3."""


class Lora(ApiModel):
    """Low-rank adapters (peft) instead of full weights. The merged model and the adapter are published."""

    r: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update matrices."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the update."""
    target_modules: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    """Names of the modules to adapt, as peft matches them; empty: every linear layer of the parts that are not frozen,
    but for the head."""


class CustomReward(ApiModel):
    """A reward function of yours."""

    model_config = rules(
        (
            "!(self.name in ['answer', 'format', 'length'])",
            "spec.training.rewards.custom: answer, format and length are parts that the system has: rename the entry "
            "point",
            ".name",
        ),
    )
    name: Name
    """Entry point in the group `dpe.rewards`. Not answer, format or length, which are parts of the system's own."""
    weight: Annotated[float, Field(ge=-100, le=100)] = 1.0
    """Factor of what it returns."""


class Rewards(ApiModel):
    """What a completion earns: the weighted sum of its parts."""

    model_config = rules(
        (
            "self.answer > 0.0 || (has(self.custom) && self.custom.exists(c, c.weight != 0.0))",
            "spec.training.rewards: nothing rewards an answer: set answer above 0 or add a custom reward",
            ".answer",
        ),
        (
            "!has(self.custom) || self.custom.all(c, self.custom.exists_one(d, d.name == c.name))",
            "spec.training.rewards.custom: names must differ",
            ".custom",
        ),
    )
    answer: Annotated[float, Field(ge=0, le=100)] = 1.0
    """For a right answer, by the graders of the diagnosis; 0 for a wrong one."""
    format: Annotated[float, Field(ge=0, le=100)] = 0.0
    """For a completion in the form that its question asks for (`\\boxed{}`, `<answer>` tags, the letter alone, JSON);
    where the question asks for no form every completion earns it."""
    length_penalty: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Most that a long completion loses: nothing up to maxCompletionLength - lengthPenaltyTokens, all of it at
    maxCompletionLength (DAPO, eq. 13)."""
    length_penalty_tokens: Annotated[int, Field(ge=1, le=32768)] = 128
    """Tokens before maxCompletionLength over which the penalty grows."""
    custom: Annotated[list[CustomReward], Field(max_length=16)] = Field(default_factory=list)
    """Functions of yours."""


class Warmup(ApiModel):
    """Supervised fine-tuning (TRL's SFTTrainer) before GRPO, on samples of the categories that are out of reach: there
    rollouts are all wrong, and equal rewards give no gradient. Nothing is done in a round without such a category.
    """

    max_steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Samples of one optimizer step, over all ranks."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Constant; the optimizer's other settings are those of GRPO."""
    samples_per_category: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Samples that generation keeps of each category out of reach, beside its quota."""
    retention_share: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Part of each batch that is retention samples, which anchor what the model can do: generation makes as many of all
    other categories, beside their quotas, as keep this share."""


class Guards(ApiModel):
    """When a run has gone astray and stops with a reason, before it wastes a night. Windows are in optimizer steps."""

    window: Annotated[int, Field(ge=2, le=1000)] = 20
    """Steps that must look bad, one after the other, before a run is stopped for it. Half of maxSteps, and at least 5,
    where that is less."""
    max_reward_drop: Annotated[float, Field(gt=0, le=1)] = 0.5
    """RewardCollapse: the mean reward of a window lies below its best earlier one by more than this part of it."""
    min_entropy: Annotated[float, Field(ge=0, le=10)] = 1e-4
    """EntropyCollapse: nats per token; every step of a window lies below, and yet answers are wrong."""
    max_equal_rewards: Fraction = 1.0
    """EqualRewards: every step of a window has at least this share of groups with equal rewards, and yet answers are
    wrong: there is next to no gradient. Groups that are equal because all is right end the training early instead."""
    max_kl: Annotated[float, Field(gt=0, le=1000)] | None = None
    """KlAboveBound: nats per token between model and base, in any step; left out: no bound. Needs beta above 0, without
    which it is not measured."""
    max_logp_difference: Annotated[float, Field(gt=0, le=10)] = 0.5
    """SamplingMismatch: nats per token between rollout engine and trainer, mean of a step; vllm only. Rounding of bf16
    gives a few hundredths, other image tokens far more."""


class Trainer(ApiModel):
    """Arguments of TRL's GRPOConfig that have no field of their own here."""

    extra: Annotated[
        dict[str, JsonValue],
        # a schema for every key: CEL finds two maps equal that share no key and have as many, if keys have none
        Field(
            max_length=64,
            json_schema_extra={"additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}},
        ),
    ] = Field(default_factory=dict)
    """By TRL's names, such as `{top_p: 0.95, adam_beta2: 0.98}`. An unknown one is refused, and so is one that another
    field or the system sets."""


class Training(ApiModel):
    """GRPO on the kept samples, over several nodes. Names are TRL's where TRL has one."""

    model_config = rules(
        (
            "(self.promptsPerStep * self.rolloutsPerPrompt) % "
            "(self.nodes * (self.gpusPerNode > 0 ? self.gpusPerNode : 1)) == 0",
            "spec.training.promptsPerStep * rolloutsPerPrompt must be a multiple of the number of ranks "
            "(nodes * gpusPerNode)",
            ".promptsPerStep",
        ),
        (
            "self.gpusPerNode > 0 || self.rolloutEngine != 'vllm'",
            "spec.training.gpusPerNode is 0 and rolloutEngine vllm, which samples on GPUs: write rolloutEngine "
            "transformers, or give it GPUs",
            ".rolloutEngine",
        ),
        (
            "!has(self.microBatchSize) || self.microBatchSize >= (self.promptsPerStep * self.rolloutsPerPrompt) / "
            "(self.nodes * (self.gpusPerNode > 0 ? self.gpusPerNode : 1)) || ((self.promptsPerStep * "
            "self.rolloutsPerPrompt) / (self.nodes * (self.gpusPerNode > 0 ? self.gpusPerNode : 1))) "
            "% self.microBatchSize == 0",
            "spec.training.microBatchSize must divide what each rank has of a step: promptsPerStep * "
            "rolloutsPerPrompt / (nodes * gpusPerNode)",
            ".microBatchSize",
        ),
        (
            "self.maxSteps % self.numIterations == 0 && self.checkpointEverySteps % self.numIterations == 0",
            "spec.training.maxSteps and checkpointEverySteps must be multiples of numIterations: a checkpoint between "
            "two updates on the same rollouts cannot be resumed exactly",
            ".numIterations",
        ),
        (
            "!has(self.epsilonHigh) || self.epsilonHigh >= self.epsilon",
            "spec.training.epsilonHigh must be at least epsilon",
            ".epsilonHigh",
        ),
        (
            "self.lossType != 'cispo' || !has(self.epsilonHigh) || self.epsilonHigh >= 1.0",
            "spec.training.epsilonHigh must be 1 or more with lossType cispo, which cuts the ratio itself at it: leave "
            "it out for 5",
            ".epsilonHigh",
        ),
        (
            "!has(self.guards) || !has(self.guards.maxKl) || self.beta > 0.0",
            "spec.training.guards.maxKl needs beta above 0: KL is not measured without it",
            ".guards.maxKl",
        ),
        (
            "!has(self.rewards) || self.rewards.lengthPenalty == 0.0 || "
            "self.rewards.lengthPenaltyTokens <= self.maxCompletionLength",
            "spec.training.rewards.lengthPenaltyTokens must not be above maxCompletionLength",
            ".rewards.lengthPenaltyTokens",
        ),
        (
            "!has(self.warmup) || self.warmup.batchSize % "
            "(self.nodes * (self.gpusPerNode > 0 ? self.gpusPerNode : 1)) == 0",
            "spec.training.warmup.batchSize must be a multiple of the number of ranks (nodes * gpusPerNode)",
            ".warmup.batchSize",
        ),
        (
            "!has(self.freeze) || size(self.freeze) < 3",
            "spec.training.freeze: with all three parts frozen there is nothing to train: remove one",
            ".freeze",
        ),
    )
    nodes: Annotated[int, Field(ge=1, le=256)] = 2
    """Pods, one on each node where the pool has room for that. May be changed after the start: the next attempt of the
    training has it."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 8
    """GPUs of one pod, one rank each; 0 trains with one rank per pod on CPU. May be changed like nodes."""
    pool: Name = "training"
    """Node pool, as named in the Helm values."""
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Optimizer steps."""
    prompts_per_step: Annotated[int, Field(ge=1, le=65536)] = 64
    """Distinct prompts of one optimizer step, over all ranks."""
    rollouts_per_prompt: Annotated[int, Field(ge=2, le=64)] = 8
    """Completions per prompt: the group that advantages are normalised in."""
    num_iterations: Annotated[int, Field(ge=1, le=16)] = 1
    """Optimizer steps on the same rollouts."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Completions per rank in one forward and backward pass; left out: all of the step's at once."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Peak learning rate."""
    lr_scheduler_type: LrScheduler = LrScheduler.CONSTANT
    """Course of the learning rate after warmupSteps."""
    warmup_steps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Steps until the learning rate is reached."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are scaled down to this norm."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of the rollouts."""
    loss_type: LossType = LossType.DAPO
    """How token losses are summed up."""
    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the KL penalty against the model that GRPO starts from: the base, or what the warm-up made of it."""
    epsilon: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Clip range of the probability ratio, below 1 and, without epsilonHigh, above it."""
    epsilon_high: Annotated[float, Field(gt=0, le=10)] | None = None
    """Clip range above 1; 0.28 is DAPO's. With lossType cispo the bound of the ratio itself, 1 or more, and 5 when left
    out."""
    scale_rewards: ScaleRewards = ScaleRewards.GROUP
    """By what deviation advantages are divided."""
    importance_sampling_level: ImportanceSamplingLevel = ImportanceSamplingLevel.TOKEN
    """token, or sequence (GSPO)."""
    mask_truncated_completions: bool = False
    """Leave completions out of the loss that reached maxCompletionLength."""
    max_completion_length: Annotated[int, Field(ge=1, le=32768)] = 512
    """Longest completion, in tokens."""
    max_prompt_length: Annotated[int, Field(ge=1, le=131_072)] = 8192
    """Longest prompt with its image tokens: the room that vllm keeps beside the completion."""
    rewards: Rewards = Field(default_factory=Rewards)
    """What a completion earns."""
    precision: Precision = Precision.BF16
    """bf16 or fp32."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    rollout_engine: RolloutEngine = RolloutEngine.VLLM
    """vllm (colocated with the trainer, GPU only) or transformers."""
    deepspeed: DeepSpeed = Field(default_factory=DeepSpeed)
    """DeepSpeed settings."""
    lora: Lora | None = None
    """Train low-rank adapters; left out: full weights."""
    freeze: Annotated[list[ModelPart], Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})] = (
        Field(default_factory=list)
    )
    """Parts that are not trained."""
    checkpoint_every_steps: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Steps between checkpoints in the object store. One is written after the first step too."""
    save_total_limit: Annotated[int, Field(ge=1, le=100)] = 2
    """Newest complete checkpoints that stay in the store, beside the one with the best reward."""
    guards: Guards = Field(default_factory=Guards)
    """When a run has gone astray."""
    warmup: Warmup | None = None
    """Supervised steps before GRPO for the categories that are out of reach; left out: none."""
    trainer: Trainer = Field(default_factory=Trainer)
    """Further arguments of TRL's GRPOConfig."""
