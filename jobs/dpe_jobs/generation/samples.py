"""What generation publishes: `samples/part-NNNNN.parquet` with pictures, and `rejected.parquet` with reasons."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from dpe_api.artifacts import OutputFile
from dpe_jobs.generation.candidates import Candidate
from dpe_jobs.generation.judge import Verdict
from dpe_jobs.questions import FEATURES, FIELDS, STRING_FEATURE, Question, hf_metadata
from dpe_jobs.store import Store, join

PART_ROWS = 1000
_BATCH_ROWS = 200
SAMPLES = "samples"
REJECTED = "rejected.parquet"

_STRINGS: dict[str, Any] = {"feature": STRING_FEATURE, "_type": "List"}
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
            "provenance": {"diagnosis_ids": _STRINGS, "tool_calls": _STRINGS, "source_url": STRING_FEATURE},
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
        ("question", pa.string()),
        ("answer", pa.string()),
        ("image_sha256", pa.string()),  # of its size and RGB pixels
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("pass_rate", pa.float64()),
        ("rollouts", pa.list_(pa.string())),
    ]
)


def sample_row(candidate: Candidate, verdict: Verdict, diagnosis_ids: Sequence[str]) -> dict[str, Any]:
    """A kept candidate in SAMPLE_SCHEMA's form."""
    target = candidate.target
    question = Question(
        id=candidate.id,
        image=candidate.image,
        question=candidate.written.question,
        answer=candidate.written.answer,
        answer_type=candidate.written.answer_type,
        category=target.category,
        choices=candidate.written.choices,
        facets=candidate.facets,
        source=f"render:{candidate.program}",
        licence=candidate.licence,
    )
    return question.row() | {
        "target": {"category": target.category, "weakness": target.weakness},
        "provenance": {
            "diagnosis_ids": list(diagnosis_ids),
            "tool_calls": [f"render:{candidate.program}"],
            "source_url": None,
        },
        "pass_rate": verdict.pass_rate,
        "rollouts": list(verdict.rollouts),
        "retention": target.retention,
    }


def rejected_row(verdict: Verdict, reason: str) -> dict[str, Any]:
    """A rejected candidate in REJECTED_SCHEMA's form."""
    return {
        "id": verdict.id,
        "category": verdict.target.category,
        "question": verdict.question,
        "answer": verdict.answer,
        "image_sha256": verdict.digest,
        "reason": reason,
        "detail": verdict.detail,
        "pass_rate": verdict.pass_rate,
        "rollouts": list(verdict.rollouts),
    }


class _Rows:
    """A Parquet file that grows by a few rows at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self._schema = path, schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending: list[Mapping[str, Any]] = []
        self.count = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self._pending.append(row)
        self.count += 1
        if len(self._pending) >= _BATCH_ROWS:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []

    def close(self) -> None:
        """Closing twice does no harm."""
        if not self._writer.is_open:
            return
        if self._pending or not self.count:
            self._write()
        self._writer.close()


class SampleFiles:
    """The files of one run. Full parts are uploaded and removed at once: neither memory nor disk grows with the run."""

    def __init__(self, store: Store, output: str, folder: Path) -> None:
        self._store, self._output, self._folder = store, output, folder
        self._rejected = _Rows(folder / REJECTED, REJECTED_SCHEMA)
        self._part: _Rows | None = None
        self._outputs: list[OutputFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rows in (self._part, self._rejected):
            if rows is not None:
                rows.close()

    def keep(self, row: Mapping[str, Any]) -> None:
        """Add a sample."""
        if self._part is None:
            path = self._folder / f"part-{len(self._outputs):05d}.parquet"
            self._part = _Rows(path, SAMPLE_SCHEMA)
        self._part.add(row)
        if self._part.count >= PART_ROWS:
            self._upload_part()

    def reject(self, row: Mapping[str, Any]) -> None:
        """Add a rejected candidate."""
        self._rejected.add(row)

    def _upload_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        part.close()
        name = f"{SAMPLES}/{part.path.name}"
        output = self._store.upload(part.path, join(self._output, name))
        self._outputs.append(output.model_copy(update={"path": name}))
        part.path.unlink()

    def finish(self) -> list[OutputFile]:
        """Upload what is left, and remove parts that an earlier attempt had and this one has not."""
        self._upload_part()
        mine = {join(self._output, output.path) for output in self._outputs}
        self._store.delete(o.uri for o in self._store.list(join(self._output, SAMPLES)) if o.uri not in mine)
        self._rejected.close()
        rejected = self._store.upload(self._rejected.path, join(self._output, REJECTED))
        return [*self._outputs, rejected]
