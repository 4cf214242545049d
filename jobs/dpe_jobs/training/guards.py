"""When a run has gone astray: each guard looks at the steps so far and names what it found. Pure: no torch in here.

All ranks see the same rows, as every value is a mean over all ranks, so all stop at the same step.
"""

import math
from collections import deque
from collections.abc import Iterable

from dpe_api.training_spec import Guards, Training
from dpe_jobs.runtime import BadConfig, StageError, Transient
from dpe_jobs.training.metrics import StepMetrics

ALL_RIGHT = "AllRight"
"""Why a run ends early in a good way: nothing is left to learn from its samples."""


SHORTEST_WINDOW = 5
"""Steps; fewer say little of a run, so that a trial of a few steps is not stopped for what they look like."""


def guards_of(training: Training) -> Guards:
    """The guards with a window of no more than half the run: a longer one would be full too late to save any of it."""
    guards = training.guards
    return guards.model_copy(update={"window": min(guards.window, max(SHORTEST_WINDOW, training.max_steps // 2))})


class Watch:
    """The guards of one run. `look` takes each step once, in order; a resumed run gives it the earlier ones first."""

    def __init__(self, guards: Guards, earlier: Iterable[StepMetrics] = ()) -> None:
        self._guards = guards
        self._window: deque[StepMetrics] = deque(maxlen=guards.window)
        self._best: tuple[float, int] | None = None  # mean reward of a window, and its last step
        for row in earlier:
            self._take(row)

    def _take(self, row: StepMetrics) -> None:
        self._window.append(row)
        if self._full:
            mean = self._mean_reward()
            if self._best is None or mean > self._best[0]:
                self._best = (mean, row.step)

    @property
    def _full(self) -> bool:
        return len(self._window) == self._guards.window

    def _mean_reward(self) -> float:
        return sum(row.reward for row in self._window) / len(self._window)

    def _all_right(self) -> bool:
        return all(row.answer == 1 for row in self._window)

    def look(self, row: StepMetrics) -> str | None:
        """The next step: None to go on, ALL_RIGHT to end well, else a StageError whose reason is the guard's name."""
        self._of_one_step(row)
        self._take(row)
        if not self._full:
            return None
        for error in (self._reward_collapse(row), self._entropy_collapse(row)):
            if error is not None:
                raise error
        return self._equal_rewards(row)

    def _of_one_step(self, row: StepMetrics) -> None:
        for name, value in (("loss", row.loss), ("grad_norm", row.grad_norm), ("reward", row.reward)):
            if value is not None and not math.isfinite(value):
                raise Transient(
                    "LossNotFinite",
                    f"{name} is {value} at step {row.step}: lower spec.training.learningRate, or look at the samples",
                )
        bound = self._guards.max_kl
        if bound is not None and row.kl is not None and row.kl > bound:
            raise BadConfig(
                "KlAboveBound",
                f"KL to the base is {row.kl:.4g} nats per token at step {row.step}, above spec.training.guards.maxKl "
                f"{bound:g}: lower learningRate, raise beta, or raise the bound",
            )
        difference, bound = row.sampling_logp_difference, self._guards.max_logp_difference
        if difference is not None and difference > bound:
            raise BadConfig(
                "SamplingMismatch",
                f"rollout engine and trainer differ by {difference:.3f} nats per token at step {row.step}, above "
                f"spec.training.guards.maxLogpDifference {bound:g}: they see different prompts or weights; use the "
                "vLLM version that the training image pins, or rolloutEngine transformers",
            )

    def _reward_collapse(self, row: StepMetrics) -> StageError | None:
        if self._best is None or self._best[0] <= 0:  # with penalties alone there is no part to lose
            return None
        best, at = self._best
        mean, allowed = self._mean_reward(), self._guards.max_reward_drop
        if mean >= best * (1 - allowed):
            return None
        return BadConfig(
            "RewardCollapse",
            f"mean reward of the last {self._guards.window} steps is {mean:.3f} at step {row.step}, after {best:.3f} "
            f"at step {at}: more than {allowed:.0%} of it is lost (spec.training.guards.maxRewardDrop): lower "
            "learningRate, or raise beta",
        )

    def _entropy_collapse(self, row: StepMetrics) -> StageError | None:
        floor = self._guards.min_entropy
        if self._all_right() or not all(r.entropy is not None and r.entropy < floor for r in self._window):
            return None
        return BadConfig(
            "EntropyCollapse",
            f"entropy has been below {floor:g} nats per token for {self._guards.window} steps at step {row.step} "
            "(spec.training.guards.minEntropy), and answers are still wrong: the model repeats itself; lower "
            "learningRate, raise temperature or beta",
        )

    def _equal_rewards(self, row: StepMetrics) -> str | None:
        share = self._guards.max_equal_rewards
        if not all(r.zero_std_share is not None and r.zero_std_share >= share for r in self._window):
            return None
        if self._all_right():
            return ALL_RIGHT
        raise BadConfig(
            "EqualRewards",
            f"in {self._guards.window} steps up to {row.step} at least {share:.0%} of the groups had equal rewards "
            "(spec.training.guards.maxEqualRewards), and answers are still wrong: there is no gradient; the samples "
            "are too hard for the model, or its answers do not vary: widen generation.filter, raise temperature",
        )
