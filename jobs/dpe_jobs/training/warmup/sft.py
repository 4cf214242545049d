"""The warm-up of one rank: TRL's SFTTrainer over the lessons, with the ranks, number format and optimizer of GRPO."""

import logging
import math
import os
import time
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpe_api.launch import TrainingLaunch
from dpe_jobs.runtime import BadConfig, Transient
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store
from dpe_jobs.training import weights
from dpe_jobs.training.data import as_prompt
from dpe_jobs.training.libraries import copy_weights_once, init_deepspeed_on_cpu, without_vllm
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.settings import sft_arguments
from dpe_jobs.training.warmup.lessons import Lessons, lesson_order, read_lessons, response
from dpe_jobs.training.warmup.metrics import METRICS, WarmupStep, append

log = logging.getLogger(__name__)

_LEAST_TAKEN = 0.5  # of an adapter's updates


class Watch(TrainerCallback):  # type: ignore[misc]
    """Records every step. Transient "LossNotFinite": loss or gradient is no number."""

    def __init__(self, pod: Pod, writes: bool) -> None:
        self._pod, self._writes, self._began = pod, writes, time.monotonic()

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
        """Record the step. The last log, of the whole run, has no loss."""
        if logs is None or "loss" not in logs:
            return
        row = WarmupStep(
            step=state.global_step,
            loss=logs["loss"],
            grad_norm=logs.get("grad_norm"),
            token_accuracy=logs.get("mean_token_accuracy"),
            seconds=round(time.monotonic() - self._began, 4),
        )
        for name, value in (("loss", row.loss), ("grad_norm", row.grad_norm)):
            if value is not None and not math.isfinite(value):
                raise Transient(
                    "LossNotFinite",
                    f"{name} is {value} at step {row.step} of the warm-up: lower spec.training.warmup.learningRate, or "
                    "look at the samples",
                )
        self._pod.beat()
        if self._writes:
            append(self._pod.warmed / METRICS, row)
            log.info("warm-up step %d of %d: loss %.4f, %.2f s", row.step, state.max_steps, row.loss, row.seconds)


class _Texts:
    """From numbers of samples to what SFTTrainer reads, when they are looked at."""

    def __init__(self, lessons: Lessons, processor: Any, max_pixels: int, template: dict[str, Any]) -> None:
        self._lessons, self._processor, self._max_pixels, self._template = lessons, processor, max_pixels, template

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [self._text(number) for number in batch["number"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _text(self, number: int) -> dict[str, Any]:
        """Prompt and answer as texts: what GRPO renders, and after the answer the end of the turn and nothing more."""
        row = self._lessons.samples.row(number)
        asked, answer = as_prompt(row, self._max_pixels), response(row)
        assert answer is not None, "such rows are no lessons"
        content = [{"type": "image"}, {"type": "text", "text": asked["question"]}]
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False, **self._template
        )
        end = self._processor.tokenizer.eos_token
        return {"prompt": prompt, "completion": f"{self._lessons.space}{answer}{end}", "image": asked["image"]}


def _make_trainer(launch: TrainingLaunch, pod: Pod, lessons: Lessons, watch: Watch) -> Any:
    """The SFTTrainer over the lessons."""
    import torch

    from dpe_jobs.training.model import freeze_parts, let_gradients_in, peft_config

    training = launch.training
    assert training.warmup is not None, "else there is no warm-up"
    cuda = training.gpus_per_node > 0 and torch.cuda.is_available()
    seed = derive(launch.seed, launch.round, "warmup")
    without_vllm()
    adapters = peft_config(training, str(pod.model))  # before SFTConfig, after which DeepSpeed cuts every model
    from trl import SFTConfig, SFTTrainer

    arguments = sft_arguments(
        training, training.warmup, seed, int(os.environ["WORLD_SIZE"]), cuda, pod.work / "warmup-output"
    )
    try:
        config = SFTConfig(**arguments)
    except (ValueError, TypeError) as error:
        raise BadConfig("TrainerArgument", f"TRL refuses its arguments for the warm-up: {error}") from error
    if config.deepspeed is not None and not cuda:
        init_deepspeed_on_cpu()
    from transformers import AutoProcessor, PrinterCallback

    processor = AutoProcessor.from_pretrained(pod.model, padding_side="left")
    data = Dataset.from_dict({"number": lesson_order(lessons, training.warmup, seed)})
    template = dict(training.trainer.extra.get("chat_template_kwargs") or {})  # type: ignore[arg-type]
    trainer = SFTTrainer(
        model=str(pod.model),
        args=config,
        train_dataset=data.with_transform(_Texts(lessons, processor, launch.max_pixels, template)),
        processing_class=processor,
        callbacks=[watch],
        peft_config=adapters,
    )
    copy_weights_once(trainer, training.deepspeed.zero_stage)
    if training.lora is None:  # adapters are made for what is not frozen; all else is frozen already
        freeze_parts(trainer.model, training.freeze)
    elif training.gradient_checkpointing:
        let_gradients_in(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return trainer


def refuse_lost(share: float) -> None:
    """BadConfig when the merged weights took less than half of what the warm-up taught: GRPO would start as before."""
    if share < _LEAST_TAKEN:
        raise BadConfig(
            "WarmupLost",
            f"the base took only {share:.0%} of the warm-up's updates, the rest is below what its number format can "
            "hold: raise spec.training.warmup.learningRate, or leave lora out",
        )


def train(launch: TrainingLaunch, pod: Pod, store: Store) -> None:
    """Train to the end and leave model, adapter and metrics in the first pod's work folder."""
    lessons = read_lessons(store, launch.samples_artifact)
    assert lessons is not None, "the parent has looked"
    pod.warmed.mkdir(exist_ok=True)
    trainer = _make_trainer(launch, pod, lessons, Watch(pod, int(os.environ["RANK"]) == 0))
    pod.beat()
    trainer.train()
    pod.beat()
    model, adapter = pod.warmed / "model", pod.warmed / "adapter"
    trainer.save_model(str(model if launch.training.lora is None else adapter))
    if trainer.is_world_process_zero():
        if launch.training.lora is not None:
            refuse_lost(weights.merge(pod.model, adapter, model))
            weights.complete_adapter(adapter, launch.model_uri)
        weights.complete(model, pod.model)
        log.info("warmed up; the model is written")
