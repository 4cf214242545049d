"""How long tests wait for what must happen. Only a failure takes that long; a busy machine must not be one."""

import time

SLOWNESS = 4  # of the slowest machine that runs the tests, over a quiet one, for which the tests name their seconds


def deadline(seconds: float) -> float:
    """The moment, by `time.monotonic`, at which what takes less than `seconds` on a quiet machine has failed."""
    return time.monotonic() + SLOWNESS * seconds
