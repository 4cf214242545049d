"""What DeepSpeed makes of a model, against the same one without it."""

import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import tiny_qwen3
from tests.training.support import BASE, HOST, free_port
from tests.unit.training.test_ends import launch
from transformers import AutoModelForImageTextToText

from dpe_api.training_spec import Training
from dpe_jobs.training import reshape
from dpe_jobs.training.checkpoints import SHAPE, Shape
from dpe_jobs.training.libraries import init_deepspeed_on_cpu, without_vllm
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.settings import deepspeed_config, grpo_arguments

pytestmark = pytest.mark.timeout(300)

SPEC = {
    "nodes": 1,
    "gpus_per_node": 0,
    "rollout_engine": "transformers",
    "precision": "bf16",
    "deepspeed": {"zero_stage": 3},
}


def become_the_only_rank() -> None:
    """Set this process up as torchrun and the launcher do."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": HOST, "MASTER_PORT": str(free_port())}
    os.environ |= {**rank, "DS_ACCELERATOR": "cpu"}


def rounded(models: list[Path], output: Path) -> list[str]:
    """Buffers that the only rank has otherwise than who loads without DeepSpeed; changes the process that it is in."""
    become_the_only_rank()
    plain = [dict(AutoModelForImageTextToText.from_pretrained(m, dtype=torch.bfloat16).named_buffers()) for m in models]
    without_vllm()
    from trl import GRPOConfig

    config = GRPOConfig(**grpo_arguments(Training.model_validate(SPEC), 0, 1, False, output))
    assert config.deepspeed is not None, "alive, it lets DeepSpeed cut every model that is made"
    init_deepspeed_on_cpu()
    differ = []
    for model, expected in zip(models, plain, strict=True):
        cut = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.bfloat16)
        assert all(hasattr(parameter, "ds_id") for parameter in cut.parameters())
        found = dict(cut.named_buffers())
        assert found.keys() == expected.keys()
        assert any(name.endswith("inv_freq") for name in found)
        same = {n for n, b in found.items() if b.dtype == expected[n].dtype and torch.equal(b, expected[n])}
        differ += sorted(found.keys() - same)
    return differ


def test_the_frequencies_of_rope_are_not_rounded_to_bf16(tmp_path: Path) -> None:
    models = [BASE, tiny_qwen3.write(tmp_path / "model")]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(rounded, models, tmp_path / "output").result() == []


def sums_of_gradients(cases: list[tuple[int, bool]]) -> list[float]:
    """Of one gradient of 1 and 63 of 1/512, a pass each: the sum as DeepSpeed's optimizer has it, for each case."""
    become_the_only_rank()
    init_deepspeed_on_cpu()
    import deepspeed

    sums = []
    for stage, offload in cases:
        zero = {"zero_stage": stage, "offload_optimizer": offload}
        config = deepspeed_config(Training.model_validate({**SPEC, "deepspeed": zero}), cuda=False)
        assert config is not None
        config |= {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 64,
            "train_batch_size": 64,
            "gradient_clipping": 0.0,
        }
        model = torch.nn.Linear(4, 1, bias=False, dtype=torch.bfloat16)
        engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config=config)
        for number in range(64):
            inputs = torch.tensor([[1 / 512 if number else 1.0, 0, 0, 0]], dtype=torch.bfloat16)
            engine.backward(engine(inputs).sum())
            engine.step()
        sums.append(float(engine.get_global_grad_norm()) * 64)  # each pass counts for its share
    return sums


def test_small_gradients_of_many_passes_are_not_lost_in_bf16() -> None:
    cases = [(stage, offload) for stage in (2, 3) for offload in (False, True)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(sums_of_gradients, cases).result() == [1 + 63 / 512] * len(cases)


def decays(folder: Path) -> tuple[list[float], list[float]]:
    """Weight decay of the groups after a universal checkpoint was loaded with ZeRO-3, and as training begins."""
    become_the_only_rank()
    init_deepspeed_on_cpu()
    import deepspeed
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from dpe_jobs.training.callbacks import Checkpointer

    config = deepspeed_config(Training.model_validate({**SPEC, "precision": "fp32"}), cuda=False)
    assert config is not None
    config |= {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "train_batch_size": 1}
    config |= {"gradient_clipping": 0.0}

    def start(**more: object) -> Any:
        model = torch.nn.Linear(4, 4)
        groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
        return deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups), config={**config, **more})[0]

    pod = Pod(0, folder / "model", folder / "work")
    pod.prepare(launch(nodes=1))
    saved, engine = pod.output / "checkpoint-1", start()
    engine.backward(engine(torch.ones(1, 4)).sum())
    engine.step()
    engine.save_checkpoint(str(saved), "global_step1")
    (saved / SHAPE).write_text(json.dumps(Shape(2, 3)._asdict()))
    reshape.fit(saved, Shape(1, 3), pod.beat)
    resumed = start(checkpoint={"load_universal": True})
    resumed.load_checkpoint(str(saved))
    groups = resumed.optimizer.param_groups
    loaded = [group["weight_decay"] for group in groups]
    arguments = TrainingArguments(output_dir=str(pod.output), use_cpu=True, report_to=[], weight_decay=0.1)
    checkpointer = Checkpointer(launch(nodes=1), pod, 0, threading.Event())
    checkpointer.on_train_begin(arguments, TrainerState(), TrainerControl(), optimizer=resumed.optimizer)
    return loaded, [group["weight_decay"] for group in groups]


def test_norms_and_biases_have_no_weight_decay_after_a_change_of_nodes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        loaded, begun = pool.submit(decays, tmp_path).result()
    assert loaded == [0.1, 0.1], "DeepSpeed keeps them apart by now: on_train_begin is not needed any more"
    assert begun == [0.1, 0.0]
