"""The samples of one artifact, and the diagnosis examples that asked for them."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpe_jobs.lineage.walk import Ancestor, sample_files
from dpe_jobs.questions import batch_rows, open_parquet
from dpe_jobs.store import Store

_COLUMNS = ("id", "category", "question", "answer", "source", "provenance", "pass_rate", "retention")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row that a model was trained on."""

    id: str
    category: str
    question: str
    answer: str
    source: str | None
    pass_rate: float | None
    examples: tuple[str, ...]
    """Ids of the wrong answers, in the diagnosis, that asked for it."""
    source_url: str | None = None


@dataclass(slots=True)
class Counts:
    """What is told of many samples."""

    samples: Counter[str] = field(default_factory=Counter)
    """By category."""
    sources: Counter[str] = field(default_factory=Counter)
    asked: dict[str, Counter[str]] = field(default_factory=dict)
    """By category: how many samples each diagnosis example asked for."""

    def add(self, sample: Sample) -> None:
        """Count one."""
        self.samples[sample.category] += 1
        self.sources[sample.source or "unknown"] += 1
        self.asked.setdefault(sample.category, Counter()).update(sample.examples)


def _sample(row: dict[str, Any]) -> Sample:
    provenance = row.get("provenance") or {}
    return Sample(
        id=row["id"],
        category=row["category"] or "",
        question=row["question"],
        answer=row["answer"],
        source=row.get("source"),
        pass_rate=row.get("pass_rate"),
        examples=tuple(provenance.get("diagnosis_ids") or ()),
        source_url=provenance.get("source_url"),
    )


def read_samples(store: Store, data: Ancestor) -> Iterator[Sample]:
    """The rows of generated samples or of a question set. One file is on disk and one batch in memory at a time."""
    for uri, output in sample_files(data):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "samples.parquet"
            store.download(uri, path, output.sha256)
            with open_parquet(path) as file:
                columns = [c for c in _COLUMNS if c in file.schema_arrow.names]
                for batch in file.iter_batches(batch_rows(file), columns=columns):
                    yield from map(_sample, batch.to_pylist())
