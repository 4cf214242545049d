"""When a run has gone astray it stops with a reason."""

import pytest

from dpe_jobs.runtime import BadConfig, Transient
from dpe_jobs.training.callbacks import check_step


def test_an_ordinary_step_passes() -> None:
    check_step({"loss": 0.1, "grad_norm": 3.0, "sampling/sampling_logp_difference/mean": 0.02}, 1)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(name: str, value: float) -> None:
    with pytest.raises(Transient, match=f"{name} is .* at step 7") as caught:
        check_step({"loss": 0.0, name: value}, 7)
    assert caught.value.reason == "LossNotFinite"


def test_a_rollout_engine_that_sees_something_else_stops_the_run() -> None:
    with pytest.raises(BadConfig, match="differ by 2") as caught:
        check_step({"loss": 0.0, "sampling/sampling_logp_difference/mean": 2.1}, 3)
    assert caught.value.reason == "SamplingMismatch"
