"""Which sample is asked when."""

import random

from dpe_jobs.seeds import derive


def prompt_order(samples: int, prompts: int, seed: int) -> list[int]:
    """Which sample each of the run's prompts takes: one shuffle of all samples after the other.

    The whole run's order is laid out beforehand, so that a resumed run finds its place in any epoch, no remainder of
    an epoch is dropped, and fewer samples than promptsPerStep are simply asked more often.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < prompts:
        indices = list(range(samples))
        random.Random(derive(seed, "order", epoch)).shuffle(indices)
        order += indices
        epoch += 1
    return order[:prompts]
