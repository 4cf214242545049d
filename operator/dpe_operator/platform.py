"""Platform facts: what the Helm values tell the operator about the cluster. Read once, at start, from a YAML file.

Nothing here is science (that is in the resource) and nothing in the resource names a node, an image or a credential.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from kubernetes.utils.quantity import parse_quantity
from pydantic import Field, field_validator

from dpe_api.base import ApiModel
from dpe_api.launch import Downloads
from dpe_api.names import Stage

PLATFORM_PATH = "/etc/dpe/platform.yaml"

KubernetesObject = dict[str, Any]


class ObjectStore(ApiModel):
    """The S3 service that holds every artifact."""

    endpoint: str
    """http://HOST:PORT or https://HOST[:PORT], as pods reach it."""
    region: str = "us-east-1"
    bucket: str
    prefix: str = ""
    """Folder inside the bucket."""
    credentials_secret: str
    """Secret with the keys accessKey and secretKey, in the namespace of the iterations."""


class Container(ApiModel):
    """How a kind of pod is started. `command` is followed by the arguments of the stage."""

    image: str
    pull_policy: str = "IfNotPresent"
    command: list[str] = Field(default_factory=lambda: ["python3", "-m", "dpe_jobs"])
    env: list[KubernetesObject] = Field(default_factory=list)
    resources: KubernetesObject = Field(default_factory=dict)
    """Requests and limits, GPUs left out: those come from the resource."""


class LmmsEval(Container):
    """Diagnosis and evaluation where lmms-eval asks public benchmarks, too."""

    data: KubernetesObject
    """A Kubernetes volume source, mounted read-only: the data sets of the tasks."""


class Pods(ApiModel):
    """What every job pod gets."""

    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    image_pull_secrets: list[KubernetesObject] = Field(default_factory=list)
    service_account_name: str = "default"
    run_as_user: int | None = 65532
    """User and group of every pod; null: whatever the namespace's own policy fills in (OpenShift)."""
    extra_volumes: list[KubernetesObject] = Field(default_factory=list)
    extra_volume_mounts: list[KubernetesObject] = Field(default_factory=list)
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class Pool(ApiModel):
    """A node pool."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[KubernetesObject] = Field(default_factory=list)
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that a GPU is requested by."""
    extended_resources: dict[str, str] = Field(default_factory=dict)
    """Further extended resources that each pod with GPUs requests: adapters for RDMA, for one."""
    shared_memory: Annotated[str, Field(coerce_numbers_to_str=True)] = "2Gi"
    """Size of /dev/shm."""
    scratch: KubernetesObject | None = None
    """A Kubernetes volume source for the model of a pod and for what it writes; left out: emptyDirs of the node."""
    runtime_class_name: str | None = None
    """Left out: that of all pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of pods in this pool, beside those of all pods (further networks, for one)."""
    env: list[KubernetesObject] = Field(default_factory=list)
    """Environment of pods in this pool (NCCL settings, for one)."""
    max_iterations: Annotated[int, Field(ge=1)] | None = None
    """Iterations that may use the pool at once; left out: any number."""


class ModelCache(ApiModel):
    """A volume in which pods keep downloaded models for those that come after them."""

    volume: KubernetesObject | None = None
    """A Kubernetes volume source, persistentVolumeClaim for one; left out: every pod downloads its model."""
    max_size: Annotated[str, Field(coerce_numbers_to_str=True)] = "500Gi"
    """Of all models in it together: a Kubernetes quantity."""

    @field_validator("max_size")
    @classmethod
    def _is_a_size(cls, size: str) -> str:
        if parse_quantity(size) < 1:  # ValueError where it is no quantity at all
            raise ValueError(f"{size!r} is no size: write one such as 500Gi")
        return size

    @property
    def max_bytes(self) -> int:
        """The same as a number."""
        return int(parse_quantity(self.max_size))


class Limits(ApiModel):
    """How many iterations run at once; the others wait in the order of priority and age."""

    iterations_per_namespace: Annotated[int, Field(ge=1)] | None = None
    """Left out: any number."""


class Deadlines(ApiModel):
    """Longest waits, in seconds, before an attempt is given up with a reason."""

    scheduling: Annotated[int, Field(ge=1)] = 3600
    """A pod that fits nowhere."""
    image_pull: Annotated[int, Field(ge=1)] = 900
    """A pod whose image or volumes do not come."""
    model_download: Annotated[int, Field(ge=1)] = 7200
    """The model on its way from the store to the pod, before vLLM or a training begins."""
    startup: Annotated[int, Field(ge=1)] = 1800
    """vLLM until it is ready, from its own start on."""
    no_progress: Annotated[int, Field(ge=1)] = 1800
    """A running stage whose progress.json does not change."""


class Backoff(ApiModel):
    """Wait before the next attempt: base * 2^(attempts - 1), at most the cap, in seconds."""

    base: Annotated[float, Field(gt=0)] = 10.0
    cap: Annotated[float, Field(gt=0)] = 300.0


class Tracing(ApiModel):
    """Where traces are sent."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^\s?#]+)?$")] = ""
    """Address of an OTLP collector over HTTP; empty: there are no traces."""

    @field_validator("endpoint")
    @classmethod
    def _of_the_collector(cls, value: str) -> str:
        """Without the path for traces, which whoever sends them adds, and with which collectors name themselves."""
        return value.removesuffix("/").removesuffix("/v1/traces").removesuffix("/")


class Platform(ApiModel):
    """The whole file."""

    object_store: ObjectStore
    jobs: Container
    """Diagnosis, generation and evaluation, and the init containers that fetch models."""
    serving: Container
    """vLLM."""
    training: Container
    """GRPO."""
    lmms_eval: LmmsEval | None = None
    """Left out: no iteration can have spec.evaluation.lmmsEval."""
    pods: Pods = Field(default_factory=Pods)
    pools: dict[str, Pool]
    jobs_pool: str | None = None
    """Pool of the stages without GPUs; left out: anywhere."""
    model_cache: ModelCache = Field(default_factory=ModelCache)
    limits: Limits = Field(default_factory=Limits)
    downloads: Downloads = Field(default_factory=Downloads)
    """How generation downloads images from the web."""
    tracing: Tracing = Field(default_factory=Tracing)
    deadlines: Deadlines = Field(default_factory=Deadlines)
    backoff: Backoff = Field(default_factory=Backoff)
    resync_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A reconcile at least this often; while a stage runs, every `poll_seconds`."""
    poll_seconds: Annotated[float, Field(gt=0)] = 5.0

    def container(self, stage: Stage) -> Container:
        """How the pods of a stage are started."""
        if stage.is_serving:
            return self.serving
        return self.training if stage is Stage.TRAINING else self.jobs


def read_platform(path: str | Path = PLATFORM_PATH) -> Platform:
    """The platform file; ValidationError names the field at fault."""
    return Platform.model_validate(yaml.safe_load(Path(path).read_text()))
