import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.fakes.memory_store import MemoryStore

from dpe_jobs.generation.quality.pictures import Processor, decodes, processor, read_processor
from dpe_jobs.runtime import BadData

QWEN25 = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 14,
    "merge_size": 2,
    "min_pixels": 3136,
    "max_pixels": 12845056,
}
QWEN3 = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 16,
    "merge_size": 2,
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
}
FAMILIES = {"Qwen2.5-VL": QWEN25, "Qwen3-VL": QWEN3}


def file(width: int, height: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(out, kind)
    return out.getvalue()


def known(settings: dict, context: int = 8192) -> Processor:
    found = processor(settings, {"text_config": {"max_position_embeddings": 128000}}, context)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"no picture", "Undecodable"),
        (file(64, 64)[:60], "Undecodable"),
        (file(64, 4), "ImageSize"),
        (file(300, 300), "ImageSize"),
    ],
)
def test_files_that_cannot_be_used_are_refused(image, reason):
    rejection = decodes(image, 8, 64 * 1024)
    assert rejection is not None
    assert rejection.reason == reason


def test_a_picture_of_usable_size_passes():
    assert decodes(file(64, 64), 8, 64 * 1024) is None


@pytest.mark.parametrize("family", FAMILIES)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_tokens_are_whole_and_within_the_bounds_of_the_processor(family, width, height):
    made = known(FAMILIES[family])
    if max(width, height) / min(width, height) > 200:
        with pytest.raises(ValueError, match="as long as wide"):
            made.grid(width, height)
        return
    down, across = made.grid(width, height)
    assert down % made.merge == across % made.merge == 0
    assert made.image_tokens(width, height) == (down // made.merge) * (across // made.merge) > 0
    # rows and columns are at least one unit, which may exceed the bound for very long pictures
    if min(down, across) > made.merge:
        assert down * across * made.patch**2 <= made.max_pixels


def test_a_picture_that_leaves_no_room_for_the_question_is_refused():
    made = known(QWEN25, context=1024)
    assert made.fits((280, 280), "What is this?", 64) is None
    rejection = made.fits((1400, 840), "What is this?", 64)
    assert rejection is not None
    assert rejection.reason == "TooLong"
    assert "1500 tokens of the picture (1400x840)" in rejection.detail
    rejection = made.fits((280, 280), "What is this? " * 70, 64)
    assert rejection is not None
    assert rejection.reason == "TooLong"


def test_a_shape_that_the_processor_refuses_is_refused_before_training_meets_it():
    rejection = known(QWEN25).fits((4020, 20), "What is this?", 64)
    assert rejection is not None
    assert rejection.reason == "Unprocessable"


def model(folder: MemoryStore, settings: dict, config: dict, name: str = "preprocessor_config.json") -> str:
    folder.put(f"s3://dpe/models/m/{name}", json.dumps(settings).encode())
    folder.put("s3://dpe/models/m/config.json", json.dumps(config).encode())
    return "s3://dpe/models/m"


def test_the_processor_is_read_from_either_file_and_the_context_is_the_models_own():
    config = {"text_config": {"max_position_embeddings": 4096}, "vision_config": {"patch_size": 14}}
    files = {"preprocessor_config.json": QWEN25, "processor_config.json": {"image_processor": QWEN25}}
    for name, settings in files.items():
        store = MemoryStore()
        found = read_processor(store, model(store, settings, config, name), 8192)
        assert found == Processor(14, 2, 3136, 12845056, 4096)


def test_a_processor_of_another_model_is_bad_data_before_anything_is_paid_for():
    store = MemoryStore()
    uri = model(store, QWEN25, {"vision_config": {"patch_size": 16}})
    with pytest.raises(BadData, match=r"patch_size is 14, and vision_config.patch_size in config.json is 16"):
        read_processor(store, uri, 8192)


def test_other_families_are_not_guessed_at():
    store = MemoryStore()
    assert read_processor(store, model(store, {"image_processor_type": "CLIPImageProcessor"}, {}), 8192) is None
    assert read_processor(MemoryStore(), "s3://dpe/models/none", 8192) is None
