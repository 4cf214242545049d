"""The diagnosis: one pod that asks the served model."""

from dpe_api.launch import DiagnosisLaunch
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
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
            "target_samples": spec.generation.target_samples,
            "reuse": attempt.resolved.reuse_diagnosis,
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    template = pod(attempt, [main_container(attempt, "diagnosis", pool=pool)], pool=pool)
    return config_map(attempt, launch(attempt)), job(attempt, template)
