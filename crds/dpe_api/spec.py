"""`spec` of a DPEIteration: what a person writes. Field descriptions and bounds live here and nowhere else."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.diagnosis_spec import Diagnosis, Mixture, Probe
from dpe_api.endpoints import Endpoint
from dpe_api.fields import Confidence, Fraction, Name, S3Uri, rules


class IterationRef(ApiModel):
    """Another DPEIteration in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    """Its name. The iteration waits until the other one has finished."""


class Model(ApiModel):
    """The model to improve: exactly one of `uri` and `iterationRef`."""

    model_config = rules(
        (
            "has(self.uri) != has(self.iterationRef)",
            "spec.model needs exactly one of uri (s3://BUCKET/FOLDER) and iterationRef ({name: ITERATION})",
            "",
        )
    )
    uri: S3Uri | None = None
    """Folder of a Hugging Face model that vLLM can load, as s3://BUCKET/FOLDER."""
    iteration_ref: IterationRef | None = None
    """Continue from the model that another iteration accepted; sections left out here are taken from it."""


class RenderSource(ApiModel):
    """Images drawn by a program that knows the exact answer."""

    kind: Literal["render"]
    """Where images come from."""
    program: Name
    """Entry point in the group `dpe.generators`."""


class SolverFilter(ApiModel):
    """Keep candidates that the served model solves sometimes."""

    model_config = rules(
        (
            "self.minPassRate < self.maxPassRate",
            "spec.generation.filter.minPassRate must be below maxPassRate: swap them or widen the band",
            ".minPassRate",
        )
    )
    rollouts: Annotated[int, Field(ge=1, le=64)] = 9
    """Sampled answers per candidate."""
    min_pass_rate: Fraction = 0.3
    """A candidate solved less often is too hard."""
    max_pass_rate: Fraction = 0.8
    """A candidate solved more often is too easy."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature."""
    top_k: Annotated[int, Field(ge=-1, le=100_000)] = 40
    """Sampling top-k; -1 for the whole vocabulary."""


class Generation(ApiModel):
    """How many samples are made, from what, and which are kept."""

    model_config = rules(
        (
            "self.maxCandidates >= self.targetSamples",
            "spec.generation.maxCandidates must be at least targetSamples",
            ".maxCandidates",
        )
    )
    target_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Samples to train on; category quotas sum to it exactly."""
    max_candidates: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Candidates written before the shortfall is reported as such."""
    sources: Annotated[list[RenderSource], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: [RenderSource(kind="render", program="shapes")]
    )
    """Where images come from, by preference."""
    filter: SolverFilter = Field(default_factory=SolverFilter)
    """Difficulty filter by rollouts of the served model."""


class Serving(ApiModel):
    """vLLM replicas that answer for the base model and, later, for the candidate."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods."""
    gpus_per_replica: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of one pod, and vLLM's tensor parallel size; 0 serves on CPU."""
    pool: Name = "inference"
    """Node pool, as named in the Helm values."""
    max_model_len: Annotated[int, Field(ge=64, le=1_048_576)] = 8192
    """Longest prompt and answer together, in tokens."""
    extra_args: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=32)] = Field(
        default_factory=list
    )
    """More command line arguments of vLLM's API server."""


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


class Benchmark(ApiModel):
    """Questions that are never trained or diagnosed on."""

    name: Name
    """Name in status, metrics and reports."""
    uri: S3Uri
    """Folder of Parquet files, in the probe's columns."""


class Gate(ApiModel):
    """When the candidate replaces the model."""

    max_regression: Fraction = 0.01
    """The lower bound of the change in macro accuracy must be above minus this on every benchmark."""
    confidence: Confidence = 0.95
    """Confidence of that bound."""


class Evaluation(ApiModel):
    """What the candidate is compared on."""

    model_config = rules(
        (
            "self.benchmarks.all(b, self.benchmarks.exists_one(c, c.name == b.name))",
            "spec.evaluation.benchmarks: names must differ",
            ".benchmarks",
        )
    )
    benchmarks: Annotated[list[Benchmark], Field(max_length=32)] = Field(default_factory=list)
    """Parquet benchmarks; without any, the gate looks at the re-diagnosis."""
    gate: Gate = Field(default_factory=Gate)
    """Acceptance rule."""


class Retry(ApiModel):
    """Failures of a stage that are charged to it; disruptions are not."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Attempts per stage."""


SECTIONS = ("probe", "diagnosis", "mixture", "generation", "serving", "training", "evaluation", "endpoints")
"""Parts of the spec that an iteration with `model.iterationRef` takes from the other one when it leaves them out."""

_MUTABLE = ("suspend", "ttlSecondsAfterFinished", "retry")


