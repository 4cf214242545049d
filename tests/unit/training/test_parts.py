import pytest

from dpe_api.training_spec import ModelPart
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training.parts import frozen, lora_targets, part_of

VISION, PROJECTOR, LANGUAGE = ModelPart


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.blocks.0.attn.qkv.weight", VISION),
        ("model.visual.patch_embed.proj.weight", VISION),
        ("model.visual.merger.mlp.0.weight", PROJECTOR),
        ("model.visual.deepstack_merger_list.1.linear_fc1.weight", PROJECTOR),
        ("model.language_model.layers.3.mlp.up_proj.weight", LANGUAGE),
        ("lm_head.weight", LANGUAGE),
        ("model.vision_tower.encoder.layers.0.fc1.weight", VISION),
        ("model.multi_modal_projector.linear_1.weight", PROJECTOR),
        ("model.connector.modality_projection.proj.weight", PROJECTOR),
        ("model.text_model.layers.0.mlp.gate_proj.weight", LANGUAGE),
        ("mystery.weight", None),
    ],
)
def test_each_part_is_known_by_the_names_of_qwen_llava_and_idefics(name: str, part: ModelPart | None) -> None:
    assert part_of(name) == part


def test_a_part_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(BadConfig, match="freeze names projector"):
        frozen(["model.visual.blocks.0.weight", "lm_head.weight"], [PROJECTOR])


def test_freezing_takes_a_part_whole_and_nothing_else() -> None:
    names = ["model.visual.blocks.0.w", "model.visual.merger.w", "model.language_model.layers.0.w", "mystery.w"]
    assert frozen(names, [VISION]) == {"model.visual.blocks.0.w"}


def test_adapters_go_to_what_is_not_frozen_and_never_to_the_head() -> None:
    linear = ["model.visual.blocks.0.attn.qkv", "model.language_model.layers.0.q_proj", "lm_head"]
    assert lora_targets(linear, []) == linear[:2]
    assert lora_targets(linear, [VISION]) == linear[1:2]
    with pytest.raises(BadConfig, match="every linear layer is frozen"):
        lora_targets(linear, [VISION, LANGUAGE])
