"""TRL and DeepSpeed as training needs them; called before their trainers are made."""


def without_vllm() -> None:
    """Keep TRL from importing vLLM, seconds and hundreds of MB that rollouts by transformers do not need."""
    from trl import import_utils

    def unavailable(**_: object) -> bool:
        return False

    import_utils.is_vllm_available = unavailable


def init_deepspeed_on_cpu() -> None:
    """Gloo for DeepSpeed, after TRL's config and before its trainer: else it takes the world to be of size 1.

    Its shared-memory operator would be compiled at first use, a minute on every pod, and cannot reach other nodes.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def seed_sampling(seed: int, rank: int, tensor_parallel_size: int) -> None:
    """Let the run's seed decide what vLLM samples in this rank; called after TRL's trainer is made.

    vLLM seeds the whole process with the rank alone when it starts. It samples by that state, not by a seed of the
    request, with which all completions of a prompt would be equal. Ranks that share a model must draw the same.
    """
    from transformers import set_seed

    set_seed(seed + rank // tensor_parallel_size)
