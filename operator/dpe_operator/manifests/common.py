"""What all children share: names, labels, owner, and a pod that passes the restricted Pod Security Standard."""

from dataclasses import dataclass

from dpe_api.launch import Launch, ServedModel, StoreAddress
from dpe_api.names import (
    API_VERSION,
    ENV_ACCESS_KEY,
    ENV_SECRET_KEY,
    KIND,
    LABEL_ATTEMPT,
    LABEL_ITERATION,
    LABEL_STAGE,
    LMMS_EVAL_DATA_DIR,
    METRICS_PORT,
    MODEL_CACHE_DIR,
    MODEL_DIR,
    SECRET_ACCESS_KEY,
    SECRET_SECRET_KEY,
    SERVING_PORT,
    WORK_DIR,
    Exit,
    Stage,
    child_name,
)
from dpe_api.status import Resolved
from dpe_operator.plan import Child
from dpe_operator.platform import Container, KubernetesObject, LmmsEval, Platform, Pool
from dpe_operator.world import GRACE_S, Iteration

MANAGER = "dpe-operator"
ANNOTATION_UID = "dpe.dev/iteration-uid"  # on pods: tells a namesake's leftovers apart
MAIN = "main"  # the container that does a stage's work
FETCH_MODEL = "fetch-model"  # the one before it
ANNOTATION_SERVED_BY = "dpe.dev/served-by"  # on Jobs: the model server that their launch names
QUEUE_LABELS = "kueue.x-k8s.io/"
_QUEUE_NAME = QUEUE_LABELS + "queue-name"


RESTARTS_OF_ONE = 3  # of a pod that does not need the others, in one attempt
_POLICY_OF_ONE: KubernetesObject = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [int(Exit.BAD_DATA), int(Exit.BAD_CONFIG)]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
}


def candidate_uri(root: str) -> str:
    """The model that an iteration's training publishes, below the s3:// folder of its artifacts."""
    return f"{root}/{Stage.TRAINING}/model"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything that the children of one attempt are made from."""

    iteration: Iteration
    platform: Platform
    resolved: Resolved
    root: str
    """s3:// folder of the iteration's artifacts."""
    stage: Stage
    number: int
    server: str | None = None
    """Name of the model server that the stage asks."""
    reviewed: bool = False
    """A generation whose draft a person has accepted: it asks no model."""

    @property
    def name(self) -> str:
        """Name of the Job, the ConfigMap and the Service."""
        return child_name(self.iteration.name, self.stage, self.number)

    def artifact(self, stage: Stage) -> str:
        """s3:// folder of a stage."""
        return f"{self.root}/{stage}"

    @property
    def candidate_uri(self) -> str:
        """The model that training publishes."""
        return candidate_uri(self.root)

    @property
    def launch_base(self) -> dict[str, object]:
        """What every launch holds."""
        store = self.platform.object_store
        return {
            "iteration": self.iteration.id,
            "attempt": self.number,
            "seed": self.resolved.spec.seed,
            "round": self.resolved.round,
            "store": StoreAddress(endpoint=store.endpoint, region=store.region),
            "output": self.artifact(self.stage),
            "stage": self.stage,
        }

    def served(self, uri: str) -> ServedModel:
        """The model server that the stage asks; ValueError when it has none."""
        if self.server is None:
            raise ValueError(f"{self.stage} needs a model server")
        serving = self.resolved.spec.serving
        return ServedModel(
            url=f"http://{self.server}.{self.iteration.namespace}.svc:{SERVING_PORT}",
            uri=uri,
            max_model_len=serving.max_model_len,
            extra_args=serving.extra_args,
        )


def lmms_eval(attempt: Attempt) -> LmmsEval | None:
    """How the pod is started where lmms-eval asks the served model, too; None where it does not."""
    asks = attempt.stage in (Stage.DIAGNOSIS, Stage.EVALUATION) and attempt.resolved.spec.evaluation.lmms_eval
    return attempt.platform.lmms_eval if asks else None


def labels(attempt: Attempt) -> dict[str, str]:
    """Labels of every child and of its pods."""
    return {
        "app.kubernetes.io/name": "dpe",
        "app.kubernetes.io/component": str(attempt.stage),
        "app.kubernetes.io/managed-by": MANAGER,
        LABEL_ITERATION: attempt.iteration.name,
        LABEL_STAGE: str(attempt.stage),
        LABEL_ATTEMPT: str(attempt.number),
    }


