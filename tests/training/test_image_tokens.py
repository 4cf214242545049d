"""The arithmetic that generation counts image tokens by is that of the processors which training loads."""

import random

import pytest
from PIL import Image
from tests.training.support import BASE
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor, smart_resize

from dpe_jobs.generation.quality.pictures import processor

SETTINGS = {
    "Qwen2.5-VL": {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056},
    "Qwen3-VL": {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
    "small": {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 200704},
    "no sizes": {"patch_size": 14, "merge_size": 2},
}
KIND = {"image_processor_type": "Qwen2VLImageProcessor"}


def sizes(count: int, longest: int) -> list[tuple[int, int]]:
    rng = random.Random(0)
    edge = [1, 2, 7, 13, 14, 15, 27, 28, 29, 31, 32, 33, 42, 56, 70]
    drawn = [(rng.randint(1, longest), rng.randint(1, longest)) for _ in range(count)]
    return [*((a, b) for a in edge for b in edge), *drawn]


@pytest.mark.parametrize("family", SETTINGS)
def test_the_grid_of_every_size_is_that_of_transformers(family: str) -> None:
    found = processor(KIND | SETTINGS[family], {}, 10**6)
    theirs = Qwen2VLImageProcessor(**SETTINGS[family])
    assert found is not None
    assert (found.min_pixels, found.max_pixels) == (theirs.size.shortest_edge, theirs.size.longest_edge)
    unit = found.patch * found.merge
    for width, height in sizes(20_000, 6000):
        if max(width, height) / min(width, height) > 200:
            with pytest.raises(ValueError, match="as long as wide"):
                found.grid(width, height)
            with pytest.raises(ValueError, match="aspect ratio"):
                smart_resize(height, width, unit)
            continue
        rows, columns = smart_resize(height, width, unit, found.min_pixels, found.max_pixels)
        assert found.grid(width, height) == (rows // found.patch, columns // found.patch), (width, height)


@pytest.mark.parametrize("family", ["Qwen2.5-VL", "Qwen3-VL", "small"])
def test_pictures_become_as_many_patches_as_were_counted(family: str) -> None:
    found = processor(KIND | SETTINGS[family], {}, 10**6)
    theirs = Qwen2VLImageProcessor(**SETTINGS[family])
    assert found is not None
    for width, height in [*sizes(0, 1)[::9], (640, 427), (64, 64), (620, 400), (1000, 30)]:
        made = theirs(images=[Image.new("RGB", (width, height), "teal")], return_tensors="pt")
        down, across = found.grid(width, height)
        assert made["image_grid_thw"].tolist() == [[1, down, across]]
        assert made["pixel_values"].shape[0] == down * across
        assert found.image_tokens(width, height) == down * across // found.merge**2


def test_the_prompt_of_the_base_holds_as_many_image_tokens_as_were_counted() -> None:
    loaded = AutoProcessor.from_pretrained(BASE)
    settings = KIND | loaded.image_processor.to_dict()
    found = processor(settings | KIND, {}, 10**6)
    assert found is not None
    for width, height in [(64, 64), (32, 128), (620, 400), (9, 9)]:
        message = {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.new("RGB", (width, height))},
                {"type": "text", "text": "what is it?"},
            ],
        }
        made = loaded.apply_chat_template(
            [[message]], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        placeholders = int((made["input_ids"] == loaded.image_token_id).sum())
        assert placeholders == found.image_tokens(width, height)
