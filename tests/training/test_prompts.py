"""What the trainer shows the model is what the server shows it."""

import io
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from tests.training.support import BASE, draw_samples
from transformers import AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from dpe_jobs.asking import fit
from dpe_jobs.questions import SCHEMA
from dpe_jobs.runtime import BadData
from dpe_jobs.training.data import load_samples
from dpe_jobs.training.samples import Samples, Source


@pytest.fixture(scope="module")
def processor() -> AutoProcessor:
    return AutoProcessor.from_pretrained(BASE)


def load(folder: Path, prompts: int, max_pixels: int = 1_003_520) -> Dataset:
    sources = [Source(path.name, partial(path.open, "rb")) for path in sorted(folder.glob("*.parquet"))]
    return load_samples(Samples(sources), prompts, 0, max_pixels)


def tokens(processor: AutoProcessor, messages: list[dict[str, object]]) -> dict[str, torch.Tensor]:
    return dict(
        processor.apply_chat_template(
            [messages], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    )


def test_training_prompts_are_those_of_serving_token_for_token(tmp_path: Path, processor: AutoProcessor) -> None:
    draw_samples(tmp_path / "part.parquet", 5)
    raw = {row["id"]: row for row in pq.read_table(tmp_path / "part.parquet").to_pylist()}
    for row in load(tmp_path, 5):
        (trained,) = [prepare_multimodal_messages(row["prompt"], images=[row["image"]])]
        (source,) = [r for r in raw.values() if r["answer"] == row["answer"] and _same(r, row["image"])][:1]
        image = Image.open(io.BytesIO(source["image"]["bytes"])).convert("RGB")
        served = [
            {
                "role": "user",
                "content": [{"type": "image", "image": image}, {"type": "text", "text": source["question"]}],
            }
        ]
        ours, theirs = tokens(processor, trained), tokens(processor, served)
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


def _same(row: dict[str, dict[str, bytes]], image: Image.Image) -> bool:
    return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").tobytes() == image.tobytes()


def test_the_template_reads_the_servers_content_type_the_same_way(processor: AutoProcessor) -> None:
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "what shape is it?"}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for kind in ("image", "image_url")
    ]
    assert texts[0] == texts[1]


def test_a_larger_image_is_scaled_down_as_it_is_for_the_diagnosis(tmp_path: Path) -> None:
    draw_samples(tmp_path / "part.parquet", 1)
    (row,) = pq.read_table(tmp_path / "part.parquet").to_pylist()
    shown = load(tmp_path, 1, 32 * 32)[0]["image"]
    asked = Image.open(io.BytesIO(fit(row["image"]["bytes"], 32 * 32))).convert("RGB")
    assert shown.size == asked.size == (32, 32)
    assert shown.tobytes() == asked.tobytes()


def test_samples_that_rules_cannot_grade_are_refused(tmp_path: Path) -> None:
    draw_samples(tmp_path / "part.parquet", 3)
    table = pq.read_table(tmp_path / "part.parquet").to_pylist()
    table[1]["answer_type"] = "judge"
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / "part.parquet")
    with pytest.raises(BadData, match=r"part\.parquet has samples of answer_type judge"):
        load(tmp_path, 1)


def test_an_image_that_does_not_decode_names_its_sample(tmp_path: Path) -> None:
    draw_samples(tmp_path / "part.parquet", 1)
    table = pq.read_table(tmp_path / "part.parquet").to_pylist()
    table[0]["image"] = {"bytes": b"not an image", "path": None}
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / "part.parquet")
    samples = load(tmp_path, 1)
    with pytest.raises(BadData, match="sample s-0: its image does not decode"):
        samples[0]


def test_samples_without_a_needed_column_are_refused(tmp_path: Path) -> None:
    draw_samples(tmp_path / "part.parquet", 2)
    table = pq.read_table(tmp_path / "part.parquet").drop_columns(["answer_type"]).replace_schema_metadata()
    pq.write_table(table, tmp_path / "part.parquet")
    with pytest.raises(BadData, match="no column answer_type"):
        load(tmp_path, 2)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BadData, match=r"part-00001\.parquet is no readable Parquet file"):
        load(tmp_path, 2)


def test_no_samples_at_all_are_refused(tmp_path: Path) -> None:
    pq.write_table(SCHEMA.empty_table(), tmp_path / "part.parquet")
    with pytest.raises(BadData, match="hold no row"):
        load(tmp_path, 2)