def metadata(attempt: Attempt, more_labels: dict[str, str] | None = None, **more: object) -> KubernetesObject:
    """Name, labels and owner."""
    return {
        "name": attempt.name,
        "namespace": attempt.iteration.namespace,
        "labels": {**(more_labels or {}), **labels(attempt)},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": attempt.iteration.name,
                "uid": attempt.iteration.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
        **more,
    }


def config_map(attempt: Attempt, launch: Launch) -> Child:
    """The launch, immutable."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(attempt),
        "immutable": True,
        "data": {"launch.json": launch.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
    }
    return Child("ConfigMap", attempt.name, body)


def service(attempt: Attempt, ports: dict[str, int], *, headless: bool = False) -> Child:
    """A Service for exactly the pods of this attempt."""
    selector = {k: v for k, v in labels(attempt).items() if k.startswith("dpe.dev/")}
    spec: KubernetesObject = {
        "selector": selector,
        "ports": [{"name": name, "port": port, "targetPort": port} for name, port in ports.items()],
    }
    if headless:
        # ranks find each other before they are ready
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata(attempt), "spec": spec}
    return Child("Service", attempt.name, body)


def _told(collector: str) -> list[KubernetesObject]:
    """OpenTelemetry's variables: where a pod's spans go."""
    if not collector:
        return []
    # vLLM knows only the second, and would take gRPC
    protocols = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
    return [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": collector},
        *({"name": name, "value": "http/protobuf"} for name in protocols),
    ]


def _environment(
    attempt: Attempt, container: Container, pool: Pool | None, keys: list[KubernetesObject]
) -> list[KubernetesObject]:
    secret = attempt.platform.object_store.credentials_secret

    def reference(name: str, key: str) -> KubernetesObject:
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}

    ours = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "LOGNAME", "value": "dpe"},  # the uid has no passwd entry
        reference(ENV_ACCESS_KEY, SECRET_ACCESS_KEY),
        reference(ENV_SECRET_KEY, SECRET_SECRET_KEY),
        *keys,
    ]
    told = _told(attempt.platform.tracing.endpoint)
    named = {str(e["name"]): e for e in [*told, *(pool.env if pool is not None else []), *container.env, *ours]}
    return list(named.values())


def container(
    attempt: Attempt,
    name: str,
    arguments: list[str],
    how: Container,
    *,
    pool: Pool | None = None,
    gpus: int = 0,
    mounts: tuple[tuple[str, str], ...] = (),
    read: tuple[tuple[str, str], ...] = (),
    keys: list[KubernetesObject] | None = None,
    **more: object,
) -> KubernetesObject:
    """One container. `mounts` are further (volume, path) pairs, `read` such that it may not write to, `keys` variables
    of endpoints' API keys.

    GPUs are requested by the pool's resource name.
    """
    resources = {kind: dict(how.resources.get(kind) or {}) for kind in ("requests", "limits")}
    if gpus and pool is not None:
        for kind in resources.values():
            kind |= {pool.gpu_resource: str(gpus), **pool.extended_resources}
    lent = [{"name": n, "mountPath": p, "readOnly": True} for n, p in (("launch", "/etc/dpe"), *read)]
    written = [{"name": n, "mountPath": p} for n, p in (("tmp", "/tmp"), *mounts)]
    return {
        "name": name,
        "image": how.image,
        "imagePullPolicy": how.pull_policy,
        "command": [*how.command, *arguments],
        "env": _environment(attempt, how, pool, keys or []),
        "resources": {k: v for k, v in resources.items() if v},
        "volumeMounts": [*lent, *written, *attempt.platform.pods.extra_volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **more,
    }


def main_container(
    attempt: Attempt,
    argument: str,
    *,
    pool: Pool | None,
    gpus: int = 0,
    mounts: tuple[tuple[str, str], ...] = (),
    read: tuple[tuple[str, str], ...] = (),
    ports: dict[str, int] | None = None,
    keys: list[KubernetesObject] | None = None,
    **more: object,
) -> KubernetesObject:
    """The container that does the stage's work."""
    how = attempt.platform.container(attempt.stage)
    if (lent := lmms_eval(attempt)) is not None:
        how, read = lent, (*read, ("lmms-eval", LMMS_EVAL_DATA_DIR))
    named = {"metrics": METRICS_PORT, **(ports or {})}
    return container(
        attempt,
        MAIN,
        [argument],
        how,
        pool=pool,
        gpus=gpus,
        mounts=(("work", WORK_DIR), *mounts),
        read=read,
        keys=keys,
        ports=[{"name": n, "containerPort": p} for n, p in named.items()],
        **more,
    )


