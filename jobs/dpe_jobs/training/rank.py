"""One rank of the gang, as torchrun starts it: `python -m dpe_jobs.training.rank --work DIR --model DIR --index N`.

It leaves its end in a file for the parent: torchrun turns every exit code into 1.
"""

import argparse
import ctypes
import faulthandler
import json
import logging
import os
import re
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dpe_api.launch import TrainingLaunch, read_launch
from dpe_api.names import Exit
from dpe_api.training_spec import RolloutEngine
from dpe_jobs import tracing
from dpe_jobs.runtime import BadConfig, PeerGone, Stopped, Transient, classify, set_up_logging
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store
from dpe_jobs.training import checkpoints, reshape
from dpe_jobs.training.libraries import copy_weights_once, init_deepspeed_on_cpu, seed_sampling, without_vllm
from dpe_jobs.training.peers import peer_is_gone
from dpe_jobs.training.pod import Pod, Result
from dpe_jobs.training.rewards import exact, rewards
from dpe_jobs.training.settings import grpo_arguments, prompts_of_run, within_context, without_placeholders

log = logging.getLogger(__name__)

STOP_WITHIN_S = 20.0  # from SIGTERM to the end, checkpoint included; the kubelet kills after 30 s
_PR_SET_PDEATHSIG = 1
_TOO_LONG = re.compile(r"longer than the maximum\s+model length|maximum context length is")  # vLLM of a prompt
_FROM_SOURCE = re.compile(r"^\[/[^\]]*\] ")  # gloo puts its build machine's path in front


class StopRequest:
    """SIGTERM: while training, finish the step and save; before and after, and when that takes too long, just leave."""

    def __init__(self, pod: Pod, rank: int) -> None:
        self._pod, self._rank = pod, rank
        self.asked = threading.Event()
        self.training = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _signum: int, _frame: FrameType | None) -> None:
        if not self.training:
            self.leave()
        if not self.asked.is_set():
            self.asked.set()
            timer = threading.Timer(STOP_WITHIN_S, self.leave)
            timer.daemon = True
            timer.start()

    def leave(self) -> None:
        """End at once."""
        self._pod.ended(self._rank, *classify(Stopped()))
        os._exit(Exit.STOPPED)


def _comes_from(error: BaseException, package: str) -> bool:
    """Whether code of a package had a part in it."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.partition(".")[0] == package for module in modules)


@contextmanager
def arguments_refused() -> Iterator[None]:
    """BadConfig for what TRL's classes raise when their arguments do not go together: it would be so again."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        if _comes_from(error, "vllm"):  # which raises ValueError also where a GPU's memory is not free yet
            raise
        raise BadConfig("TrainerArgument", f"TRL refuses its arguments: {error}") from error


@contextmanager
def prompts_have_room() -> Iterator[None]:
    """BadConfig for a prompt that vLLM has no room for: every attempt comes to the same sample."""
    try:
        yield
    except Exception as error:
        if not _TOO_LONG.search(str(error)):
            raise
        raise BadConfig(
            "PromptTooLong",
            f"a prompt with its image tokens has no room in vLLM: raise spec.training.maxPromptLength, where the model "
            f"has the positions, or lower spec.diagnosis.maxPixels: {error}",
        ) from error


def _config(arguments: dict[str, Any], extra: Iterable[str]) -> Any:
    """TRL's GRPOConfig. BadConfig when a value of `trainer.extra` has another type than TRL says, or TRL refuses it."""
    from trl import GRPOConfig

    types = get_type_hints(GRPOConfig)
    for name in extra:
        try:
            TypeAdapter(types[name]).validate_python(arguments[name], strict=True)
        except ValidationError as error:
            where = f"spec.training.trainer.extra.{name} is {arguments[name]!r}"
            raise BadConfig(
                "TrainerArgument", f"{where}: TRL wants {types[name]}: {error.errors()[0]['msg']}"
            ) from error
    with arguments_refused():
        return GRPOConfig(**arguments)


def _arguments(launch: TrainingLaunch, pod: Pod, seed: int, cuda: bool) -> dict[str, Any]:
    """Arguments of GRPOConfig but for the rewards' weights: of the spec, the model, and what it goes on from."""
    arguments = grpo_arguments(launch.training, seed, int(os.environ["WORLD_SIZE"]), cuda, pod.output)
    arguments = without_placeholders(within_context(arguments, pod.model), pod.model)
    resumed = checkpoints.newest_local(pod.output)
    if arguments["deepspeed"] is not None and resumed is not None and reshape.is_universal(resumed):
        arguments["deepspeed"]["checkpoint"] = {"load_universal": True}
    return arguments


