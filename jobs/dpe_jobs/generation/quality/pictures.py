"""Checks of a picture file: it decodes, has a usable size, and goes through the training processor. Pure functions."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpe_jobs.generation.roles import Rejection
from dpe_jobs.questions import check_image
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store, join

TEMPLATE_TOKENS = 64  # room for a chat template's own words around image and question
_QWEN = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")
_LONGEST_SHAPE = 200  # the processor refuses pictures that are longer than so many times their width
_FILES = ("processor_config.json", "preprocessor_config.json")


def decodes(image: bytes, min_side: int, max_pixels: int) -> Rejection | None:
    """`Undecodable`, or `ImageSize` when a side is shorter than `min_side` or the picture larger than `max_pixels`."""
    try:
        width, height = check_image(image)
    except ValueError as error:
        return Rejection("Undecodable", str(error))
    return usable(width, height, min_side, max_pixels)


def usable(width: int, height: int, min_side: int, max_pixels: int) -> Rejection | None:
    """`ImageSize` when a side is shorter than `min_side` or the picture larger than `max_pixels`."""
    if min(width, height) < min_side:
        return Rejection("ImageSize", f"{width}x{height} pixels: a side is shorter than minSide {min_side}")
    if width * height > max_pixels:
        return Rejection("ImageSize", f"{width}x{height} pixels: more than maxPixels {max_pixels}")
    return None


@dataclass(frozen=True, slots=True)
class Processor:
    """How many tokens the processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL makes of a picture, without torch."""

    patch: int
    """Pixels."""
    merge: int
    """Patches of a token, along one side."""
    min_pixels: int
    max_pixels: int
    context: int
    """Tokens of a prompt, its picture and its answer."""

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Patches down and across, as in `image_grid_thw`; ValueError for a shape that the processor refuses.

        The arithmetic is `smart_resize` of transformers (models/qwen2_vl, Apache-2.0), operation by operation.
        """
        if max(height, width) / min(height, width) > _LONGEST_SHAPE:
            raise ValueError(f"{width}x{height} pixels: more than {_LONGEST_SHAPE} times as long as wide")
        unit = self.patch * self.merge
        rows, columns = round(height / unit) * unit, round(width / unit) * unit
        if rows * columns > self.max_pixels:
            shrink = math.sqrt((height * width) / self.max_pixels)
            rows = max(unit, math.floor(height / shrink / unit) * unit)
            columns = max(unit, math.floor(width / shrink / unit) * unit)
        elif rows * columns < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
        return rows // self.patch, columns // self.patch

    def image_tokens(self, width: int, height: int) -> int:
        """Placeholders in the prompt, which are as many as the vision tower's features."""
        down, across = self.grid(width, height)
        return down * across // self.merge**2

    def fits(self, size: tuple[int, int], text: str, answer_tokens: int) -> Rejection | None:
        """`TooLong` when picture, question and answer may not fit the context; `Unprocessable` for refused shapes.

        `size` is the picture's width and height. The question has at most a token for each byte of UTF-8; the
        picture's are exact.
        """
        width, height = size
        try:
            image_tokens = self.image_tokens(width, height)
        except ValueError as error:
            return Rejection("Unprocessable", str(error))
        words = len(text.encode()) + TEMPLATE_TOKENS
        if image_tokens + words + answer_tokens <= self.context:
            return None
        return Rejection(
            "TooLong",
            f"{image_tokens} tokens of the picture ({width}x{height}), up to {words} of the question and "
            f"{answer_tokens} of the answer are more than the context of {self.context}",
        )


def read_processor(store: Store, model_uri: str, most_tokens: int) -> Processor | None:
    """The processor of a model's folder; None for a family whose arithmetic is not known here.

    `most_tokens` bounds the context beside the model's own. BadData when its files contradict each other: training
    would stop at the first picture.
    """
    found = [data for name in _FILES if (data := store.find(join(model_uri, name))) is not None]
    config = store.find(join(model_uri, "config.json"))
    if not found or config is None:
        return None
    settings = json.loads(found[0])
    model = json.loads(config)
    return processor(settings.get("image_processor", settings), model, most_tokens, model_uri)


def processor(
    settings: Mapping[str, Any], model: Mapping[str, Any], most_tokens: int, where: str = "the model"
) -> Processor | None:
    """From preprocessor_config.json, or `image_processor` of processor_config.json, and config.json."""
    vision = model.get("vision_config") or {}
    if settings.get("image_processor_type") not in _QWEN or settings.get("do_resize") is False:
        return None
    size = settings.get("size") or {}
    patch, merge = settings.get("patch_size", 14), settings.get("merge_size", 2)
    for name, ours, key in (("patch_size", patch, "patch_size"), ("merge_size", merge, "spatial_merge_size")):
        theirs = vision.get(key, ours)
        if theirs != ours:
            raise BadData(
                "ProcessorMismatch",
                f"{where}: the image processor's {name} is {ours}, and vision_config.{key} in config.json is {theirs}: "
                f"image tokens would not match the features; upload the processor that belongs to the model",
            )
    context = (model.get("text_config") or model).get("max_position_embeddings", most_tokens)
    return Processor(
        patch=patch,
        merge=merge,
        min_pixels=settings.get("min_pixels") or size.get("shortest_edge", 56 * 56),
        max_pixels=settings.get("max_pixels") or size.get("longest_edge", 28 * 28 * 1280),
        context=min(context, most_tokens),
    )