def fetch_model(attempt: Attempt) -> KubernetesObject:
    """The init container that downloads `launch.model_uri` and checks it against its manifest."""
    mounts = (("model", MODEL_DIR), *cached_models(attempt))
    return container(attempt, FETCH_MODEL, ["fetch-model"], attempt.platform.jobs, mounts=mounts)


def cached_models(attempt: Attempt) -> tuple[tuple[str, str], ...]:
    """The mount of the cache of models, where the platform has one: the model's files are links into it."""
    return () if attempt.platform.model_cache.volume is None else (("models", MODEL_CACHE_DIR),)


def model_launch(attempt: Attempt, uri: str) -> dict[str, object]:
    """The part of a launch that the init container reads."""
    cache = attempt.platform.model_cache
    return {"model_uri": uri, "model_cache_bytes": None if cache.volume is None else cache.max_bytes}


def _security(user: int | None) -> KubernetesObject:
    own: KubernetesObject = {}
    if user is not None:
        # every file of a volume with models would be given to the group anew at the start of each pod
        own = {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return {"runAsNonRoot": True, **own, "seccompProfile": {"type": "RuntimeDefault"}}


def pod(
    attempt: Attempt,
    containers: list[KubernetesObject],
    *,
    pool: Pool | None,
    init: list[KubernetesObject] | None = None,
    with_model: bool = False,
    **more: object,
) -> KubernetesObject:
    """A pod template. `with_model`: volumes for the model and a /dev/shm of the pool's size."""
    facts, where = attempt.platform.pods, pool or Pool()
    scratch = where.scratch or {"emptyDir": {}}
    volumes: list[KubernetesObject] = [
        {"name": "launch", "configMap": {"name": attempt.name}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "work", **scratch},
    ]
    if (lent := lmms_eval(attempt)) is not None:
        volumes.append({"name": "lmms-eval", **lent.data})
    if with_model:
        volumes.append({"name": "model", **scratch})
        if attempt.platform.model_cache.volume is not None:
            volumes.append({"name": "models", **attempt.platform.model_cache.volume})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": where.shared_memory}})
    spec: KubernetesObject = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": facts.service_account_name,
        "securityContext": _security(facts.run_as_user),
        "containers": containers,
        "volumes": [*volumes, *facts.extra_volumes],
        **more,
    }
    if init:
        spec["initContainers"] = init
    if pool is not None:
        spec |= {"nodeSelector": dict(pool.node_selector), "tolerations": list(pool.tolerations)}
    optional = {
        "runtimeClassName": where.runtime_class_name or facts.runtime_class_name,
        "priorityClassName": facts.priority_class_name,
        "imagePullSecrets": facts.image_pull_secrets,
    }
    spec |= {k: v for k, v in optional.items() if v}
    return {
        "metadata": {
            "labels": {**facts.labels, **labels(attempt)},
            "annotations": {**facts.annotations, **where.annotations, ANNOTATION_UID: attempt.iteration.uid},
        },
        "spec": spec,
    }


def job(
    attempt: Attempt, template: KubernetesObject, *, pods: int = 1, indexed: bool = False, alone: bool = False
) -> Child:
    """A Job that is never retried by the Job controller: a new attempt is a new Job, made by the operator.

    `alone`: the pods do not need each other. One that is lost is replaced a few times while the others go on; only bad
    data or configuration, which another pod would find as well, ends them all.
    """
    queue = {k: v for k, v in attempt.iteration.labels.items() if k.startswith(QUEUE_LABELS)}
    annotations = {ANNOTATION_SERVED_BY: attempt.server} if attempt.server is not None else {}
    spec: KubernetesObject = {
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": 0,
        "template": template,
    }
    if indexed:
        spec["completionMode"] = "Indexed"
    if alone:
        del spec["backoffLimit"]
        spec |= {"backoffLimitPerIndex": RESTARTS_OF_ONE, "maxFailedIndexes": 0, "podFailurePolicy": _POLICY_OF_ONE}
    if _QUEUE_NAME in queue:
        spec["suspend"] = True  # no pod before Kueue lets it in, also where its webhook is away
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(attempt, queue, annotations=annotations),
        "spec": spec,
    }
    return Child("Job", attempt.name, body)


def jobs_pool(platform: Platform) -> Pool | None:
    """Where stages without GPUs run; None: anywhere."""
    return None if platform.jobs_pool is None else platform.pools.get(platform.jobs_pool)
