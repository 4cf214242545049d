"""Samples as the trainer looks at them."""

import io
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from dpe_jobs.questions import SCHEMA
from dpe_jobs.training.data import load_samples
from dpe_jobs.training.samples import Samples, Source


@pytest.fixture
def prompts(tmp_path: Path) -> Dataset:
    """Four prompts, each of a sample of its own."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    row = {"image": {"bytes": png.getvalue(), "path": None}, "question": "what?", "answer": "red"}
    kind = {"answer_type": "exact", "choices": [], "category": "c", "facets": [], "source": "s", "licence": "CC0-1.0"}
    path = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": f"s-{n}", **row, **kind} for n in range(4)], SCHEMA), path)
    return load_samples(Samples([Source(path.name, partial(path.open, "rb"))]), 4, 0, 1_000_000)


def test_a_batch_that_comes_again_for_the_next_pass_is_not_decoded_again(prompts: Dataset) -> None:
    first = prompts[[0, 0, 1, 1]]["image"]
    again = prompts[[0, 0, 1, 1]]["image"]
    assert first[0] is first[1]
    assert first[0] is not first[2]
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_prompts_of_no_more_than_the_batch_before_are_kept(prompts: Dataset) -> None:
    first = prompts[[0, 1]]
    other = prompts[[1, 2]]
    again = prompts[[0]]
    assert other["image"][0] is first["image"][1]
    assert again["id"][0] == first["id"][0]
    assert again["image"][0] is not first["image"][0]
