"""Which sample is asked when."""

import random
from collections.abc import Sequence
from itertools import accumulate

from dpe_jobs.seeds import derive

WINDOW = 8  # row groups that are shuffled together; of at most as many all samples are


def prompt_order(groups: Sequence[int], prompts: int, seed: int) -> list[int]:
    """Which sample each of the run's prompts takes: one shuffle of all samples after the other.

    `groups` are the rows of each row group, in order. Of many groups a few at a time are shuffled together, drawn anew
    for each epoch: whoever reads the samples in this order needs only those few at once. The whole run's order is laid
    out beforehand, so that a resumed run finds its place in any epoch, no remainder of an epoch is dropped, and fewer
    samples than promptsPerStep are simply asked more often.
    """
    firsts = [0, *accumulate(groups)]
    order: list[int] = []
    epoch = 0
    while len(order) < prompts:
        places = list(range(len(groups)))
        rng = random.Random(derive(seed, "order", epoch))
        if len(groups) > WINDOW:
            rng.shuffle(places)
        for start in range(0, len(places), WINDOW):
            window = [firsts[g] + row for g in places[start : start + WINDOW] for row in range(groups[g])]
            rng.shuffle(window)
            order += window
        epoch += 1
    return order[:prompts]
