"""When a run has gone astray it stops with a reason, and a good run is left alone."""

from collections.abc import Iterable

import pytest

from dpe_api.training_spec import Guards, Training
from dpe_jobs.runtime import BadConfig, StageError, Transient
from dpe_jobs.training.guards import ALL_RIGHT, Watch, guards_of
from dpe_jobs.training.metrics import StepMetrics

WINDOW = 5


def row(step: int, **values: object) -> StepMetrics:
    usual = {
        "step": step,
        "loss": 0.1,
        "reward": 0.5,
        "answer": 0.5,
        "entropy": 0.4,
        "grad_norm": 1.0,
        "zero_std_share": 0.4,
        "completion_length": 2.0,
        "completion_tokens": 20,
        "total_tokens": step * 100,
        "seconds": 1.0,
    }
    return StepMetrics.model_validate({**usual, **values})


def watch(rows: Iterable[StepMetrics], earlier: Iterable[StepMetrics] = (), **guards: object) -> str | None:
    """What the guards say of the last row; AssertionError when they spoke up before."""
    guard = Watch(Guards.model_validate({"window": WINDOW, **guards}), earlier)
    said = None
    for each in rows:
        assert said is None, f"the run was ended before step {each.step}"
        said = guard.look(each)
    return said


def stopped(rows: Iterable[StepMetrics], earlier: Iterable[StepMetrics] = (), **guards: object) -> StageError:
    with pytest.raises(StageError) as caught:
        watch(rows, earlier, **guards)
    return caught.value


@pytest.mark.parametrize("name", ["loss", "grad_norm", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stops_the_run_at_once(name: str, value: float) -> None:
    error = stopped([row(7, **{name: value})])
    assert isinstance(error, Transient)
    assert error.reason == "LossNotFinite"
    assert f"{name} is {value} at step 7" in str(error)


def test_a_rollout_engine_that_sees_something_else_stops_the_run() -> None:
    assert watch([row(1, sampling_logp_difference=0.02)]) is None
    error = stopped([row(3, sampling_logp_difference=2.1)])
    assert (error.reason, type(error)) == ("SamplingMismatch", BadConfig)
    assert "differ by 2.1" in str(error)


def test_kl_is_bounded_only_where_the_spec_says_so() -> None:
    assert watch([row(1, kl=9.0)]) is None
    assert watch([row(1, kl=0.4)], max_kl=0.5) is None
    error = stopped([row(4, kl=0.6)], max_kl=0.5)
    assert error.reason == "KlAboveBound"
    assert "0.6 nats per token at step 4" in str(error)


def test_a_reward_that_falls_to_less_than_half_is_a_collapse() -> None:
    high = [row(step, reward=0.8) for step in range(1, 8)]
    error = stopped([*high, *(row(step, reward=0.0) for step in range(8, 20))])
    assert error.reason == "RewardCollapse"
    assert "after 0.800 at step" in str(error)


def test_a_single_bad_step_is_no_collapse() -> None:
    rows = [row(step, reward=0.0 if step % WINDOW == 0 else 0.8) for step in range(1, 40)]
    assert watch(rows) is None


def test_rewards_that_are_penalties_alone_cannot_collapse() -> None:
    assert watch([row(step, reward=-0.1 * step) for step in range(1, 20)]) is None


def test_a_resumed_run_remembers_what_it_had_reached() -> None:
    earlier = [row(step, reward=0.8) for step in range(1, 8)]
    assert watch([row(step, reward=0.1) for step in range(8, 12)]) is None
    assert stopped([row(step, reward=0.1) for step in range(8, 14)], earlier).reason == "RewardCollapse"


def test_entropy_near_zero_with_wrong_answers_is_a_collapse_and_with_right_ones_is_not() -> None:
    silent = {"entropy": 1e-6}
    assert stopped([row(step, **silent) for step in range(1, 9)]).reason == "EntropyCollapse"
    assert watch([row(step, **silent, answer=1.0, reward=1.0) for step in range(1, 9)]) is None
    assert watch([row(step, entropy=1e-6 if step % WINDOW else 0.2) for step in range(1, 40)]) is None


def test_groups_that_are_all_equal_and_wrong_give_no_gradient() -> None:
    flat = [row(step, zero_std_share=1.0, answer=0.0, reward=0.0) for step in range(1, 9)]
    assert stopped(flat).reason == "EqualRewards"
    assert watch([row(step, zero_std_share=0.9) for step in range(1, 30)]) is None
    assert stopped([row(step, zero_std_share=0.9) for step in range(1, 30)], max_equal_rewards=0.8).reason == (
        "EqualRewards"
    )


def test_groups_that_are_all_right_end_the_run_well() -> None:
    done = [row(step, zero_std_share=1.0, answer=1.0, reward=1.0) for step in range(1, WINDOW + 1)]
    assert watch(done[:-1]) is None
    assert watch(done) == ALL_RIGHT


@pytest.mark.parametrize(
    ("max_steps", "window", "effective"),
    [(10, 20, 5), (100, 20, 20), (40, 20, 20), (39, 20, 19), (10, 3, 3), (9, 20, 5), (3, 4, 4)],
)
def test_a_window_is_never_longer_than_half_the_run(max_steps: int, window: int, effective: int) -> None:
    spec = Training(max_steps=max_steps, guards=Guards(window=window, max_kl=0.5))
    assert guards_of(spec) == Guards(window=effective, max_kl=0.5)


def test_a_trial_of_a_few_steps_is_not_stopped_for_them() -> None:
    spec = Training(max_steps=4)
    guard = Watch(guards_of(spec))
    for step in range(1, 5):
        assert guard.look(row(step, zero_std_share=1.0, answer=0.0, reward=0.0)) is None


def test_a_run_of_the_default_length_is_stopped_when_nothing_can_be_learned() -> None:
    spec = Training()
    guard = Watch(guards_of(spec), (row(step, zero_std_share=1.0, answer=0.0) for step in range(1, spec.max_steps)))
    with pytest.raises(BadConfig) as caught:
        guard.look(row(spec.max_steps, zero_std_share=1.0, answer=0.0))
    assert caught.value.reason == "EqualRewards"
