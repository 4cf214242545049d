"""Question sets: Parquet files of images and questions, as probes, benchmarks and samples hold them."""

import io
import json
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import check
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store

BATCH_ROWS = 256
BATCH_BYTES = 32 * 1024 * 1024  # of images read at a time, and of a row group that is written
MAX_PIXELS = 64 * 1024 * 1024  # a larger image is refused before it is decoded
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # as servers take them; Pillow's others are not even tried

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


def schema(*, categories: bool = True) -> pa.Schema:
    """The columns of a question set; without `category` when an endpoint is to assign it (spec.probe.categorise)."""
    left_out = () if categories else ("category",)
    features = {name: feature for name, feature in FEATURES.items() if name not in left_out}
    return pa.schema([f for f in FIELDS if f.name not in left_out], metadata=hf_metadata(features))


SCHEMA = schema()
REQUIRED = ("id", "image", "question", "answer", "answer_type")


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
    """Empty only when the set was read without categories."""
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
    """Facets of a cell: a list of pairs (ours, or Arrow's map), a struct, or null. ValueError for anything else.

    A key whose value is null is no facet of the row.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items() if v is not None}
    if not isinstance(value, list):
        raise ValueError("not a list of key and value")
    pairs = [(p["key"], p["value"]) if isinstance(p, Mapping) else tuple(p) for p in value]
    return {str(k): str(v) for k, v in pairs if v is not None}


def check_image(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of an image that decodes; ValueError says why it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"{width}x{height} pixels, more than {MAX_PIXELS}")
                image.load()
                if image.mode.startswith("I"):
                    # Pillow, and with it every server, takes 255 for white and cuts off what is above
                    raise ValueError("its grey values have 16 bits, and a model would see white: scale them to 8 bits")
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

    def optional_text(self, column: str) -> str | None:
        value = self._cells.get(column)
        if value is not None and not isinstance(value, str):
            raise self.complain(column, f"{value!r} is no text", "write a text or leave it empty")
        return value

    def choices(self) -> tuple[str, ...]:
        value = self._cells.get("choices")
        if value is None:
            return ()
        if not isinstance(value, list) or None in value:
            raise self.complain("choices", f"{value!r} is no list of texts", "write a list or leave it empty")
        return tuple(str(choice) for choice in value)

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

    def question(self, *, categories: bool) -> Question:
        kinds = ", ".join(AnswerType)
        try:
            kind = AnswerType(self.text("answer_type"))
        except ValueError as error:
            raise self.complain("answer_type", str(error), f"write one of {kinds}") from error
        choices = self.choices()
        answer = self.text("answer")
        try:
            check(answer, kind, choices)
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
            category=self.text("category") if categories else str(self._cells.get("category") or ""),
            choices=choices,
            facets=facets,
            source=self.optional_text("source"),
            licence=self.optional_text("licence"),
        )


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file that is read page by page, never a whole row group at once."""
    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def batch_rows(file: pq.ParquetFile) -> int:
    """How many rows of a file to read at a time: at most BATCH_ROWS, and about BATCH_BYTES by the mean row."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    largest = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=1.0)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(largest, 1.0))))


def _open(path: Path, uri: str, required: Sequence[str]) -> pq.ParquetFile:
    try:
        file = open_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadParquet", f"{uri} is no Parquet file ({error}): write it again and upload it") from error
    missing = [c for c in required if c not in file.schema_arrow.names]
    if missing:
        raise BadData(
            "MissingColumns",
            f"{uri} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}: a question set "
            f"needs {', '.join(required)}",
        )
    return file


def read_questions(
    store: Store, uri: str, *, categories: bool = True, only: Collection[str] | None = None
) -> Iterator[Question]:
    """All questions of a folder, file by file, checked. BadData names file, row (from 0), column and what to do.

    `categories`: every row must have one; False: a set may be without them, its rows then have category "".
    `only`: ids of the rows that are wanted; the others are passed over unchecked.
    NotFound when the folder has no Parquet file. One file is on disk and one batch in memory at a time.
    """
    required = (*REQUIRED, "category") if categories else REQUIRED
    seen: dict[str, str] = {}
    empty = True
    for address in store.parquet_files(uri):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "questions.parquet"
            store.download(address, path)
            file = _open(path, address, required)
            wanted = [c for c in FEATURES if c in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_rows(file), columns=wanted):
                for cells in batch.to_pylist():
                    if only is not None and cells["id"] not in only:
                        number += 1
                        empty = False
                        continue
                    row = _Row(address, number, cells)
                    question = row.question(categories=categories)
                    if question.id in seen:
                        raise row.complain("id", f"{question.id!r} is also in {seen[question.id]}", "make ids unique")
                    seen[question.id] = f"{address} row {number}"
                    number += 1
                    empty = False
                    yield question
            file.close()
    if empty:
        raise BadData("EmptyQuestionSet", f"{uri} holds no rows: upload a question set with at least one")


def read_local(path: Path) -> Iterator[Question]:
    """The rows of a file that `write_questions` wrote, a batch in memory at a time."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_rows(file)):
            for cells in batch.to_pylist():
                yield Question(
                    id=cells["id"],
                    image=cells["image"]["bytes"],
                    question=cells["question"],
                    answer=cells["answer"],
                    answer_type=AnswerType(cells["answer_type"]),
                    category=cells["category"],
                    choices=tuple(cells["choices"]),
                    facets=read_facets(cells["facets"]),
                    source=cells["source"],
                    licence=cells["licence"],
                )


def write_questions(rows: Iterable[Question], path: Path, *, batch_rows: int = BATCH_ROWS) -> int:
    """Write a question set to one Parquet file (zstd); returns the number of rows.

    A row group has at most `batch_rows` rows and about BATCH_BYTES of images, which is what is in memory.
    """
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        pending: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            pending.append(row.row())
            size += len(row.image)
            count += 1
            if len(pending) >= batch_rows or size >= BATCH_BYTES:
                writer.write_table(pa.Table.from_pylist(pending, schema=SCHEMA))
                pending, size = [], 0
        if pending or count == 0:
            writer.write_table(pa.Table.from_pylist(pending, schema=SCHEMA))
    return count
