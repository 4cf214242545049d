"""What we are compared with: a plain TRL script with the same settings, data and reward, and nothing else.

`torchrun --nproc-per-node=1 plain_trl.py LAUNCH MODEL SAMPLES OUT` writes the seconds of each step.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

from transformers import AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, import_utils

from dpe_api.launch import TrainingLaunch, read_launch
from dpe_jobs.seeds import derive
from dpe_jobs.training.data import load_samples
from dpe_jobs.training.rewards import rewards
from dpe_jobs.training.samples import Samples, Source
from dpe_jobs.training.settings import grpo_arguments, prompts_of_run

import_utils.is_vllm_available = lambda **_: False


class Clock(TrainerCallback):
    """Seconds of each step, as our own metrics count them: from its begin to its log."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs is not None and "reward" in logs:
            self.seconds.append(time.monotonic() - self._began)


def main() -> None:
    file, model, samples, out = sys.argv[1:]
    launch = read_launch(file)
    assert isinstance(launch, TrainingLaunch)
    training, work, clock = launch.training, Path(out).parent, Clock()
    seed = derive(launch.seed, launch.round, "training")
    arguments = grpo_arguments(training, seed, int(os.environ["WORLD_SIZE"]), False, work / "output")
    rows = Samples([Source("samples", partial(open, samples, "rb"))])
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[reward for reward, _ in rewards(training)],
        args=GRPOConfig(**{**arguments, "save_strategy": "no"}),
        train_dataset=load_samples(rows, prompts_of_run(training), seed, launch.max_pixels),
        processing_class=AutoProcessor.from_pretrained(model, padding_side="left"),
        callbacks=[clock],
    )
    trainer.train()
    Path(out).write_text(json.dumps(clock.seconds))


if __name__ == "__main__":
    main()
