"""Samples as TRL wants them: image and question exactly as serving sends them."""

import io
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from dpe_api.artifacts import AnswerType
from dpe_jobs import asking
from dpe_jobs.runtime import BadData
from dpe_jobs.training.order import prompt_order
from dpe_jobs.training.samples import Samples


def _decode(sample_id: str, image: dict[str, Any], max_pixels: int) -> PillowImage.Image:
    try:
        return PillowImage.open(io.BytesIO(asking.fit(image["bytes"], max_pixels))).convert("RGB")
    except (UnidentifiedImageError, OSError, TypeError, ValueError, PillowImage.DecompressionBombError) as error:
        raise BadData("UnreadableImage", f"sample {sample_id}: its image does not decode: {error}") from error


def as_prompt(row: Mapping[str, Any], max_pixels: int) -> dict[str, Any]:
    """A sample as TRL reads it. It puts the image before the text, as the serving client does.

    What else is in here is handed to the reward functions.
    """
    choices = row.get("choices") or []
    text = asking.prompt(row["question"], choices, AnswerType(row["answer_type"]))
    return {
        "prompt": [{"role": "user", "content": text}],
        "image": _decode(row["id"], row["image"], max_pixels),
        "id": row["id"],
        "question": text,
        "answer": row["answer"],
        "answer_type": row["answer_type"],
        "choices": choices,
    }


class _Prompts:
    """From numbers of samples to prompts, when they are looked at."""

    def __init__(self, samples: Samples, max_pixels: int) -> None:
        self._samples, self._max_pixels = samples, max_pixels
        self._last: dict[int, dict[str, Any]] = {}

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        numbers = batch["number"]
        # a prompt comes once for each of its rollouts, and TRL asks for all of them again at each pass and each update
        # on the same rollouts: it is read and decoded once. No more than the call before is kept
        prompts = {n: self._last.get(n) or self._read(n) for n in dict.fromkeys(numbers)}
        self._last = prompts
        return {name: [prompts[n][name] for n in numbers] for name in prompts[numbers[0]]}

    def _read(self, number: int) -> dict[str, Any]:
        return as_prompt(self._samples.row(number), self._max_pixels)


def load_samples(samples: Samples, prompts: int, seed: int, max_pixels: int) -> Dataset:
    """The run's prompts in order. Samples are read, and their images decoded, when they are looked at.

    A larger image than `max_pixels` is scaled down as it is for the diagnosis.
    """
    order = prompt_order(samples.groups, prompts, seed)
    return Dataset.from_dict({"number": order}).with_transform(_Prompts(samples, max_pixels))
