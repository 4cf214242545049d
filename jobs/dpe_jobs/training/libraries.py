"""TRL, DeepSpeed and vLLM as training needs them, where no argument says it."""

from typing import Any


def without_vllm() -> None:
    """Keep TRL from importing vLLM, seconds and hundreds of MB that rollouts by transformers do not need.

    Called before TRL's trainers are imported.
    """
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


def copy_weights_once(trainer: Any, zero_stage: int) -> None:
    """Let only the rank that writes the weights copy them to the host; called once the trainer is made.

    transformers lets every rank of a DeepSpeed run make that copy for each checkpoint, all of a node at once. Nobody
    waits for the others there but at ZeRO-3, whose ranks each have a part.
    """

    def leave_it_to_the_writer(*_: object, **__: object) -> None: ...

    if zero_stage in (1, 2) and not trainer.args.should_save:
        trainer.save_model = leave_it_to_the_writer


def seed_sampling(seed: int, rank: int, tensor_parallel_size: int) -> None:
    """Let the run's seed decide what vLLM samples in this rank; called after TRL's trainer is made.

    vLLM seeds the whole process with the rank alone when it starts. It samples by that state, not by a seed of the
    request, with which all completions of a prompt would be equal. Ranks that share a model must draw the same.
    """
    from transformers import set_seed

    set_seed(seed + rank // tensor_parallel_size)
