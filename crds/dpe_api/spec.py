"""`spec` of a DPEIteration: what a person writes. Field descriptions and bounds live here and nowhere else."""

from typing import Annotated, Any, Self

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.diagnosis_spec import Diagnosis, Mixture, Probe
from dpe_api.endpoints import Endpoint
from dpe_api.evaluation_spec import Evaluation
from dpe_api.fields import S3Uri, rules
from dpe_api.generation_spec import Generation
from dpe_api.serving_spec import Serving
from dpe_api.training_spec import RolloutEngine, Training


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


class Retry(ApiModel):
    """Failures of a stage that are charged to it; disruptions are not."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Attempts per stage."""


SECTIONS = ("probe", "diagnosis", "mixture", "generation", "serving", "training", "evaluation", "endpoints")
"""Parts of the spec that an iteration with `model.iterationRef` takes from the other one when it leaves them out."""

_MUTABLE = ("priority", "suspend", "ttlSecondsAfterFinished", "retry")
_MUTABLE_OF_TRAINING = ("nodes", "gpusPerNode")
"""A training goes on from its checkpoint with another number of ranks: the next attempt has it."""


def _endpoint_rule(field: str) -> tuple[str, str, str]:
    """That the endpoint named by a field is in the list, or comes from the iterationRef."""
    parts = field.split(".")
    given = " && ".join(f"has(self.{'.'.join(parts[: i + 1])})" for i in range(len(parts)))
    named = f"self.{field}"
    return (
        f"!({given}) || (has(self.endpoints) ? self.endpoints.exists(e, e.name == {named}) : "
        "has(self.model.iterationRef))",
        f"spec.{field} must be the name of an entry of spec.endpoints",
        f".{field}",
    )


def _source_rule(field: str) -> tuple[str, str, str]:
    """A field of a source must name an endpoint of this spec, or of the iteration that it refers to."""
    return (
        "!has(self.generation) || !has(self.generation.sources) || self.generation.sources.all(s, "
        f"!has(s.{field}) || (has(self.endpoints) ? self.endpoints.exists(e, e.name == s.{field}) : "
        "has(self.model.iterationRef)))",
        f"spec.generation.sources[].{field} must be the name of an entry of spec.endpoints",
        ".generation.sources",
    )


ENDPOINT_FIELDS = (
    "probe.categorise.endpoint",
    "diagnosis.judge.endpoint",
    "diagnosis.attribution.endpoint",
    "generation.planner.endpoint",
    "generation.selector.endpoint",
    "generation.writer.endpoint",
    "generation.validator.endpoint",
    "generation.validator.blindEndpoint",
    "generation.quality.safety.endpoint",
)
"""Fields that name an entry of spec.endpoints, beside those of sources."""
SOURCE_ENDPOINT_FIELDS = ("endpoint", "embedder")
"""Those of sources."""


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
        (
            "!has(self.serving) || !has(self.serving.keepRunning) || !self.serving.keepRunning || "
            "!has(self.generation) || !has(self.generation.review) || self.generation.review != 'required'",
            "spec.serving.keepRunning cannot be true where spec.generation.review is required: nothing is served while "
            "a person looks at the samples",
            ".serving.keepRunning",
        ),
        *(_endpoint_rule(field) for field in ENDPOINT_FIELDS),
        *(_source_rule(field) for field in SOURCE_ENDPOINT_FIELDS),
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """All randomness derives from it, the round, the stage and the item; left out: that of the iteration that is
    continued from, so that its rows are followed by others, else 0."""
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
    """Models of others that categorise, judge, attribute, and make samples."""
    retry: Retry = Field(default_factory=Retry)
    """How many failures of a stage are forgiven. May change while running."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Where the platform limits how many iterations run at once, the highest goes first, among equals the oldest.
    Nothing that runs is stopped for it. May change at any time."""
    suspend: bool = False
    """Stop the running stage and start nothing until it is false again. May change while running."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Delete the resource (never its artifacts) this long after it finished, and not before iterations that refer to it
    have started. May change while running."""

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
        inherited = previous.seed if previous is not None else 0
        return ResolvedSpec.model_validate({"seed": inherited if self.seed is None else self.seed, **taken})


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

    @property
    def context_tokens(self) -> int:
        """What a sample must fit in: the server's context, and the trainer's where vLLM samples for it."""
        training = self.training
        rollouts = training.max_completion_length + training.max_prompt_length
        by_vllm = training.rollout_engine is RolloutEngine.VLLM
        return min(self.serving.max_model_len, rollouts) if by_vllm else self.serving.max_model_len

    @property
    def answer_tokens(self) -> int:
        """The longest answer that is asked for."""
        return max(self.diagnosis.max_tokens, self.training.max_completion_length)

    def named_endpoints(self) -> dict[str, str]:
        """Fields that name an endpoint, with that name."""
        wire, named = self.wire(), {}
        for field in ENDPOINT_FIELDS:
            value: Any = wire
            for part in field.split("."):
                value = (value or {}).get(part)
            if value is not None:
                named[f"spec.{field}"] = str(value)
        for number, source in enumerate(self.generation.sources):
            for field in SOURCE_ENDPOINT_FIELDS:
                if (name := getattr(source, field)) is not None:
                    named[f"spec.generation.sources[{number}].{field}"] = str(name)
        return named

    def unknown_endpoints(self) -> dict[str, str]:
        """Fields that name an endpoint which is not in the list, with that name."""
        known = {e.name for e in self.endpoints}
        return {field: name for field, name in self.named_endpoints().items() if name not in known}

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The resolved form of a spec that refers to no other iteration."""
        return cls.model_validate(spec.resolve().model_dump())


def _unchanged(field: str, inside: str | None = None) -> str:
    """CEL: a field that may be left out is as it was. `inside`: what holds of it instead of equality."""
    ours, before = f"self.{field}", f"oldSelf.{field}"
    return f"(has({ours}) == has({before}) && (!has({ours}) || {f'({inside})' if inside else f'{ours} == {before}'}))"


def immutability_rule() -> dict[str, str]:
    """The CEL transition rule: once the iteration has left Pending, only a few fields may change.

    The API server evaluates it for each patch of the status, too. There the spec is the same, and saying so first
    spares it the walk to each field, which was more than half of what such a patch costs it.
    """
    fields = [f for f in Spec.model_json_schema(by_alias=True)["properties"] if f not in _MUTABLE]
    optional = set(fields) - {"model"}
    of_training = [f for f in Training.model_json_schema(by_alias=True)["properties"] if f not in _MUTABLE_OF_TRAINING]
    inside = {"training": " && ".join(_unchanged(f"spec.training.{f}") for f in of_training)}
    fields.remove("seed")
    same = [
        # it had a default of 0 once, which is in objects of that time and in no manifest that replaces them
        "(has(self.spec.seed) ? self.spec.seed : 0) == (has(oldSelf.spec.seed) ? oldSelf.spec.seed : 0)",
        *(
            _unchanged(f"spec.{f}", inside.get(f)) if f in optional else f"self.spec.{f} == oldSelf.spec.{f}"
            for f in fields
        ),
    ]
    return {
        "rule": "!has(oldSelf.status) || !has(oldSelf.status.resolved) || self.spec == oldSelf.spec "
        f"|| ({' && '.join(same)})",
        "message": "spec is immutable once the iteration has started, except priority, suspend, "
        "ttlSecondsAfterFinished, retry, training.nodes and training.gpusPerNode: create a new DPEIteration instead",
    }
