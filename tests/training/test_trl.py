"""What this code knows of TRL, against the TRL that is installed."""

import dataclasses

import pytest
from trl import GRPOConfig
from trl.rewards import get_soft_overlong_punishment

from dpe_api.trainer_arguments import NAMES
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training.rank import _config
from dpe_jobs.training.rewards import length_penalty


def test_the_list_of_arguments_is_that_of_the_installed_trl() -> None:
    installed = {f.name for f in dataclasses.fields(GRPOConfig) if f.init}
    assert sorted(installed) == sorted(NAMES), "write the installed names into dpe_api/trainer_arguments.py"


def test_the_length_penalty_is_that_of_trl() -> None:
    ids = [[0] * n for n in range(0, 130, 3)]
    assert length_penalty(100, 20)(completion_ids=ids) == pytest.approx(get_soft_overlong_punishment(100, 20)(ids))


SMALL = {"output_dir": "out", "num_generations": 2, "per_device_train_batch_size": 4, "use_cpu": True}


def test_a_value_that_trl_refuses_is_bad_configuration() -> None:
    with pytest.raises(BadConfig, match="TRL refuses its arguments: GRPO requires at least 2 generations"):
        _config({**SMALL, "num_generations": 1}, ())


@pytest.mark.parametrize(
    ("name", "value"), [("adam_beta2", "high"), ("top_k", 0.5), ("lr_scheduler_kwargs", [1]), ("sync_ref_model", 1)]
)
def test_a_value_of_another_type_is_named(name: str, value: object) -> None:
    with pytest.raises(BadConfig, match=rf"trainer\.extra\.{name} is .*: TRL wants"):
        _config({**SMALL, name: value}, [name])


@pytest.mark.parametrize(("name", "value"), [("adam_beta2", 1), ("min_p", 0.1), ("optim_args", None), ("top_k", 20)])
def test_a_value_of_the_right_type_goes_through(name: str, value: object) -> None:
    assert getattr(_config({**SMALL, name: value}, [name]), name) == value
