"""`items.parquet`: every question that was asked, with its answers and grades. A pass over it gives every figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpe_api.artifacts import AnswerType
from dpe_jobs.diagnosis.ask import key
from dpe_jobs.diagnosis.sample import QuestionSet
from dpe_jobs.graders import grade
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import FACETS_TYPE

ITEMS = "items.parquet"
_BATCH_ROWS = 256

SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("id", pa.string()),
        ("category", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("answer_type", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("facets", FACETS_TYPE),
        ("response", pa.string()),  # greedy; null on error
        ("correct", pa.bool_()),  # of the greedy answer; null on error
        ("rollouts", pa.list_(pa.string())),
        ("rollouts_correct", pa.list_(pa.bool_())),
        ("pass_rate", pa.float64()),  # null when nothing was sampled
        ("error", pa.string()),
    ]
)


def _graded(name: str, row: Mapping[str, Any], found: Mapping[str, Any] | None, error: str | None) -> dict[str, Any]:
    kind, choices = AnswerType(row["answer_type"]), tuple(row["choices"] or ())

    def right(response: str) -> bool:
        return grade(response, row["answer"], kind, choices)

    kept = ("id", "category", "question", "answer", "answer_type", "choices", "facets")
    item: dict[str, Any] = {"set": name, **{column: row[column] for column in kept}}
    if found is None:
        return item | {"rollouts": [], "rollouts_correct": [], "error": error}
    passes = [right(text) for text in found["rollouts"]]
    return item | {
        "response": found["response"],
        "correct": right(found["response"]),
        "rollouts": found["rollouts"],
        "rollouts_correct": passes,
        "pass_rate": sum(passes) / len(passes) if passes else None,
    }


def write_items(sets: Sequence[QuestionSet], ledger: Ledger, errors: Mapping[str, str], path: Path) -> None:
    """Grade the ledger's answers and write them, in the order of the sets and their rows."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for questions in sets:
            with pq.ParquetFile(questions.path) as file:
                columns = [c for c in file.schema_arrow.names if c != "image"]
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                    rows = []
                    for row in batch.to_pylist():
                        item = key(questions.name, row["id"])
                        found = ledger.get(item)
                        rows.append(_graded(questions.name, row, found, errors.get(item)))
                    writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


class Items:
    """The columns of items.parquet that figures are made of."""

    def __init__(self, path: Path) -> None:
        """Read them; the texts stay on disk."""
        table = pq.read_table(path, columns=["set", "id", "category", "correct", "pass_rate"])
        self.set = np.array(table["set"].to_pylist(), dtype=object)
        self.id = np.array(table["id"].to_pylist(), dtype=object)
        self.category = np.array(table["category"].to_pylist(), dtype=object)
        correct = table["correct"].to_pylist()
        self.answered = np.array([c is not None for c in correct], dtype=bool)
        self.correct = np.array([bool(c) for c in correct], dtype=bool)
        """False where not answered: look at `answered` first."""
        self.pass_rate = np.array([np.nan if p is None else p for p in table["pass_rate"].to_pylist()], dtype=float)
        """NaN where nothing was sampled."""
        counts = pq.read_table(path, columns=["rollouts_correct"])["rollouts_correct"]
        self.rollouts = np.array([len(r or ()) for r in counts.to_pylist()], dtype=int)

    def ids(self, name: str) -> tuple[str, ...]:
        """Ids of one set, in order."""
        return tuple(self.id[self.set == name])

    def names(self) -> tuple[str, ...]:
        """Names of the sets, in order."""
        return tuple(dict.fromkeys(self.set))
