"""`spec` of a DPERun: several rounds of the spiral, one DPEIteration after the other."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.diagnosis_spec import Diagnosis, Mixture, Probe
from dpe_api.endpoints import Endpoint
from dpe_api.evaluation_spec import Evaluation
from dpe_api.fields import Fraction, S3Uri, rules
from dpe_api.generation_spec import Generation
from dpe_api.serving_spec import Serving
from dpe_api.spec import ENDPOINT_FIELDS, SOURCE_ENDPOINT_FIELDS, IterationRef, Model, Retry, Spec
from dpe_api.training_spec import Training

LONGEST_NAME = 35  # characters: `-ROUND-RETRY` is added, and an iteration's name has at most 40
MOST_ROUNDS = 99
MOST_RETRIES = 9
DEFAULT_RETRIES = 2

MUTABLE = ("suspend", "ttlSecondsAfterFinished", "maxIterations", "stop")
"""Fields that may change while the run goes on."""


def _endpoint_rule(field: str) -> tuple[str, str, str]:
    """That the endpoint named by a field like `diagnosis.judge.endpoint` is in the template's list."""
    parts = field.split(".")
    given = " && ".join(f"has(self.{'.'.join(parts[: i + 1])})" for i in range(len(parts)))
    return (
        f"!({given}) || (has(self.endpoints) && self.endpoints.exists(e, e.name == self.{field}))",
        f"spec.{field} must be the name of an entry of spec.endpoints",
        f".{field}",
    )


def _source_rule(field: str) -> tuple[str, str, str]:
    """A field of a source must name an endpoint."""
    return (
        "!has(self.generation) || !has(self.generation.sources) || self.generation.sources.all(s, "
        f"!has(s.{field}) || (has(self.endpoints) && self.endpoints.exists(e, e.name == s.{field})))",
        f"spec.generation.sources[].{field} must be the name of an entry of spec.endpoints",
        ".generation.sources",
    )


class Template(ApiModel):
    """The spec of every round's DPEIteration, but for what the run itself decides: `model`, and whether it goes on."""

    model_config = rules(
        (
            "!has(self.endpoints) || self.endpoints.all(e, self.endpoints.exists_one(f, f.name == e.name))",
            "spec.endpoints: names must differ",
            ".endpoints",
        ),
        *(_endpoint_rule(field) for field in ENDPOINT_FIELDS),
        *(_source_rule(field) for field in SOURCE_ENDPOINT_FIELDS),
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """All randomness derives from it, the round, the stage and the item."""
    probe: Probe
    """The questions that the model is diagnosed on; each round draws other rows."""
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
    """What each candidate is compared on. The first benchmark, else the probe, is what the run's stop rules look at."""
    endpoints: Annotated[list[Endpoint], Field(max_length=32)] | None = None
    """Models of others that categorise, judge and attribute."""
    retry: Retry = Field(default_factory=Retry)
    """How many failures of a stage are forgiven in each round."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Where the platform limits how many iterations run at once, higher goes first; of equal ones the oldest."""

    def iteration(self, model: Model, seed: int) -> Spec:
        """The spec of one round."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return Spec.model_validate({**own, "model": model, "seed": seed})


class RunBase(ApiModel):
    """The model that the first round starts from."""

    uri: S3Uri
    """Folder of a Hugging Face model that vLLM can load, as s3://BUCKET/FOLDER."""


class OnRejected(StrEnum):
    """What follows a round whose candidate failed the gate."""

    STOP = "stop"
    RETRY = "retryWithAnotherSeed"
    CONTINUE = "continueFromAccepted"


class Stop(ApiModel):
    """When the run ends before `maxIterations`. Looked at between rounds: a round that has begun is not cut short."""

    no_gain_rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] | None = None
    """End after so many rounds in a row without gain. A gain is an accepted candidate whose change of macro accuracy
    has a lower bound above 0."""
    target_accuracy: Fraction | None = None
    """End when the accepted model's macro accuracy is at least this."""
    gpu_seconds: Annotated[float, Field(gt=0)] | None = None
    """End when all rounds together have used this much GPU time."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """End when all rounds together have used so many tokens, prompts and completions of every model."""


class RunSpec(ApiModel):
    """Several rounds of the spiral: each diagnoses, trains and judges what the one before accepted."""

    model_config = rules(
        (
            "!has(self.maxRetries) || self.onRejected == 'retryWithAnotherSeed'",
            "spec.maxRetries belongs to onRejected retryWithAnotherSeed only: remove it",
            ".maxRetries",
        )
    )
    model: RunBase
    """The model to improve."""
    template: Template
    """The spec of every round's DPEIteration, without `model`."""
    max_iterations: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] = 3
    """Rounds, rejected ones included; retries of a round are not counted. May change while the run goes on."""
    stop: Stop = Field(default_factory=Stop)
    """When the run ends earlier. May change while the run goes on."""
    on_rejected: OnRejected = OnRejected.CONTINUE
    """stop, retryWithAnotherSeed (the same round once more, with other samples) or continueFromAccepted (the next
    round, from the model that still stands)."""
    max_retries: Annotated[int, Field(ge=1, le=MOST_RETRIES)] | None = None
    """retryWithAnotherSeed: most retries of one round, after which the run ends; left out: 2."""
    suspend: bool = False
    """Suspend the round that runs and begin no other until it is false again. May change while the run goes on."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Delete the run and its iterations (never their artifacts) this long after it finished, and not before iterations
    of others that refer to one of them have started. May change at any time."""

    @property
    def retries(self) -> int:
        """Most retries of one round."""
        if self.on_rejected is not OnRejected.RETRY:
            return 0
        return DEFAULT_RETRIES if self.max_retries is None else self.max_retries

    def first(self, seed: int) -> Spec:
        """The spec of an iteration that starts from the run's base model."""
        return self.template.iteration(Model(uri=self.model.uri), seed)

    def after(self, iteration: str, seed: int) -> Spec:
        """The spec of an iteration that continues from what another one accepted."""
        return self.template.iteration(Model(iteration_ref=IterationRef(name=iteration)), seed)


def run_immutability_rule() -> dict[str, str]:
    """The CEL transition rule: once the run has begun its first round, only some fields may change."""
    fields = [f for f in RunSpec.model_json_schema(by_alias=True)["properties"] if f not in MUTABLE]
    same = [
        f"(has(self.spec.{f}) == has(oldSelf.spec.{f}) && (!has(self.spec.{f}) || self.spec.{f} == oldSelf.spec.{f}))"
        if f == "maxRetries"
        else f"self.spec.{f} == oldSelf.spec.{f}"
        for f in fields
    ]
    return {
        # the first comparison is for patches of the status: see immutability_rule
        "rule": "!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec == oldSelf.spec "
        f"|| ({' && '.join(same)})",
        "message": "spec is immutable once the run has begun, except suspend, ttlSecondsAfterFinished, maxIterations "
        "and stop: create a new DPERun instead",
    }
