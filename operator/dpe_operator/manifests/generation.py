"""The generation: pods that make samples and filter them by the served model's pass rate, each its part of them."""

from dpe_api.launch import GenerationLaunch
from dpe_api.names import Stage
from dpe_api.spec import ResolvedSpec
from dpe_api.training_spec import ROLLOUT_PROMPT_TOKENS, RolloutEngine
from dpe_operator.manifests.common import Attempt, config_map, job, jobs_pool, main_container, pod
from dpe_operator.manifests.endpoints import source_keys
from dpe_operator.plan import Child


def launch(attempt: Attempt) -> GenerationLaunch:
    """What the pod is told."""
    spec = attempt.resolved.spec
    return GenerationLaunch.model_validate(
        {
            **attempt.launch_base,
            "model": attempt.served(attempt.resolved.model_uri),
            "diagnosis_artifact": attempt.artifact(Stage.DIAGNOSIS),
            "generation": spec.generation,
            "max_tokens": spec.diagnosis.max_tokens,
            "concurrency": spec.diagnosis.concurrency,
            "max_error_rate": spec.diagnosis.max_error_rate,
            "context_tokens": _context_tokens(spec),
            "answer_tokens": max(spec.diagnosis.max_tokens, spec.training.max_completion_length),
            "decontaminate": [spec.probe.uri, *(b.uri for b in spec.evaluation.benchmarks)],
            "downloads": attempt.platform.downloads,
        }
    )


def _context_tokens(spec: ResolvedSpec) -> int:
    """What a sample must fit in: the server's context, and the trainer's where vLLM samples for it."""
    training = spec.training
    rollouts = training.max_completion_length + ROLLOUT_PROMPT_TOKENS
    by_vllm = training.rollout_engine is RolloutEngine.VLLM
    return min(spec.serving.max_model_len, rollouts) if by_vllm else spec.serving.max_model_len


def children(attempt: Attempt) -> tuple[Child, ...]:
    """ConfigMap and Job."""
    pool = jobs_pool(attempt.platform)
    told = launch(attempt)
    main = main_container(attempt, "generation", pool=pool, keys=source_keys(told.generation.sources))
    shards = told.generation.shards
    sharded = shards > 1
    template = pod(attempt, [main], pool=pool)
    return config_map(attempt, told), job(attempt, template, pods=shards, indexed=sharded, alone=sharded)
