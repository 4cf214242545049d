"""Training: an Indexed Job spread over nodes, and the headless Service by which its pods find each other."""

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


def _over_nodes(attempt: Attempt) -> KubernetesObject:
    """One pod per node where the pool has room for that: after the loss of a node the others may take its pod."""
    own = {k: v for k, v in labels(attempt).items() if k.startswith("dpe.dev/")}
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": own},
    }


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
        topologySpreadConstraints=[_over_nodes(attempt)],
    )
    return (
        config_map(attempt, launch(attempt)),
        service(attempt, {"rendezvous": RENDEZVOUS_PORT, "metrics": METRICS_PORT}, headless=True),
        job(attempt, template, pods=training.nodes, indexed=True),
    )
