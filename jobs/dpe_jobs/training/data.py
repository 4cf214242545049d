"""Samples as TRL wants them: image and question exactly as serving sends them."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Image
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from dpe_api.artifacts import AnswerType
from dpe_jobs import asking
from dpe_jobs.graders import NEEDS_JUDGE
from dpe_jobs.runtime import BadData
from dpe_jobs.training.order import prompt_order

_NEEDED = ("id", "image", "question", "answer", "answer_type")


def _decode(sample_id: str, image: dict[str, Any], max_pixels: int) -> PillowImage.Image:
    try:
        return PillowImage.open(io.BytesIO(asking.fit(image["bytes"], max_pixels))).convert("RGB")
    except (UnidentifiedImageError, OSError, TypeError, ValueError, PillowImage.DecompressionBombError) as error:
        raise BadData("UnreadableImage", f"sample {sample_id}: its image does not decode: {error}") from error


def as_prompts(batch: dict[str, list[Any]], max_pixels: int) -> dict[str, list[Any]]:
    """Rows as TRL reads them. It puts the image before the text, as the serving client does.

    What else is in here is handed to the reward functions.
    """
    choices = [c or [] for c in batch.get("choices") or [None] * len(batch["id"])]
    texts = [
        asking.prompt(question, options, AnswerType(kind))
        for question, options, kind in zip(batch["question"], choices, batch["answer_type"], strict=True)
    ]
    return {
        "prompt": [[{"role": "user", "content": text}] for text in texts],
        "image": [_decode(i, image, max_pixels) for i, image in zip(batch["id"], batch["image"], strict=True)],
        "id": batch["id"],
        "question": texts,
        "answer": batch["answer"],
        "answer_type": batch["answer_type"],
        "choices": choices,
    }


def _rows(path: Path) -> int:
    """Rows of one file; BadData when it is no Parquet file or lacks a column. `datasets` would not say which."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise BadData("UnreadableSamples", f"{path.name} is no readable Parquet file: {error}") from error
    missing = [c for c in _NEEDED if c not in metadata.schema.to_arrow_schema().names]
    if missing:
        raise BadData("MissingColumn", f"{path.name} has no column {', '.join(missing)}: generate the samples again")
    kinds = pq.read_table(path, columns=["answer_type"])["answer_type"]
    if pc.any(pc.is_in(kinds, pa.array([kind.value for kind in NEEDS_JUDGE]))).as_py():
        raise BadData(
            "JudgedSamples",
            f"{path.name} has samples of answer_type {', '.join(sorted(NEEDS_JUDGE))}: training grades by rules alone; "
            "let generation keep other types",
        )
    return int(metadata.num_rows)


def load_samples(folder: Path, cache: Path, prompts: int, seed: int, max_pixels: int) -> Dataset:
    """The run's prompts in order, from the Parquet files of a folder. Images are decoded when they are looked at.

    A larger image than `max_pixels` is scaled down as it is for the diagnosis. Raises BadData when there is no row, a
    column is missing, or rules cannot grade a sample.
    """
    files = [str(path) for path in sorted(folder.rglob("*.parquet")) if _rows(path)]
    if not files:
        raise BadData("NoSamples", "the samples hold no row: generation kept nothing to train on")
    dataset = Dataset.from_parquet(files, cache_dir=str(cache), keep_in_memory=False)
    dataset = dataset.select_columns([c for c in (*_NEEDED, "choices") if c in dataset.column_names])
    dataset = dataset.cast_column("image", Image(decode=False))
    return dataset.select(prompt_order(len(dataset), prompts, seed)).with_transform(
        partial(as_prompts, max_pixels=max_pixels)
    )
