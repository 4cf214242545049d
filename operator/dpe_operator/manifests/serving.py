"""vLLM as a Job of replicas behind a Service; it runs until the operator deletes it."""

from dpe_api.launch import ServingLaunch
from dpe_api.names import METRICS_PORT, MODEL_DIR, SERVING_PORT, Stage
from dpe_operator.manifests.common import (
    Attempt,
    cached_models,
    config_map,
    fetch_model,
    job,
    main_container,
    model_launch,
    pod,
    service,
)
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> ServingLaunch:
    """What the pods are told."""
    serving = attempt.resolved.spec.serving
    base = attempt.stage is Stage.SERVE_BASE
    return ServingLaunch.model_validate(
        {
            **attempt.launch_base,
            **model_launch(attempt, attempt.resolved.model_uri if base else attempt.candidate_uri),
            "max_model_len": serving.max_model_len,
            "tensor_parallel_size": max(1, serving.gpus_per_replica),
            "extra_args": serving.extra_args,
            "next_model_uri": attempt.candidate_uri if base and serving.keep_running else None,
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap, Service and Job. Ready means: the wrapper has seen vLLM answer a question about an image."""
    serving = attempt.resolved.spec.serving
    pool = attempt.platform.pools[serving.pool]
    main = main_container(
        attempt,
        "serve",
        pool=pool,
        gpus=serving.gpus_per_replica,
        mounts=(("model", MODEL_DIR), ("shm", "/dev/shm")),
        read=cached_models(attempt),
        ports={"http": SERVING_PORT},
        readinessProbe={
            "httpGet": {"path": "/ready", "port": METRICS_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
    )
    template = pod(attempt, [main], pool=pool, init=[fetch_model(attempt)], with_model=True)
    return (
        config_map(attempt, launch(attempt)),
        service(attempt, {"http": SERVING_PORT, "metrics": METRICS_PORT}),
        job(attempt, template, pods=serving.replicas),
    )