def _make_trainer(launch: TrainingLaunch, pod: Pod, store: Store, callbacks: list[Any]) -> Any:
    """The GRPOTrainer over the run's prompts."""
    import torch

    from dpe_jobs.training.model import freeze_parts, let_gradients_in, peft_config

    training = launch.training
    cuda = training.gpus_per_node > 0 and torch.cuda.is_available()
    seed = derive(launch.seed, launch.round, "training")
    if training.rollout_engine is RolloutEngine.TRANSFORMERS:
        without_vllm()
    parts = rewards(training)
    # before GRPOConfig, after which DeepSpeed cuts every model that is made
    adapters = peft_config(training, str(pod.model))
    weights = exact([weight for _, weight in parts])
    config = _config({**_arguments(launch, pod, seed, cuda), "reward_weights": weights}, training.trainer.extra)
    if config.deepspeed is not None and not cuda:
        init_deepspeed_on_cpu()
    from transformers import AutoProcessor, PrinterCallback
    from trl import GRPOTrainer

    from dpe_jobs.training.data import load_samples
    from dpe_jobs.training.samples import Samples, in_store

    samples = Samples(in_store(store, launch.samples_artifact))
    prompts = load_samples(samples, prompts_of_run(training), seed, launch.max_pixels)
    processor = AutoProcessor.from_pretrained(pod.model, padding_side="left")
    with arguments_refused():
        trainer = GRPOTrainer(
            model=str(pod.model),
            reward_funcs=[reward for reward, _ in parts],
            args=config,
            train_dataset=prompts,
            processing_class=processor,
            callbacks=callbacks,
            peft_config=adapters,
        )
    copy_weights_once(trainer, training.deepspeed.zero_stage)
    if config.use_vllm:
        seed_sampling(seed, int(os.environ["RANK"]), config.vllm_tensor_parallel_size)
    if training.lora is None:  # adapters are made for what is not frozen; all else is frozen already
        freeze_parts(trainer.model, training.freeze)
    elif training.gradient_checkpointing:
        let_gradients_in(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _agree_on_resume(pod: Pod) -> str | None:
    """The checkpoint folder to go on from. All pods looked for themselves: they must have found the same."""
    from dpe_jobs.training.callbacks import gather

    folder = checkpoints.newest_local(pod.output)
    found = gather("none" if folder is None else folder.name)
    if len(set(found)) > 1:
        raise Transient("ResumeDisagreement", f"the ranks found different checkpoints: {found}")
    return None if folder is None else str(folder)


def train(launch: TrainingLaunch, pod: Pod, store: Store, stop: StopRequest) -> None:
    """Train to the end and leave the model in the first pod's work folder."""
    from dpe_jobs.training import weights
    from dpe_jobs.training.callbacks import Checkpointer, StepWatch, gather, peak_memory

    local_rank = int(os.environ["LOCAL_RANK"])
    watch = StepWatch(launch, pod, local_rank)
    checkpointer = Checkpointer(launch, pod, local_rank, stop.asked)
    trainer = _make_trainer(launch, pod, store, [watch, checkpointer])
    checkpoint = _agree_on_resume(pod)
    pod.beat()
    stop.training = True
    with prompts_have_room():
        trainer.train(resume_from_checkpoint=checkpoint)
    stop.training = False
    if checkpointer.stopped_at is not None:
        if stop.asked.is_set():
            raise Stopped
        raise PeerGone(
            "PeerStopped", f"another pod was stopped; all ended after step {checkpointer.stopped_at}, which is saved"
        )
    pod.beat()
    trainer.save_model(str(pod.trained if launch.training.lora is None else pod.adapter))
    peak = max(memory.host for memory in gather(peak_memory()))
    if trainer.is_world_process_zero():
        merged = None
        if launch.training.lora is not None:
            merged = weights.merge(pod.model, pod.adapter, pod.trained)
            if pod.warmup_adapter.exists():  # the merged model has it in its weights, the published base has not
                weights.join(pod.warmup_adapter, pod.adapter)
            weights.complete_adapter(pod.adapter, launch.model_uri)
        weights.complete(pod.trained, pod.model)
        world, waited_s = int(os.environ["WORLD_SIZE"]), round(checkpointer.waited_s, 3)
        result = Result(world, peak, watch.ended_early, waited_s, merged)
        pod.result_file.write_text(json.dumps(asdict(result)))
        log.info("trained; the model is written")


def main() -> None:
    """Never returns an error to torchrun in silence: the end is on disk before the process is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--warmup", action="store_true", help="the supervised steps before GRPO")
    arguments = parser.parse_args()
    # torchrun gives every rank its own session: without this, ranks outlive a killed torchrun
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    pod, rank = Pod(arguments.index, arguments.model, arguments.work), int(os.environ["RANK"])
    stop = StopRequest(pod, rank)
    pod.started(rank)
    launch = read_launch(str(pod.launch_file))
    if not isinstance(launch, TrainingLaunch):
        raise TypeError(f"{pod.launch_file} is a launch of {launch.stage}")
    set_up_logging(launch)
    with tracing.process(launch, f"rank {rank}") as ended:
        code = _run(launch, pod, rank, stop, warmup=arguments.warmup)
        ended(code)
    logging.shutdown()
    os._exit(code)  # tearing down process groups and interpreter takes seconds, and can hang when a peer is gone


def _run(launch: TrainingLaunch, pod: Pod, rank: int, stop: StopRequest, *, warmup: bool) -> Exit:
    """Train, and say on disk how it ended; never raises."""
    code = Exit.DONE
    try:
        store = Store.from_env(launch.store)
        if warmup:
            from dpe_jobs.training.warmup import sft

            sft.train(launch, pod, store)
        else:
            train(launch, pod, store, stop)
    except BaseException as error:  # whatever it is, the parent must learn of it
        code, reason, message = classify(error)
        if peer_is_gone(error):
            code, reason = Exit.PEER_GONE, "PeerGone"
            message = f"a rank of the gang vanished: {_FROM_SOURCE.sub('', message.splitlines()[0])}"
        if stop.asked.is_set():
            code, reason, message = classify(Stopped())
        if code is not Exit.STOPPED:
            log.exception("rank %d: %s: %s", rank, reason, message)
        pod.ended(rank, code, reason, message)
    return code


if __name__ == "__main__":
    main()
