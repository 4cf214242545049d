"""`items.parquet`: every question that was asked, with its answers and grades. A pass over it gives every figure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpe_api.artifacts import AnswerType
from dpe_jobs.diagnosis.ask import GREEDY, SAMPLED, key, row_key
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
        ("error", pa.string()),  # why an answer is missing; beside a response: why the rollouts are
    ]
)


def _answers(ledger: Ledger, kind: str, questions: QuestionSet, question_id: str) -> list[str] | None:
    found = ledger.get(key(kind, questions.asked_as, question_id))
    return None if found is None else list(found["texts"])


def graded(questions: QuestionSet, row: Mapping[str, Any], ledger: Ledger, error: str | None) -> dict[str, Any]:
    """A row of items.parquet: a question, the answers that the ledger has to it, and their grades."""
    kind, choices = AnswerType(row["answer_type"]), tuple(row["choices"] or ())

    def right(response: str) -> bool:
        return grade(response, row["answer"], kind, choices)

    kept = ("id", "category", "question", "answer", "answer_type", "choices", "facets")
    item: dict[str, Any] = {"set": questions.name, **{column: row[column] for column in kept}}
    greedy = _answers(ledger, GREEDY, questions, row["id"])
    sampled = _answers(ledger, SAMPLED, questions, row["id"]) if questions.rollouts else []
    if greedy is not None:
        item |= {"response": greedy[0], "correct": right(greedy[0])}
    passes = [right(text) for text in sampled or ()]
    return item | {
        "rollouts": sampled or [],
        "rollouts_correct": passes,
        "pass_rate": sum(passes) / len(passes) if passes else None,
        "error": error if greedy is None or sampled is None else None,
    }


def read_rows(questions: QuestionSet) -> Iterator[dict[str, Any]]:
    """The asked rows of a set without their images, in the order of the set's file."""
    asked = frozenset(questions.ids)
    with pq.ParquetFile(questions.path) as file:
        columns = [c for c in file.schema_arrow.names if c != "image"]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield from (row for row in batch.to_pylist() if row["id"] in asked)


def write_items(sets: Sequence[QuestionSet], ledger: Ledger, errors: Mapping[str, str], path: Path) -> None:
    """Grade the ledger's answers and write them, in the order of the sets and their rows."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for questions in sets:
            rows = read_rows(questions)
            while batch := list(islice(rows, _BATCH_ROWS)):
                said = [errors.get(row_key(questions.asked_as, row["id"])) for row in batch]
                items = [graded(questions, row, ledger, error) for row, error in zip(batch, said, strict=True)]
                writer.write_table(pa.Table.from_pylist(items, schema=SCHEMA))


def keep_sets(source: Path, names: Sequence[str], path: Path) -> None:
    """Copy the rows of some sets."""
    with pq.ParquetFile(source) as file, pq.ParquetWriter(path, file.schema_arrow, compression="zstd") as writer:
        for batch in file.iter_batches(_BATCH_ROWS):
            writer.write_batch(batch.filter(pc.is_in(batch["set"], pa.array(names))))


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

    def categories(self, name: str) -> dict[str, str]:
        """Categories of one set by id."""
        mine = self.set == name
        return dict(zip(self.id[mine], self.category[mine], strict=True))

    def names(self) -> tuple[str, ...]:
        """Names of the sets, in order."""
        return tuple(dict.fromkeys(self.set))
