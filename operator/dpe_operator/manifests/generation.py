"""The generation: pods that make samples and filter them by the served model's pass rate, each its part of them."""

from dpe_api.launch import GenerationLaunch, ServedModel
from dpe_api.names import Stage
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
from dpe_operator.manifests.endpoints import api_keys, generating, source_keys
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> GenerationLaunch:
    """What the pod is told."""
    spec, base = attempt.resolved.spec, attempt.resolved.model_uri
    return GenerationLaunch.model_validate(
        {
            **attempt.launch_base,
            "model": ServedModel(url="", uri=base) if attempt.reviewed else attempt.served(base),
            "diagnosis_artifact": attempt.artifact(Stage.DIAGNOSIS),
            "probe": spec.probe.uri,
            "generation": spec.generation,
            "max_tokens": spec.diagnosis.max_tokens,
            "concurrency": spec.diagnosis.concurrency,
            "max_error_rate": spec.diagnosis.max_error_rate,
            "context_tokens": spec.context_tokens,
            "answer_tokens": spec.answer_tokens,
            "max_pixels": spec.diagnosis.max_pixels,
            "warmup": spec.training.warmup,
            "decontaminate": [spec.probe.uri, *(b.uri for b in spec.evaluation.benchmarks)],
            "downloads": attempt.platform.downloads,
            "endpoints": [] if attempt.reviewed else generating(spec),
            "reviewed": attempt.reviewed,
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    told = launch(attempt)
    keys = [] if attempt.reviewed else [*api_keys(told.endpoints), *source_keys(told.generation.sources)]
    main = main_container(attempt, "generation", pool=pool, keys=keys)
    shards = 1 if attempt.reviewed else told.generation.shards
    sharded = shards > 1
    template = pod(attempt, [main], pool=pool)
    return config_map(attempt, told), job(attempt, template, pods=shards, indexed=sharded, alone=sharded)
