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


def test_a_value_that_trl_refuses_is_bad_configuration() -> None:
    with pytest.raises(BadConfig, match=r"TRL refuses its arguments: .*num_generations"):
        _config({"output_dir": "out", "num_generations": 1, "per_device_train_batch_size": 4, "use_cpu": True})
