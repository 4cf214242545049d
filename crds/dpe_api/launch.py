"""The whole input of a stage pod: one immutable ConfigMap, mounted at /etc/dpe/launch.json."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from dpe_api.artifacts import IterationId
from dpe_api.base import ApiModel
from dpe_api.diagnosis_spec import Diagnosis, Mixture, Probe
from dpe_api.endpoints import Endpoint
from dpe_api.evaluation_spec import Benchmark, Evaluation, LmmsEvalTask
from dpe_api.generation_spec import Generation
from dpe_api.names import LAUNCH_PATH, Stage
from dpe_api.training_spec import Training, Warmup


class StoreAddress(ApiModel):
    """Where the object store is. Credentials come from the environment, never from here."""

    endpoint: str
    """http://HOST:PORT or https://HOST[:PORT]."""
    region: str = "us-east-1"


class Downloads(ApiModel):
    """How images are downloaded from the web: the platform's part of it."""

    user_agent: Annotated[str, Field(max_length=256, pattern=r"^[ -~]*$")] = ""
    """Sent to image hosts and image searches; its first word is looked for in robots.txt; empty: dpe/VERSION."""
    allow: list[str] = Field(default_factory=list)
    """Hosts, addresses and CIDR networks that may be reached at any port although they are not the Internet's."""


class ServedModel(ApiModel):
    """A model behind an OpenAI-compatible API."""

    url: str
    """Base address, without /v1; empty: it is not served, and nobody asks it."""
    uri: str
    """s3:// folder of the weights that it serves."""
    max_model_len: int | None = None
    """Most tokens of a prompt and its answer that it was started for; left out: not told."""
    extra_args: list[str] = Field(default_factory=list)
    """More arguments that it was started with."""


class _Launch(ApiModel):
    iteration: IterationId
    attempt: int
    seed: int
    round: int = 0
    store: StoreAddress
    output: str
    """s3:// folder of this stage's artifact, ledger, progress and exit reports."""


class _ModelLaunch(_Launch):
    model_uri: str
    model_cache_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most that the cache of models at MODEL_CACHE_DIR may hold; left out: there is none."""


class ServingLaunch(_ModelLaunch):
    """vLLM: the init container fetches the model, the main one serves it."""

    stage: Literal[Stage.SERVE_BASE, Stage.SERVE_CANDIDATE]
    max_model_len: int
    tensor_parallel_size: int
    extra_args: list[str] = Field(default_factory=list)
    next_model_uri: str | None = None
    """s3:// folder of the model whose weights are taken in place as soon as it is published; left out: none."""


class DiagnosisLaunch(_Launch):
    """Ask probe and benchmarks, grade, report, and turn the report into quotas."""

    stage: Literal[Stage.DIAGNOSIS]
    model: ServedModel
    probe: Probe
    benchmarks: list[Benchmark]
    diagnosis: Diagnosis
    mixture: Mixture
    generation: Generation
    endpoints: list[Endpoint] = Field(default_factory=list)
    lmms_eval: list[LmmsEvalTask] = Field(default_factory=list)
    """Public benchmarks that lmms-eval asks."""
    reuse: str | None = None
    """Artifact folder whose answers are taken when its fingerprint is the same."""
    previous: str | None = None
    """Folder of the referenced iteration's artifacts: its mixture and what came of it."""


class GenerationLaunch(_Launch):
    """Make samples for the quotas of a diagnosis."""

    stage: Literal[Stage.GENERATION]
    model: ServedModel
    diagnosis_artifact: str
    """s3:// folder with mixture.json and report.json."""
    probe: str
    """s3:// folder of the questions that were asked: agents are shown some with their images."""
    generation: Generation
    max_tokens: int
    concurrency: int
    max_error_rate: float
    context_tokens: int
    """Most tokens of a prompt, its picture and its answer that serving and training leave room for."""
    answer_tokens: int
    """Longest answer while it is served or trained, in tokens."""
    max_pixels: int = 1_003_520
    """A larger image is scaled down, as it is for the diagnosis; so it is stored and trained on."""
    warmup: Warmup | None = None
    """Of training: which samples are kept for it, beside the quotas; left out: none."""
    decontaminate: list[str]
    """s3:// folders of question sets whose images and questions must not be trained on."""
    downloads: Downloads = Field(default_factory=Downloads)
    endpoints: list[Endpoint] = Field(default_factory=list)
    """Those that the agents and edits use."""
    reviewed: bool = False
    """A person has accepted the draft: make the generation of it and of what is marked. No model is asked."""


class TrainingLaunch(_ModelLaunch):
    """GRPO on the samples. Every pod of the gang gets the same launch."""

    stage: Literal[Stage.TRAINING]
    samples_artifact: str
    """s3:// folder with samples/*.parquet, and warmup/*.parquet where categories are out of reach."""
    training: Training
    max_pixels: int = 1_003_520
    """A larger image is scaled down, as it is for the diagnosis."""
    rendezvous_host: str
    """DNS name of the gang's first pod."""


class EvaluationLaunch(_Launch):
    """Ask the candidate what the base was asked, compare, and decide."""

    stage: Literal[Stage.EVALUATION]
    model: ServedModel
    probe: Probe
    benchmarks: list[Benchmark]
    diagnosis: Diagnosis
    endpoints: list[Endpoint] = Field(default_factory=list)
    diagnosis_artifact: str
    """s3:// folder with the base model's answers."""
    evaluation: Evaluation
    previous: str | None = None
    """Folder of the referenced iteration's artifacts: the rounds up to it are shown beside this one."""


Launch = Annotated[
    ServingLaunch | DiagnosisLaunch | GenerationLaunch | TrainingLaunch | EvaluationLaunch,
    Field(discriminator="stage"),
]
_ADAPTER: TypeAdapter[Launch] = TypeAdapter(Launch)


def parse_launch(text: str | bytes) -> Launch:
    """The launch of any stage; ValidationError names the field at fault."""
    return _ADAPTER.validate_json(text)


def read_launch(path: str = LAUNCH_PATH) -> Launch:
    """The launch of this pod."""
    return parse_launch(Path(path).read_bytes())
