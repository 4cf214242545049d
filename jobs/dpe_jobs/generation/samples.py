"""What generation publishes: `samples/*.parquet` with pictures, and `rejected.parquet` with reasons.

`warmup/*.parquet` are the samples of categories out of reach that training's warm-up learns from, and GRPO does not.

Each category has files of its own, with its rows in the order of their numbers: what a file holds does not depend on
which category was faster.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dpe_api.artifacts import OutputFile
from dpe_jobs.generation.candidates import Verdict
from dpe_jobs.generation.images import Origin
from dpe_jobs.outputs import check_unpublished
from dpe_jobs.questions import FEATURES, FIELDS, STRING_FEATURE, Question, hf_metadata
from dpe_jobs.store import Store, join

PART_ROWS = 1000
_BATCH_ROWS = 200
_BATCH_BYTES = 8 * 1024 * 1024  # of pictures that wait to be written, for each category
SAMPLES = "samples"
WARMUP = "warmup"
FOLDERS = (SAMPLES, WARMUP)
"""Of samples that are trained on."""
REJECTED = "rejected.parquet"
MOST_LICENCES = 100  # that a summary tells apart
OTHER_LICENCES = "LicenseRef-others"

_STRINGS: dict[str, Any] = {"feature": STRING_FEATURE, "_type": "List"}
_ORIGIN = ("source", "id", "licence", "page_url", "image_url", "title", "author")
SAMPLE_SCHEMA = pa.schema(
    [
        *FIELDS,
        pa.field("target", pa.struct([("category", pa.string()), ("weakness", pa.string())])),
        pa.field(
            "provenance",
            pa.struct(
                [
                    ("diagnosis_ids", pa.list_(pa.string())),
                    ("tool_calls", pa.list_(pa.string())),
                    ("source_url", pa.string()),
                    # the picture, and after it its originals
                    ("origins", pa.list_(pa.struct([(name, pa.string()) for name in _ORIGIN]))),
                ]
            ),
        ),
        pa.field("pass_rate", pa.float64()),  # null: a retention sample, which nobody tried to solve
        pa.field("rollouts", pa.list_(pa.string())),
        pa.field("retention", pa.bool_()),
    ],
    metadata=hf_metadata(
        FEATURES
        | {
            "target": {"category": STRING_FEATURE, "weakness": STRING_FEATURE},
            "provenance": {
                "diagnosis_ids": _STRINGS,
                "tool_calls": _STRINGS,
                "source_url": STRING_FEATURE,
                "origins": {"feature": dict.fromkeys(_ORIGIN, STRING_FEATURE), "_type": "List"},
            },
            "pass_rate": {"dtype": "float64", "_type": "Value"},
            "rollouts": _STRINGS,
            "retention": {"dtype": "bool", "_type": "Value"},
        }
    ),
)
REJECTED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("category", pa.string()),
        ("source", pa.string()),
        ("question", pa.string()),  # null, as the answer: there was no picture, or it was refused
        ("answer", pa.string()),
        ("image_sha256", pa.string()),  # of its size and RGB pixels; null: there was none
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("pass_rate", pa.float64()),
        ("rollouts", pa.list_(pa.string())),
    ]
)


def few_licences(licences: Counter[str]) -> dict[str, int]:
    """The most frequent ones, by name; the others are counted together."""
    named = Counter({licence: count for licence, count in licences.items() if licence != OTHER_LICENCES})
    most = dict(sorted(named.most_common(MOST_LICENCES)))
    rest = licences.total() - sum(most.values())
    return most | {OTHER_LICENCES: rest} if rest else most


def ancestry(origin: Origin) -> list[Origin]:
    """A picture's origin, and after it those of its originals."""
    return [origin, *(older for parent in origin.parents for older in ancestry(parent))]


def sample_row(verdict: Verdict, image: bytes) -> dict[str, Any]:
    """A kept candidate in SAMPLE_SCHEMA's form."""
    candidate, target = verdict.candidate, verdict.target
    assert candidate is not None, "what is kept was made"
    origin, written = candidate.origin, candidate.written
    question = Question(
        id=candidate.id,
        image=image,
        question=written.question,
        answer=written.answer,
        answer_type=written.answer_type,
        category=target.category,
        choices=written.choices,
        facets=candidate.facets,
        source=origin.source,
        licence=origin.licence,
    )
    return question.row() | {
        "target": {"category": target.category, "weakness": target.aim.text},
        "provenance": {
            "diagnosis_ids": list(target.aim.examples),
            "tool_calls": [json.dumps(call, ensure_ascii=False) for call in candidate.tool_calls],
            "source_url": origin.page_url or origin.image_url,
            "origins": [{name: getattr(o, name) for name in _ORIGIN} for o in ancestry(origin)],
        },
        "pass_rate": verdict.pass_rate,
        "rollouts": list(verdict.rollouts),
        "retention": target.retention,
    }


