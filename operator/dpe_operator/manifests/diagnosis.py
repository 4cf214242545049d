"""The diagnosis: one pod that asks the served model."""

from dpe_api.launch import DiagnosisLaunch
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
from dpe_operator.manifests.endpoints import api_keys, asking
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> DiagnosisLaunch:
    """What the pod is told."""
    spec = attempt.resolved.spec
    return DiagnosisLaunch.model_validate(
        {
            **attempt.launch_base,
            "model": attempt.served(attempt.resolved.model_uri),
            "probe": spec.probe,
            "benchmarks": spec.evaluation.benchmarks,
            "diagnosis": spec.diagnosis,
            "mixture": spec.mixture,
            "generation": spec.generation,
            "endpoints": asking(spec),
            "lmms_eval": spec.evaluation.lmms_eval,
            "reuse": attempt.resolved.reuse_diagnosis,
            "previous": attempt.resolved.previous,
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    told = launch(attempt)
    main = main_container(attempt, "diagnosis", pool=pool, keys=api_keys(told.endpoints))
    return config_map(attempt, told), job(attempt, pod(attempt, [main], pool=pool))
