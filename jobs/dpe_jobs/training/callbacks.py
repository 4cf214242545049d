"""What happens at each step besides training: metrics, checkpoints, an orderly stop, and the guards."""

import json
import logging
import resource
import shutil
import threading
import time
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpe_api.launch import TrainingLaunch
from dpe_jobs.training import checkpoints, reshape
from dpe_jobs.training.guards import Watch, guards_of
from dpe_jobs.training.metrics import Memory, StepMetrics, append_row, from_trl, read_rows
from dpe_jobs.training.pod import Pod

log = logging.getLogger(__name__)

_POLL_S = 0.02


def several_ranks() -> bool:
    """Whether there is anybody to agree with."""
    return bool(distributed.is_initialized() and distributed.get_world_size() > 1)


def gather(value: Any) -> list[Any]:
    """The value of every rank, by rank."""
    if not several_ranks():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def peak_memory() -> Memory:
    """Most memory that this process has held, on the host and on its GPU."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Memory(host, torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None)


class StepWatch(TrainerCallback):  # type: ignore[misc]
    """Records every step, asks the guards, and keeps the parent informed."""

    def __init__(self, launch: TrainingLaunch, pod: Pod, local_rank: int) -> None:
        self._launch, self._pod, self._writes = launch, pod, local_rank == 0
        self._began = time.monotonic()
        earlier = read_rows(pod.metrics_file)
        self._last: StepMetrics | None = earlier[-1] if earlier else None
        self._watch = Watch(guards_of(launch.training), earlier)
        self.ended_early: str | None = None
        """Why nothing is left to learn, when that ended the training."""

    def on_step_begin(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record the step and let the guards look at it. TRL's last log, of the whole run, has no loss."""
        if logs is None or "loss" not in logs:
            return
        training = self._launch.training
        completions = training.prompts_per_step * training.rollouts_per_prompt
        seconds = time.monotonic() - self._began
        row = from_trl(logs, state.global_step, completions, seconds, self._last, peak_memory())
        self._last = row
        ended = self._watch.look(row)
        if ended is not None and state.global_step < state.max_steps:
            self.ended_early = ended
            control.should_training_stop = control.should_save = True
        self._pod.beat()
        if self._writes:
            append_row(self._pod.metrics_file, row)
        if state.is_world_process_zero:
            log.info(
                "step %d of %d: reward %.3f, loss %.4f, entropy %.3f, %.2f s",
                row.step,
                state.max_steps,
                row.reward,
                row.loss,
                row.entropy or 0.0,
                row.seconds,
            )


class Checkpointer(TrainerCallback):  # type: ignore[misc]
    """Hands checkpoints over to the parent, and stops the whole gang at the same step when one is asked to."""

    def __init__(self, launch: TrainingLaunch, pod: Pod, local_rank: int, stop: threading.Event) -> None:
        self._launch, self._pod, self._local_rank, self._stop = launch, pod, local_rank, stop
        self.stopped_at: int | None = None
        """Step after which the gang stopped because a rank was asked to."""
        self._restored = checkpoints.newest_local(pod.output)
        self.waited_s = 0.0
        """Time that this rank stood still because the checkpoint before was not in the store yet."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        _state: TrainerState,
        _control: TrainerControl,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Have norms and biases without weight decay again.

        From a universal checkpoint, which is read by now, ZeRO-3 gives all groups of the optimizer the settings of the
        first. transformers makes two: weights with a decay, then, where they are trained, norms and biases without.
        """
        if self._restored is not None and reshape.is_universal(self._restored):
            for group, decay in zip(optimizer.param_groups, (args.weight_decay, 0.0), strict=False):
                group["weight_decay"] = decay

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save after the first step, so that what cannot be saved shows early; and when any rank must leave."""
        asked = torch.tensor([int(self._stop.is_set())], device=args.device)
        if several_ranks():
            distributed.all_reduce(asked, op=distributed.ReduceOp.MAX)
        if self._restored is not None and self._local_rank == 0:  # every rank has read it: its room is that of the next
            shutil.rmtree(self._restored)
        self._restored = None
        reuse = self._launch.training.num_iterations
        if state.global_step == reuse:  # between updates on the same rollouts there is nothing exact to resume from
            control.should_save = True
        if asked.item() and state.global_step < state.max_steps and state.global_step % reuse == 0:
            self.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True
        return control

    def on_log(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """The last call before a checkpoint is written: one at a time, so that disk and store keep up."""
        if control.should_save and self._local_rank == 0:
            self._pod.begin_save()
            began = time.monotonic()
            while self._pod.saved() is not None:  # the parent ends the pod when the store stays away
                time.sleep(_POLL_S)
            self.waited_s += time.monotonic() - began
        return control

    def on_save(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Tell the parent once all ranks have written their shards; it uploads them while training goes on."""
        step = state.global_step
        if state.is_world_process_zero:
            local = checkpoints.local_folder(self._pod.output, step)
            shutil.copy(self._pod.metrics_file, local)
            shape = checkpoints.Shape(distributed.get_world_size() if several_ranks() else 1, self._zero_stage)
            (local / checkpoints.SHAPE).write_text(json.dumps(shape._asdict()))
        gather(None)
        if self._local_rank == 0:  # ranks of a pod share the folder
            self._pod.save(step)
        self._pod.beat()

    def on_train_end(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """What is left is to write the model, and nothing says a word until that is done."""
        if self._local_rank == 0:  # the one that ended the save before: another one's word could be taken back by it
            self._pod.begin_save()

    @property
    def _zero_stage(self) -> int:
        return self._launch.training.deepspeed.zero_stage
