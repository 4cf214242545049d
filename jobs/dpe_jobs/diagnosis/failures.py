"""A few wrong answers of each category, with their images: what the report page shows. Bounded in number and bytes."""

import base64
import io
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.questions import check_image, read_facets
from dpe_jobs.seeds import derive

PER_CATEGORY = 6
MAX_SHOWN = 128  # over all categories, but at least one of each
MAX_IMAGE_BYTES = 40_000  # of one image in the page, before base64
SIDE_PIXELS = 320
MAX_TEXT = 1_500  # characters of one text
_FEW = 12  # facets and choices of one row that are shown
_BATCH_ROWS = 64
_TINY_PIXELS = 128 * 128  # kept without loss


@dataclass(frozen=True, slots=True)
class Picture:
    """An image inside the page."""

    uri: str
    """data:image/webp;base64,..."""
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One wrong answer. Its texts are data from people and models: they are escaped where they are shown."""

    id: str
    category: str
    question: str
    expected: str
    response: str
    claim: str | None
    """What was understood of the response, where it differs from all of it."""
    choices: tuple[str, ...]
    facets: Mapping[str, str]
    pass_rate: float | None
    error_type: str | None
    weakness: str | None
    picture: Picture | None = None
    """None: the image could not be shown."""


def read_failures(
    items_path: Path, questions_path: Path, cited: Collection[str]
) -> tuple[dict[str, list[Failure]], dict[str, int]]:
    """Failures of the probe to show by category, and how many there are in each.

    Rows in `cited` come first; the others are drawn at random, always the same ones. One batch is in memory at a time.
    """
    wrong: dict[str, int] = {}
    chosen: dict[str, list[tuple[tuple[bool, int, str], Failure]]] = {}
    for row in _rows(items_path):
        name = row["category"]
        wrong[name] = wrong.get(name, 0) + 1
        order = (row["id"] not in cited, derive(0, "failures", row["id"]), row["id"])
        best = chosen.setdefault(name, [])
        if len(best) < PER_CATEGORY or order < best[-1][0]:
            best.append((order, _failure(row)))
            best.sort(key=lambda entry: entry[0])
            del best[PER_CATEGORY:]
    share = max(min(PER_CATEGORY, MAX_SHOWN // max(len(chosen), 1)), 1)
    shown = {name: [failure for _, failure in best[:share]] for name, best in sorted(chosen.items())}
    pictures = _pictures(questions_path, {f.id for failures in shown.values() for f in failures})
    return {name: [replace(f, picture=pictures.get(f.id)) for f in found] for name, found in shown.items()}, wrong


def find_failures(items_path: Path, ids: Collection[str]) -> dict[str, Failure]:
    """Certain wrong answers of the probe by their ids, without pictures; what is not there is left out."""
    return {row["id"]: _failure(row) for row in _rows(items_path) if row["id"] in ids}


def _rows(path: Path) -> Any:
    """Rows of wrong answers to the probe, without their rollouts."""
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if not name.startswith("rollouts")]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                if row["set"] == PROBE and row["correct"] is False:
                    yield row


def _failure(row: Mapping[str, Any]) -> Failure:
    response, claim = readable(row["response"] or ""), readable(row.get("claim") or "")
    return Failure(
        id=row["id"],
        category=row["category"],
        question=readable(row["question"]),
        expected=readable(row["answer"]),
        response=response,
        claim=claim if claim and claim != response.strip().casefold() else None,
        choices=tuple(readable(c) for c in (row.get("choices") or ())[:_FEW]),
        facets={readable(k, 60): readable(v, 60) for k, v in list(read_facets(row.get("facets")).items())[:_FEW]},
        pass_rate=row.get("pass_rate"),
        error_type=row.get("error_type"),
        weakness=readable(row.get("weakness") or "") or None,
    )


def readable(text: str, length: int = MAX_TEXT) -> str:
    """A text without control characters, cut at `length` characters."""
    kept = "".join(c for c in text[: length + 1] if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return kept if len(text) <= length else kept[:length] + "…"


def _pictures(path: Path, ids: Collection[str]) -> dict[str, Picture]:
    """Small versions of the images of some rows; those that do not decode are not in it."""
    found: dict[str, Picture] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["id", "image"]):
            for place, row_id in enumerate(batch["id"].to_pylist()):
                if row_id in ids and (picture := shrink(batch["image"][place].as_py()["bytes"])):
                    found[row_id] = picture
    return found


def shrink(data: bytes) -> Picture | None:
    """An image as a data URI of at most SIDE_PIXELS and MAX_IMAGE_BYTES; None when it does not decode."""
    try:
        check_image(data)
    except ValueError:
        return None
    with Image.open(io.BytesIO(data)) as original:
        image = original.convert("RGBA" if original.mode in ("RGBA", "LA", "PA", "P") else "RGB")
    side = SIDE_PIXELS
    while True:
        image.thumbnail((side, side))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", lossless=image.width * image.height <= _TINY_PIXELS, quality=80)
        if len(encoded.getvalue()) <= MAX_IMAGE_BYTES or side < 32:
            break
        side = side * 3 // 4
    uri = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()
    return Picture(uri, image.width, image.height)
