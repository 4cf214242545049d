"""The evaluation: one pod that asks the served candidate what the base was asked."""

from dpe_api.launch import EvaluationLaunch
from dpe_api.names import Stage
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
from dpe_operator.manifests.endpoints import api_keys, asking
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> EvaluationLaunch:
    """What the pod is told."""
    spec = attempt.resolved.spec
    return EvaluationLaunch.model_validate(
        {
            **attempt.launch_base,
            "model": attempt.served(attempt.candidate_uri),
            "probe": spec.probe,
            "benchmarks": spec.evaluation.benchmarks,
            "diagnosis": spec.diagnosis,
            "endpoints": asking(spec),
            "diagnosis_artifact": attempt.artifact(Stage.DIAGNOSIS),
            "evaluation": spec.evaluation,
            "previous": attempt.resolved.previous,
        }
    )


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    told = launch(attempt)
    main = main_container(attempt, "evaluation", pool=pool, keys=api_keys(told.endpoints))
    return config_map(attempt, told), job(attempt, pod(attempt, [main], pool=pool))
