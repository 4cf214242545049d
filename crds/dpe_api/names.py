"""Names, ports, paths and exit codes that the operator, the jobs and the chart share."""

from enum import IntEnum, StrEnum

GROUP = "dpe.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DPEIteration"
PLURAL = "dpeiterations"
RUN_KIND = "DPERun"
RUN_PLURAL = "dperuns"

LABEL_RUN = "dpe.dev/run"  # on the iterations of a run
LABEL_ROUND = "dpe.dev/round"
LABEL_RETRY = "dpe.dev/retry"
LABEL_ITERATION = "dpe.dev/iteration"
LABEL_STAGE = "dpe.dev/stage"
LABEL_ATTEMPT = "dpe.dev/attempt"

LAUNCH_PATH = "/etc/dpe/launch.json"
TERMINATION_PATH = "/dev/termination-log"
MODEL_DIR = "/model"  # the served or trained model, put there by the init container
MODEL_CACHE_DIR = "/models"  # where the platform has a cache of models; links in MODEL_DIR lead there
LMMS_EVAL = "/opt/lmms-eval/bin/lmms-eval"  # in the image of that name, in an environment of its own
LMMS_EVAL_DATA_DIR = "/lmms-eval"  # data sets by their names on the hub, and tasks/ with task files of one's own
WORK_DIR = "/work"  # scratch of a pod: checkpoints before upload

SERVING_PORT = 8000  # vLLM's OpenAI API
METRICS_PORT = 9090  # Prometheus metrics of every stage pod
RENDEZVOUS_PORT = 29500  # torchrun
SERVED_MODEL_NAME = "model"  # the `model` field of every request to a served model

ENV_ACCESS_KEY = "DPE_S3_ACCESS_KEY"
ENV_SECRET_KEY = "DPE_S3_SECRET_KEY"
SECRET_ACCESS_KEY = "accessKey"  # keys inside the credentials Secret
SECRET_SECRET_KEY = "secretKey"

MANIFEST = "manifest.json"
PROGRESS = "progress.json"

ANNOTATION_REVIEW = "dpe.dev/review"  # on an iteration: accepted or rejected
DRAFT = "draft"  # below a generation's folder: what it made, before a person has looked at it
REVIEW = "review.parquet"  # in the draft: to be marked up
REVIEWED = "reviewed.parquet"  # beside it: marked up


class Stage(StrEnum):
    """Steps of one iteration, in order. Values are used in child names, labels, store paths and metrics."""

    SERVE_BASE = "serve-base"
    DIAGNOSIS = "diagnosis"
    GENERATION = "generation"
    TRAINING = "training"
    SERVE_CANDIDATE = "serve-candidate"
    EVALUATION = "evaluation"

    @property
    def is_serving(self) -> bool:
        """Serving stages have no artifact: they are up while another stage needs them."""
        return self in (Stage.SERVE_BASE, Stage.SERVE_CANDIDATE)


BATCH_STAGES = (Stage.DIAGNOSIS, Stage.GENERATION, Stage.TRAINING, Stage.EVALUATION)


class Exit(IntEnum):
    """Exit codes of stage pods (65, 70, 75, 78 as in BSD sysexits)."""

    DONE = 0
    BAD_DATA = 65
    PROGRAM_DIED = 70
    TRANSIENT = 75
    PEER_GONE = 76
    BAD_CONFIG = 78
    STOPPED = 143


def child_name(iteration: str, stage: Stage, attempt: int) -> str:
    """Name of the Job, ConfigMap and Service of one attempt; at most 40 + 1 + 15 + 1 + 4 < 63 characters."""
    return f"{iteration}-{stage}-{attempt}"


def shard_folder(output: str, index: int) -> str:
    """Where one of several shards of a stage keeps its progress, its ledger and its manifest."""
    return f"{output}/shards/{index:02d}"


def round_name(run: str, number: int, retry: int = 0) -> str:
    """Name of the iteration of one round; at most 35 + 1 + 2 + 1 + 1 = 40 characters."""
    return f"{run}-{number}-{retry}" if retry else f"{run}-{number}"


def artifact_root(bucket: str, prefix: str, namespace: str, name: str, uid: str) -> str:
    """`s3://` folder of everything that one iteration writes."""
    parts = [bucket, *([prefix.strip("/")] if prefix.strip("/") else []), namespace, f"{name}-{uid[:8]}"]
    return "s3://" + "/".join(parts)
