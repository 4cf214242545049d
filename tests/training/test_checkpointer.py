"""What the ranks do at each step besides training: room on the disk, and word for the parent."""

import threading
from pathlib import Path

import pytest
from tests.unit.training.test_ends import launch
from transformers import TrainerControl, TrainerState, TrainingArguments

from dpe_jobs.training.callbacks import Checkpointer
from dpe_jobs.training.pod import Pod


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    it = Pod(0, tmp_path / "model", tmp_path / "work")
    it.prepare(launch(nodes=1))
    (it.output / "checkpoint-4").mkdir()
    (it.output / "checkpoint-4" / "shard.pt").write_bytes(b"state")
    return it


def step(checkpointer: Checkpointer, pod: Pod, number: int) -> None:
    args = TrainingArguments(output_dir=str(pod.output), use_cpu=True, report_to=[])
    checkpointer.on_step_end(args, TrainerState(global_step=number, max_steps=9), TrainerControl())


@pytest.mark.parametrize(("local_rank", "stays"), [(0, False), (1, True)])
def test_a_restored_checkpoint_gives_its_room_back_after_the_first_step(pod: Pod, local_rank: int, stays: bool) -> None:
    checkpointer = Checkpointer(launch(nodes=1), pod, local_rank, threading.Event())
    assert (pod.output / "checkpoint-4").exists()
    step(checkpointer, pod, 5)
    assert (pod.output / "checkpoint-4").exists() is stays
    (pod.output / "checkpoint-5").mkdir()
    step(checkpointer, pod, 6)
    assert (pod.output / "checkpoint-5").exists(), "what this run wrote is the uploader's"


def test_the_parent_knows_that_a_save_is_due(pod: Pod) -> None:
    checkpointer = Checkpointer(launch(nodes=1), pod, 0, threading.Event())
    args = TrainingArguments(output_dir=str(pod.output), use_cpu=True, report_to=[])
    for due in (False, True):
        checkpointer.on_log(args, TrainerState(), TrainerControl(should_save=due))
        assert pod.saves is due


def test_the_parent_knows_that_the_model_is_written_in_the_end(pod: Pod) -> None:
    args = TrainingArguments(output_dir=str(pod.output), use_cpu=True, report_to=[])
    for local_rank, knows in ((1, False), (0, True)):
        checkpointer = Checkpointer(launch(nodes=1), pod, local_rank, threading.Event())
        checkpointer.on_train_end(args, TrainerState(), TrainerControl())
        assert pod.saves is knows
