"""Training: an Indexed Job with one pod per node, and the headless Service by which its pods find each other."""

from dpe_api.launch import TrainingLaunch
from dpe_api.names import METRICS_PORT, MODEL_DIR, RENDEZVOUS_PORT, Stage
from dpe_operator.manifests.common import (
    Attempt,
    cached_models,
    config_map,
    fetch_model,
    job,
    labels,
    main_container,
    model_launch,
    pod,
    service,
)
from dpe_operator.plan import Child
from dpe_operator.platform import KubernetesObject


def launch(attempt: Attempt) -> TrainingLaunch:
    """What every pod of the gang is told."""
    return TrainingLaunch.model_validate(
        {
            **attempt.launch_base,
            **model_launch(attempt, attempt.resolved.model_uri),
            "samples_artifact": attempt.artifact(Stage.GENERATION),
            "training": attempt.resolved.spec.training,
            "max_pixels": attempt.resolved.spec.diagnosis.max_pixels,
            "rendezvous_host": f"{attempt.name}-0.{attempt.name}",
        }
    )


def _one_pod_per_node(attempt: Attempt) -> KubernetesObject:
    own = {k: v for k, v in labels(attempt).items() if k.startswith("dpe.dev/")}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": own}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap, headless Service and Indexed Job."""
    training = attempt.resolved.spec.training
    pool = attempt.platform.pools[training.pool]
    main = main_container(
        attempt,
        "training",
        pool=pool,
        gpus=training.gpus_per_node,
        mounts=(("model", MODEL_DIR), ("shm", "/dev/shm")),
        read=cached_models(attempt),
        ports={"rendezvous": RENDEZVOUS_PORT},
    )
    template = pod(
        attempt,
        [main],
        pool=pool,
        init=[fetch_model(attempt)],
        with_model=True,
        subdomain=attempt.name,
        affinity=_one_pod_per_node(attempt),
    )
    return (
        config_map(attempt, launch(attempt)),
        service(attempt, {"rendezvous": RENDEZVOUS_PORT, "metrics": METRICS_PORT}, headless=True),
        job(attempt, template, pods=training.nodes, indexed=True),
    )
