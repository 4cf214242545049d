"""Why answers of the probe are wrong: slices and confusions always, and lines by an endpoint where there is one.

Adds the columns `error_type` and `weakness` to items.parquet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpe_api.artifacts import AnswerType, AttributionReport, Weakness
from dpe_api.diagnosis_spec import Diagnosis
from dpe_api.endpoints import Endpoint
from dpe_jobs import asking
from dpe_jobs.diagnosis import confusions, slices
from dpe_jobs.diagnosis.by_rules import WrongRow, by_rules
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.diagnosis.weaknesses import Note, Wrong, attribute
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import read_facets

MOST_IN_SUMMARY = 8
_BATCH_ROWS = 256
_SEED = 0  # of the wrong answers that are looked at: an iteration that reuses answers finds the same ones paid for
_COLUMNS = ["set", "id", "category", "facets", "correct", "expected", "claim"]


@dataclass(frozen=True, slots=True)
class ByRules:
    """What needs no endpoint, and the wrong answers."""

    report: AttributionReport
    wrong: Sequence[WrongRow]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The answered rows of the probe."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            yield from (row for row in batch.to_pylist() if row["set"] == PROBE and row["correct"] is not None)


def attribute_by_rules(items: Path, settings: Diagnosis) -> ByRules:
    """Slices, confusions, and weaknesses made of both."""
    category, facets, correct, wrong = [], [], [], []
    for row in _rows(items, _COLUMNS):
        category.append(row["category"])
        facets.append(read_facets(row["facets"]))
        correct.append(row["correct"])
        if not row["correct"]:
            wrong.append(WrongRow(row["id"], row["category"], facets[-1], row["expected"], row["claim"]))
    found, tested = slices.find(
        slices.Rows(category, facets, np.array(correct, dtype=bool)),
        confidence=settings.confidence,
        significance=settings.attribution.significance,
    )
    confused = confusions.count(
        [w.category for w in wrong], [w.expected or "" for w in wrong], [w.claim for w in wrong]
    )
    report = AttributionReport(
        slices=found,
        tested=tested,
        confusions=confused,
        weaknesses=by_rules(found, confused, wrong, per_category=settings.attribution.weaknesses_per_category),
        wrong=len(wrong),
    )
    return ByRules(report, wrong)


async def attribute_by_endpoint(
    endpoint: Endpoint, rules: ByRules, items: Path, questions: Path, settings: Diagnosis, ledger: Ledger
) -> AttributionReport:
    """The report with what an endpoint said of the wrong answers; their rows in `items` get its words.

    `questions` has the asked rows of the probe with their images. A category of which the endpoint said nothing keeps
    the weaknesses that rules found.
    """
    columns = ["set", "id", "category", "correct", "question", "answer", "answer_type", "choices", "response"]
    wrong = [_wrong(row) for row in _rows(items, columns) if not row["correct"]]
    fit = partial(asking.fit, max_pixels=settings.max_pixels)
    said = await attribute(endpoint, settings.attribution, wrong, questions, ledger, seed=_SEED, fit=fit)
    annotate(items, said.lines)
    told = {w.category for w in said.weaknesses}
    return rules.report.model_copy(
        update={
            "weaknesses": sorted(
                [*said.weaknesses, *(w for w in rules.report.weaknesses if w.category not in told)],
                key=lambda w: w.category,  # stable: most frequent first within a category
            ),
            "error_types": said.error_types(wrong),
            "looked_at": said.looked_at,
            "failed": len(said.failed),
            "unmerged": said.unmerged,
        }
    )


def _wrong(row: Mapping[str, Any]) -> Wrong:
    """A wrong answer as the endpoint reads it: with the text that the model read."""
    text = asking.prompt(row["question"], row["choices"] or (), AnswerType(row["answer_type"]))
    return Wrong(row["id"], row["category"], text, row["answer"], row["response"])


def annotate(items: Path, lines: Mapping[str, Note]) -> None:
    """Write error types and lines into the rows of the probe."""
    written = items.with_suffix(".annotated")
    with pq.ParquetFile(items) as file, pq.ParquetWriter(written, SCHEMA, compression="zstd") as writer:
        for batch in file.iter_batches(_BATCH_ROWS):
            rows = batch.to_pylist()
            for row in rows:
                note = lines.get(row["id"]) if row["set"] == PROBE else None
                row |= {"error_type": note and note.error_type, "weakness": note and note.text}
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    written.replace(items)


def most_frequent(report: AttributionReport) -> list[Weakness]:
    """The few weaknesses that the summary tells."""
    return sorted(report.weaknesses, key=lambda w: (-w.count, w.category, w.text))[:MOST_IN_SUMMARY]