def _endpoint_rule(field: str) -> tuple[str, str, str]:
    """That the endpoint named by a field like `diagnosis.judge` is in the list, or comes from the iterationRef."""
    parts = field.split(".")
    given = " && ".join(f"has(self.{'.'.join(parts[: i + 1])})" for i in range(len(parts)))
    named = f"self.{field}.endpoint"
    return (
        f"!({given} && has({named})) || (has(self.endpoints) ? self.endpoints.exists(e, e.name == {named}) : "
        "has(self.model.iterationRef))",
        f"spec.{field}.endpoint must be the name of an entry of spec.endpoints",
        f".{field}.endpoint",
    )


ENDPOINT_USERS = ("probe.categorise", "diagnosis.judge", "diagnosis.attribution")
"""Sections whose field `endpoint` names an entry of spec.endpoints."""


class Spec(ApiModel):
    """One turn of the spiral. Only `model` and, without an iterationRef, `probe` are required."""

    model_config = rules(
        (
            "has(self.probe) || has(self.model.iterationRef)",
            "spec.probe is required unless spec.model.iterationRef names an iteration to take it from",
            "",
        ),
        (
            "!has(self.endpoints) || self.endpoints.all(e, self.endpoints.exists_one(f, f.name == e.name))",
            "spec.endpoints: names must differ",
            ".endpoints",
        ),
        *(_endpoint_rule(user) for user in ENDPOINT_USERS),
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """All randomness derives from it, the round, the stage and the item."""
    model: Model
    """The model to improve."""
    probe: Probe | None = None
    """The questions that the model is diagnosed on."""
    diagnosis: Diagnosis | None = None
    """How the model is asked."""
    mixture: Mixture | None = None
    """How the diagnosis becomes the shares of the training data."""
    generation: Generation | None = None
    """How samples are made and which are kept."""
    serving: Serving | None = None
    """vLLM replicas."""
    training: Training | None = None
    """GRPO."""
    evaluation: Evaluation | None = None
    """What the candidate is compared on."""
    endpoints: Annotated[list[Endpoint], Field(max_length=32)] | None = None
    """Models of others that categorise, judge and attribute."""
    retry: Retry = Field(default_factory=Retry)
    """How many failures of a stage are forgiven. May change while running."""
    suspend: bool = False
    """Stop the running stage and start nothing until it is false again. May change while running."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Delete the resource (never its artifacts) this long after it finished. May change while running."""

    def resolve(self, previous: "ResolvedSpec | None" = None) -> "ResolvedSpec":
        """Fill the sections left out, from the referenced iteration if there is one, else with defaults.

        Raises ValueError when there is neither a probe nor an iteration to take it from.
        """
        taken: dict[str, object] = {}
        for section in SECTIONS:
            value = getattr(self, section)
            if value is None and previous is not None:
                value = getattr(previous, section)
            if value is not None:
                taken[section] = value
        if "probe" not in taken:
            raise ValueError("spec.probe is required unless spec.model.iterationRef names an iteration to take it from")
        return ResolvedSpec.model_validate({"seed": self.seed, **taken})


class ResolvedSpec(ApiModel):
    """The science of an iteration with nothing left out; kept in `status.resolved` once the iteration has started."""

    seed: int
    probe: Probe
    diagnosis: Diagnosis = Field(default_factory=Diagnosis)
    mixture: Mixture = Field(default_factory=Mixture)
    generation: Generation = Field(default_factory=Generation)
    serving: Serving = Field(default_factory=Serving)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    endpoints: list[Endpoint] = Field(default_factory=list)

    def unknown_endpoints(self) -> dict[str, str]:
        """Fields that name an endpoint which is not in the list, with that name."""
        known = {e.name for e in self.endpoints}
        judge, categorise = self.diagnosis.judge, self.probe.categorise
        named = {
            "spec.probe.categorise.endpoint": categorise and categorise.endpoint,
            "spec.diagnosis.judge.endpoint": judge and judge.endpoint,
            "spec.diagnosis.attribution.endpoint": self.diagnosis.attribution.endpoint,
        }
        return {field: name for field, name in named.items() if name and name not in known}

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The resolved form of a spec that refers to no other iteration."""
        return cls.model_validate(spec.resolve().model_dump())


def immutability_rule() -> dict[str, str]:
    """The CEL transition rule: once the iteration has left Pending, only `suspend`, ttl and `retry` may change."""
    fields = [f for f in Spec.model_json_schema(by_alias=True)["properties"] if f not in _MUTABLE]
    optional = set(fields) - {"seed", "model"}
    same = [
        f"(has(self.spec.{f}) == has(oldSelf.spec.{f}) && (!has(self.spec.{f}) || self.spec.{f} == oldSelf.spec.{f}))"
        if f in optional
        else f"self.spec.{f} == oldSelf.spec.{f}"
        for f in fields
    ]
    return {
        "rule": f"!has(oldSelf.status) || !has(oldSelf.status.resolved) || ({' && '.join(same)})",
        "message": "spec is immutable once the iteration has started, except suspend, ttlSecondsAfterFinished and "
        "retry: create a new DPEIteration instead",
    }
