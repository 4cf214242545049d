"""What happens at each step besides training: metrics, checkpoints, an orderly stop, and the guards."""

import logging
import math
import resource
import shutil
import threading
import time
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpe_api.artifacts import OutputFile
from dpe_api.launch import TrainingLaunch
from dpe_jobs.runtime import BadConfig, Transient
from dpe_jobs.store import Store
from dpe_jobs.training import checkpoints
from dpe_jobs.training.metrics import append_row, from_trl
from dpe_jobs.training.pod import Pod

log = logging.getLogger(__name__)

MAX_LOGP_DIFFERENCE = 0.5  # nats per token, mean; bf16 rounding gives a few hundredths, wrong image tokens far more


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


def peak_rss_bytes() -> int:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_step(logs: dict[str, float], step: int) -> None:
    """Stop a run that has gone astray; the values are means over all ranks, so all ranks stop at the same step."""
    for name in ("loss", "grad_norm"):
        value = logs.get(name)
        if value is not None and not math.isfinite(value):
            raise Transient(
                "LossNotFinite",
                f"{name} is {value} at step {step}: lower spec.training.learningRate, or look at the samples",
            )
    difference = logs.get("sampling/sampling_logp_difference/mean")
    if difference is not None and difference > MAX_LOGP_DIFFERENCE:
        raise BadConfig(
            "SamplingMismatch",
            f"rollout engine and trainer differ by {difference:.3f} nats per token at step {step}, above "
            f"{MAX_LOGP_DIFFERENCE}: they see different prompts or weights; use the vLLM version that the training "
            "image pins, or rolloutEngine transformers",
        )


class StepWatch(TrainerCallback):  # type: ignore[misc]
    """Records every step and keeps the parent informed."""

    def __init__(self, launch: TrainingLaunch, pod: Pod, local_rank: int) -> None:
        self._launch, self._pod, self._writes = launch, pod, local_rank == 0
        self._began = time.monotonic()

    def on_step_begin(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Check and record the step. TRL's last log, of the whole run, has no reward."""
        if logs is None or "reward" not in logs:
            return
        check_step(logs, state.global_step)
        self._pod.beat()
        if not self._writes:
            return
        training = self._launch.training
        completions = training.prompts_per_step * training.rollouts_per_prompt
        row = from_trl(logs, state.global_step, completions, time.monotonic() - self._began)
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
    """Puts checkpoints into the object store, and stops the whole gang at the same step when one is asked to."""

    def __init__(self, launch: TrainingLaunch, pod: Pod, store: Store, local_rank: int, stop: threading.Event) -> None:
        self._launch, self._pod, self._store, self._local_rank, self._stop = launch, pod, store, local_rank, stop
        self.stopped_at: int | None = None
        """Step after which the gang stopped because a rank was asked to."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save after the first step, so that a lost pod never costs the start; and when any rank must leave."""
        if state.global_step == 1:
            control.should_save = True
        asked = torch.tensor([int(self._stop.is_set())], device=args.device)
        if several_ranks():
            distributed.all_reduce(asked, op=distributed.ReduceOp.MAX)
        if asked.item() and state.global_step < state.max_steps:
            self.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True
        return control

    def on_save(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Upload, agree, put the marker. Called on every rank after its shards are on disk."""
        step, began = state.global_step, time.monotonic()
        local = checkpoints.local_folder(self._pod.output, step)
        if state.is_world_process_zero:
            shutil.copy(self._pod.metrics_file, local)
            checkpoints.withdraw(self._store, self._launch, step)
        gather(None)  # every rank has written its shards, and the old marker is gone
        outputs: list[OutputFile] = []
        if self._local_rank == 0:  # ranks of a pod share the folder
            outputs = checkpoints.upload(self._store, self._launch, step, local, self._pod.beat)
        everyone = [o for part in gather(outputs) for o in part]
        if state.is_world_process_zero:
            checkpoints.commit(self._store, self._launch, step, everyone)
            size = sum(o.size for o in everyone)
            log.info("checkpoint of step %d: %.1f MB in %.1f s", step, size / 1e6, time.monotonic() - began)
        gather(None)  # nobody goes on before the marker is there
        if self._local_rank == 0:
            shutil.rmtree(local)
        self._pod.beat()