def rejected_row(verdict: Verdict) -> dict[str, Any]:
    """A rejected candidate in REJECTED_SCHEMA's form."""
    candidate, rejection = verdict.candidate, verdict.rejection
    assert rejection is not None, "what is not kept has a reason"
    return {
        "id": verdict.id,
        "category": verdict.target.category,
        "source": verdict.target.source,
        "question": None if candidate is None else candidate.written.question or None,
        "answer": None if candidate is None else candidate.written.answer or None,
        "image_sha256": None if candidate is None else candidate.digest,
        "reason": rejection.reason,
        "detail": rejection.detail,
        "pass_rate": verdict.pass_rate,
        "rollouts": list(verdict.rollouts),
    }


class _Rows:
    """A Parquet file that grows by a few rows at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self._schema = path, schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending: list[Mapping[str, Any]] = []
        self._bytes = self.count = 0

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """`size` in bytes of what is large in the row."""
        self._pending.append(row)
        self.count += 1
        self._bytes += size
        if len(self._pending) >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending, self._bytes = [], 0

    def close(self) -> None:
        """Closing twice does no harm."""
        if not self._writer.is_open:
            return
        if self._pending or not self.count:
            self._write()
        self._writer.close()


class SampleFiles:
    """The files of one run. Full parts are uploaded and removed at once: neither memory nor disk grows with the run."""

    def __init__(
        self, store: Store, output: str, own: str, folder: Path, categories: Iterable[str], prefix: str = ""
    ) -> None:
        """`own` is the folder in the store for rejections: a shard's, or `output` itself; `prefix` begins file names.

        `categories` are numbered in file names, in this order.
        """
        self._store, self._output, self._own, self._folder, self._prefix = store, output, own, folder, prefix
        self._places = {category: place for place, category in enumerate(categories)}
        self._rejected: dict[str, _Rows] = {}
        self._parts: dict[tuple[str, str], _Rows] = {}
        """By folder and category, as are the parts so far."""
        self._count: Counter[tuple[str, str]] = Counter()
        self._outputs: list[OutputFile] = []
        self.sources: Counter[str] = Counter()
        """Kept samples by source, those for the warm-up too."""
        self.licences: Counter[str] = Counter()
        """Kept samples by licence; at most twice MOST_LICENCES are told apart."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rows in (*self._parts.values(), *self._rejected.values()):
            rows.close()

    def keep(self, verdict: Verdict, image: bytes) -> None:
        """Add a sample; its picture as PNG."""
        category = verdict.target.category
        key = (WARMUP if verdict.warmup else SAMPLES), category
        self.sources[verdict.target.source] += 1
        self._count_licence("" if verdict.candidate is None else verdict.candidate.origin.licence)
        part = self._parts.get(key)
        if part is None:
            folder = self._folder / key[0]
            folder.mkdir(exist_ok=True)
            name = f"{self._prefix}{self._places[category]:03d}-{self._count[key]:05d}.parquet"
            part = self._parts[key] = _Rows(folder / name, SAMPLE_SCHEMA)
        part.add(sample_row(verdict, image), len(image))
        if part.count >= PART_ROWS:
            self._upload_part(key)

    def _count_licence(self, licence: str) -> None:
        # people's pools may name a licence of its own for every picture
        known = licence in self.licences or len(self.licences) < 2 * MOST_LICENCES
        self.licences[licence if known else OTHER_LICENCES] += 1

    def reject(self, verdict: Verdict) -> None:
        """Add a rejected candidate."""
        category = verdict.target.category
        if category not in self._rejected:
            path = self._folder / f"rejected-{self._places[category]:03d}.parquet"
            self._rejected[category] = _Rows(path, REJECTED_SCHEMA)
        self._rejected[category].add(rejected_row(verdict), 0)

    def _upload_part(self, key: tuple[str, str]) -> None:
        part = self._parts.pop(key)
        part.close()
        name = f"{key[0]}/{part.path.name}"
        check_unpublished(self._store, self._own)
        output = self._store.upload(part.path, join(self._output, name))
        self._outputs.append(output.model_copy(update={"path": name}))
        self._count[key] += 1
        part.path.unlink()

    def finish(self) -> list[OutputFile]:
        """Upload what is left, and remove parts that an earlier attempt had and this one has not.

        AlreadyPublished: another attempt came first.
        """
        check_unpublished(self._store, self._own)
        for key in list(self._parts):
            self._upload_part(key)
        mine = {join(self._output, output.path) for output in self._outputs}
        for folder in FOLDERS:
            beginning = join(self._output, folder, self._prefix)
            there = [o.uri for o in self._store.list(join(self._output, folder)) if o.uri.startswith(beginning)]
            self._store.delete(uri for uri in there if uri not in mine)
        for rows in self._rejected.values():
            rows.close()
        whole = self._folder / REJECTED
        concatenate((self._rejected[c].path for c in self._places if c in self._rejected), whole)
        rejected = self._store.upload(whole, join(self._own, REJECTED))
        return [*sorted(self._outputs, key=lambda output: output.path), rejected]


def concatenate(parts: Iterable[Path], whole: Path) -> None:
    """Put tables of rejections one after the other, a batch in memory at a time."""
    with pq.ParquetWriter(whole, REJECTED_SCHEMA, compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
