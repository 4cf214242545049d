"""Question sets: Parquet files of images and questions, as probes, benchmarks and samples hold them."""

import io
import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store

BATCH_ROWS = 256
MAX_PIXELS = 64 * 1024 * 1024  # a larger image is refused before it is decoded

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# a list of pairs, not Arrow's map: `datasets` cannot open a file with a map column
FACETS_TYPE = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))

STRING_FEATURE: dict[str, Any] = {"dtype": "string", "_type": "Value"}
FACETS_FEATURE: dict[str, Any] = {"feature": {"key": STRING_FEATURE, "value": STRING_FEATURE}, "_type": "List"}
FEATURES: dict[str, Any] = {
    "id": STRING_FEATURE,
    "image": {"_type": "Image"},
    "question": STRING_FEATURE,
    "answer": STRING_FEATURE,
    "answer_type": STRING_FEATURE,
    "choices": {"feature": STRING_FEATURE, "_type": "List"},
    "category": STRING_FEATURE,
    "facets": FACETS_FEATURE,
    "source": STRING_FEATURE,
    "licence": STRING_FEATURE,
}
"""The columns as `datasets` names their types; a schema that adds columns adds them here as well."""


def hf_metadata(features: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Schema metadata from which `datasets.load_dataset` takes the types of columns, so that images are images."""
    return {b"huggingface": json.dumps({"info": {"features": dict(features)}}).encode()}


FIELDS: list[pa.Field] = [
    pa.field("id", pa.string()),
    pa.field("image", IMAGE_TYPE),
    pa.field("question", pa.string()),
    pa.field("answer", pa.string()),
    pa.field("answer_type", pa.string()),
    pa.field("choices", pa.list_(pa.string())),
    pa.field("category", pa.string()),
    pa.field("facets", FACETS_TYPE),
    pa.field("source", pa.string()),
    pa.field("licence", pa.string()),
]
SCHEMA = pa.schema(FIELDS, metadata=hf_metadata(FEATURES))
REQUIRED = ("id", "image", "question", "answer", "answer_type", "category")


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a question set."""

    id: str
    image: bytes
    """An image file: PNG, JPEG, WebP."""
    question: str
    answer: str
    answer_type: AnswerType
    category: str
    choices: tuple[str, ...] = ()
    facets: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    licence: str | None = None

    def row(self) -> dict[str, Any]:
        """The row in SCHEMA's form."""
        return {
            "id": self.id,
            "image": {"bytes": self.image, "path": None},
            "question": self.question,
            "answer": self.answer,
            "answer_type": str(self.answer_type),
            "choices": list(self.choices),
            "category": self.category,
            "facets": facet_pairs(self.facets),
            "source": self.source,
            "licence": self.licence,
        }


def facet_pairs(facets: Mapping[str, str]) -> list[dict[str, str]]:
    """Facets as the column holds them, sorted by key."""
    return [{"key": key, "value": facets[key]} for key in sorted(facets)]


def read_facets(value: Any) -> dict[str, str]:
    """Facets of a cell: a list of pairs (ours, or Arrow's map), a struct, or null. ValueError for anything else."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items() if v is not None}
    if not isinstance(value, list):
        raise ValueError("not a list of key and value")
    pairs = [(p["key"], p["value"]) if isinstance(p, Mapping) else tuple(p) for p in value]
    return {str(k): str(v) for k, v in pairs}


def check_image(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of an image that decodes; ValueError says why it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"{width}x{height} pixels, more than {MAX_PIXELS}")
                image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"the image does not decode: {error}") from error
    return width, height


class _Row:
    """One row while it is checked: every complaint names file, row, column and mend."""

    def __init__(self, uri: str, number: int, cells: Mapping[str, Any]) -> None:
        self._where, self._cells = f"{uri} row {number}", cells

    def complain(self, column: str, trouble: str, mend: str) -> BadData:
        return BadData("BadQuestion", f"{self._where}, column {column}: {trouble}: {mend}")

    def text(self, column: str) -> str:
        value = self._cells[column]
        if not isinstance(value, str) or not value.strip():
            raise self.complain(
                column, "empty" if value in (None, "") else f"{value!r}", "write a text or drop the row"
            )
        return value

    def image(self) -> bytes:
        value = self._cells["image"]
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(data, bytes) or not data:
            raise self.complain("image", "no image bytes", "store the encoded file (PNG, JPEG) in image.bytes")
        try:
            check_image(data)
        except ValueError as error:
            raise self.complain("image", str(error), "replace the image or drop the row") from error
        return data

    def question(self) -> Question:
        kinds = ", ".join(AnswerType)
        try:
            kind = AnswerType(self.text("answer_type"))
        except ValueError as error:
            raise self.complain("answer_type", str(error), f"write one of {kinds}") from error
        choices = tuple(str(c) for c in self._cells.get("choices") or ())
        answer = self.text("answer")
        try:
            grade(answer, answer, kind, choices)
        except ValueError as error:
            raise self.complain("answer", str(error), "correct the answer or its answer_type") from error
        try:
            facets = read_facets(self._cells.get("facets"))
        except (ValueError, KeyError, TypeError) as error:
            raise self.complain("facets", str(error), "write a list of {key, value}") from error
        return Question(
            id=self.text("id"),
            image=self.image(),
            question=self.text("question"),
            answer=answer,
            answer_type=kind,
            category=self.text("category"),
            choices=choices,
            facets=facets,
            source=self._cells.get("source"),
            licence=self._cells.get("licence"),
        )


def _open(path: Path, uri: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadParquet", f"{uri} is no Parquet file ({error}): write it again and upload it") from error
    missing = [c for c in REQUIRED if c not in file.schema_arrow.names]
    if missing:
        raise BadData(
            "MissingColumns",
            f"{uri} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}: a question set "
            f"needs {', '.join(REQUIRED)}",
        )
    return file


def read_questions(store: Store, uri: str) -> Iterator[Question]:
    """All questions of a folder, file by file, checked. BadData names file, row (from 0), column and what to do.

    NotFound when the folder has no Parquet file. One file is on disk and one batch in memory at a time.
    """
    seen: dict[str, str] = {}
    empty = True
    for address in store.parquet_files(uri):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "questions.parquet"
            store.download(address, path)
            file = _open(path, address)
            wanted = [c for c in FEATURES if c in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                for cells in batch.to_pylist():
                    row = _Row(address, number, cells)
                    question = row.question()
                    if question.id in seen:
                        raise row.complain("id", f"{question.id!r} is also in {seen[question.id]}", "make ids unique")
                    seen[question.id] = f"{address} row {number}"
                    number += 1
                    empty = False
                    yield question
            file.close()
    if empty:
        raise BadData("EmptyQuestionSet", f"{uri} holds no rows: upload a question set with at least one")


def write_questions(rows: Iterable[Question], path: Path, *, batch_rows: int = BATCH_ROWS) -> int:
    """Write a question set to one Parquet file (zstd); returns the number of rows."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        pending: list[dict[str, Any]] = []
        for row in rows:
            pending.append(row.row())
            count += 1
            if len(pending) >= batch_rows:
                writer.write_table(pa.Table.from_pylist(pending, schema=SCHEMA))
                pending = []
        if pending or count == 0:
            writer.write_table(pa.Table.from_pylist(pending, schema=SCHEMA))
    return count
