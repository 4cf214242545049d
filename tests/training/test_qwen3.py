"""Qwen3-VL goes the way that Qwen2.5-VL goes: the whole stage with a tiny one."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from tests.training import tiny_qwen3
from tests.training.support import BASE, World, publish_folder
from tests.training.test_faults import CUSTOM, rewards_package
from transformers import AutoModelForImageTextToText, AutoProcessor

from dpe_api.artifacts import TrainingSummary
from dpe_api.training_spec import ModelPart
from dpe_jobs.store import join
from dpe_jobs.training.model import let_gradients_in
from dpe_jobs.training.parts import part_of
from dpe_jobs.training.warmup.run import folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

WARMUP = {"max_steps": 2, "batch_size": 4, "learning_rate": 1e-2}
UNEQUAL = "def odd(completions, **_):\n    return [n % 2 for n in range(len(completions))]\n"
"""The tiny model is never right, and equal rewards teach nothing."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return tiny_qwen3.write(tmp_path_factory.mktemp("qwen3"))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("frozen", {"freeze": ["vision", "projector"], "zero": 2}),
        ("lora", {"lora": {"r": 4}, "zero": 3, "gradient_checkpointing": True, "warmup": WARMUP}),
    ],
)
def test_qwen3_vl_trains_and_is_published_whole(
    world: World, model: Path, tmp_path: Path, name: str, fields: dict[str, object]
) -> None:
    uri = f"s3://dpe/models/qwen3-{name}"
    publish_folder(world.store, {p.name: p for p in model.iterdir()}, uri, "model")
    fields = {"max_steps": 2, "learning_rate": 1e-2, "temperature": 2, "rewards": {"answer": 1, **CUSTOM}, **fields}
    launch = world.launch(f"qwen3-{name}", **fields).model_copy(update={"model_uri": uri})  # type: ignore[arg-type]
    (pod,) = world.start(launch, model, path=[rewards_package(tmp_path, UNEQUAL)])
    assert pod.wait() == 0, pod.output()
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    assert TrainingSummary.model_validate(manifest.summary).steps == 2
    trained = tmp_path / "model"
    world.store.fetch_tree(join(launch.output, "model"), trained)
    _, loading = AutoModelForImageTextToText.from_pretrained(trained, dtype=torch.float32, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    before, after = load_file(model / "model.safetensors"), load_file(trained / "model.safetensors")
    assert set(before) | {"lm_head.weight"} == set(after)
    changed = {part_of(n) for n, tensor in before.items() if not torch.equal(tensor, after[n])}
    assert changed == ({ModelPart.LANGUAGE} if name == "frozen" else set(ModelPart))
    if "warmup" in fields:
        world.store.fetch_tree(join(folder(launch, launch.attempt), "adapter"), tmp_path / "warmup")
        warmed = load_file(tmp_path / "warmup" / "adapter_model.safetensors")
        world.store.fetch_tree(join(launch.output, "adapter"), tmp_path / "adapter")
        both = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        learnt = {n: part_of(n) for n, tensor in warmed.items() if "lora_B" in n and tensor.any()}
        assert set(learnt.values()) == set(ModelPart), "the warm-up"
        rank = {n: warmed[n].shape[1] for n in learnt}
        learnt = {n: part_of(n) for n, r in rank.items() if both[n][:, :r].any() and both[n][:, r:].any()}
        assert set(learnt.values()) == set(ModelPart), "GRPO, whose adapter is the other half of the published one"


@pytest.mark.parametrize("base", ["Qwen2.5-VL", "Qwen3-VL"])
def test_gradients_reach_every_adapter_of_the_vision_tower(model: Path, base: str) -> None:
    chosen = BASE if base == "Qwen2.5-VL" else model
    adapted = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(chosen, dtype=torch.float32),
        LoraConfig(r=2, target_modules=r".*visual\.blocks.*(qkv|proj)"),
    )
    adapted.gradient_checkpointing_enable({"use_reentrant": True})  # as TRL does with ZeRO-3
    adapted.enable_input_require_grads()
    let_gradients_in(adapted)
    content = [{"type": "image", "image": Image.new("RGB", (64, 64), "teal")}, {"type": "text", "text": "what is it?"}]
    processor = AutoProcessor.from_pretrained(chosen)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    adapted.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    gradients = {n: p.grad for n, p in adapted.named_parameters() if "lora_B" in n}
    assert len(gradients) >= 4
    assert [n for n, gradient in gradients.items() if gradient is None or not gradient.any()] == []
