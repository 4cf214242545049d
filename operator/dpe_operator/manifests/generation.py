"""The generation: pods that make samples and filter them by the served model's pass rate, each its part of them."""

from dpe_api.launch import GenerationLaunch
from dpe_api.names import Stage
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
from dpe_operator.manifests.endpoints import api_keys, generating, source_keys
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> GenerationLaunch:
    """What the pod is told."""
    spec = attempt.resolved.spec
    return GenerationLaunch.model_validate(
        {
            **attempt.launch_base,
            "model": attempt.served(attempt.resolved.model_uri),
            "diagnosis_artifact": attempt.artifact(Stage.DIAGNOSIS),
            "probe": spec.probe.uri,
            "generation": spec.generation,
            "max_tokens": spec.diagnosis.max_tokens,
            "concurrency": spec.diagnosis.concurrency,
            "max_error_rate": spec.diagnosis.max_error_rate,
            "decontaminate": [spec.probe.uri, *(b.uri for b in spec.evaluation.benchmarks)],
            "downloads": attempt.platform.downloads,
            "endpoints": generating(spec),
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    told = launch(attempt)
    keys = [*api_keys(told.endpoints), *source_keys(told.generation.sources)]
    main = main_container(attempt, "generation", pool=pool, keys=keys)
    shards = told.generation.shards
    sharded = shards > 1
    template = pod(attempt, [main], pool=pool)
    return config_map(attempt, told), job(attempt, template, pods=shards, indexed=sharded, alone=sharded)
