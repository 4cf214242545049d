"""Qwen3-VL goes the way that Qwen2.5-VL goes: the whole stage with a tiny one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training import tiny_qwen3
from tests.training.support import World, publish_folder
from transformers import AutoModelForImageTextToText

from dpe_api.artifacts import TrainingSummary
from dpe_api.training_spec import ModelPart
from dpe_jobs.store import join
from dpe_jobs.training.parts import part_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return tiny_qwen3.write(tmp_path_factory.mktemp("qwen3"))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("frozen", {"freeze": ["vision", "projector"], "zero": 2}),
        ("lora", {"lora": {"r": 4}, "zero": 3}),
    ],
)
def test_qwen3_vl_trains_and_is_published_whole(
    world: World, model: Path, tmp_path: Path, name: str, fields: dict[str, object]
) -> None:
    uri = f"s3://dpe/models/qwen3-{name}"
    publish_folder(world.store, {p.name: p for p in model.iterdir()}, uri, "model")
    launch = world.launch(f"qwen3-{name}", max_steps=2, learning_rate=1e-2, temperature=2, **fields)  # type: ignore[arg-type]
    launch = launch.model_copy(update={"model_uri": uri})
    (pod,) = world.start(launch, model)
    assert pod.wait() == 0, pod.output()
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    assert TrainingSummary.model_validate(manifest.summary).steps == 2
    world.store.fetch_tree(join(launch.output, "model"), tmp_path)
    _, loading = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) | {"lm_head.weight"} == set(after)
    changed = {part_of(n) for n, tensor in before.items() if not torch.equal(tensor, after[n])}
    assert changed <= ({ModelPart.LANGUAGE} if name == "frozen" else set(ModelPart))
