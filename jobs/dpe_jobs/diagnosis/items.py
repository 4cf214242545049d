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
from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs import asking
from dpe_jobs.diagnosis.ask import GREEDY, SAMPLED, key, options_order, row_key
from dpe_jobs.diagnosis.judge import Graded, ToGrade
from dpe_jobs.diagnosis.sample import QuestionSet
from dpe_jobs.graders import claim, grade, is_programmatic
from dpe_jobs.graders.text import spoken
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import FACETS_TYPE

ITEMS = "items.parquet"
NOT_JUDGED = Graded({}, {})
_BATCH_ROWS = 256
ASKED = ("question", "answer", "answer_type", "choices")
"""Columns that say what was asked, and what is right."""
_KEPT = ("id", "category", "question", "answer_type", "facets")

SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("id", pa.string()),
        ("category", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("answer_type", pa.string()),
        ("choices", pa.list_(pa.string())),  # as they were shown
        ("facets", FACETS_TYPE),
        ("response", pa.string()),  # greedy; null on error
        ("correct", pa.bool_()),  # of the greedy answer; null on error
        ("expected", pa.string()),  # the right answer, normalised as `claim` is
        ("claim", pa.string()),  # the answer that the response gives; null when it gives none
        ("rollouts", pa.list_(pa.string())),
        ("rollouts_correct", pa.list_(pa.bool_())),
        ("pass_rate", pa.float64()),  # null when nothing was sampled
        ("error", pa.string()),  # why an answer or its grade is missing; beside a grade: why the rollouts are
        ("error_type", pa.string()),  # of a wrong answer that an endpoint looked at
        ("weakness", pa.string()),  # the same, in a line
    ]
)


def item_key(questions: QuestionSet, question_id: str) -> str:
    """Names a row of one set among all items."""
    return row_key(questions.name, question_id)


def answers(questions: QuestionSet, question_id: str, ledger: Ledger) -> tuple[str | None, list[str] | None]:
    """The greedy answer and the sampled ones; None: the ledger has none. A set without rollouts has no sampled ones."""
    greedy = ledger.get(key(GREEDY, questions.asked_as, question_id))
    sampled = ledger.get(key(SAMPLED, questions.asked_as, question_id)) if questions.rollouts else {"texts": []}
    return None if greedy is None else greedy["texts"][0], None if sampled is None else list(sampled["texts"])


def as_asked(row: Mapping[str, Any], settings: Diagnosis) -> dict[str, Any]:
    """The columns that say what was asked of a row of a question set, and what is right: options as they are shown."""
    kind = AnswerType(row["answer_type"])
    answer, choices = asking.graded_as(row["answer"], row["choices"] or (), kind, options_order(row, settings))
    return {"question": row["question"], "answer": answer, "answer_type": kind.value, "choices": list(choices)}


def graded(
    questions: QuestionSet,
    row: Mapping[str, Any],
    ledger: Ledger,
    settings: Diagnosis,
    *,
    error: str | None = None,
    verdicts: Graded = NOT_JUDGED,
) -> dict[str, Any]:
    """A row of items.parquet: a question, the answers that the ledger has to it, and their grades.

    A row that the judge failed on is without grades, and says why. Options are in the order in which they were shown.
    """
    shown = as_asked(row, settings)
    kind, answer, choices = AnswerType(shown["answer_type"]), shown["answer"], shown["choices"]
    item: dict[str, Any] = {"set": questions.name, **{column: row[column] for column in _KEPT}, **shown}
    item["expected"] = claim(answer, kind, choices)
    greedy, sampled = answers(questions, row["id"], ledger)
    given = [text for text in (greedy, *(sampled or ())) if text is not None]
    if is_programmatic(kind):
        right: Sequence[bool] = [grade(text, answer, kind, choices) for text in given]
    else:
        name = item_key(questions, row["id"])
        right, error = verdicts.correct.get(name, ()), error or verdicts.errors.get(name)
    if greedy is not None:
        item |= {"response": greedy, "claim": claim(greedy, kind, choices), "correct": right[0] if right else None}
    passes = list(right if greedy is None else right[1:])
    return item | {
        "rollouts": sampled or [],
        "rollouts_correct": passes,
        "pass_rate": sum(passes) / len(passes) if passes else None,
        "error": error if greedy is None or sampled is None or not right else None,
    }


def to_judge(questions: QuestionSet, ledger: Ledger) -> Iterator[ToGrade]:
    """The answers of a set that a judge has to grade, without the thinking before them."""
    for row in read_rows(questions):
        if not is_programmatic(AnswerType(row["answer_type"])):
            greedy, sampled = answers(questions, row["id"], ledger)
            given = tuple(spoken(text) for text in (greedy, *(sampled or ())) if text is not None)
            if given:
                yield ToGrade(item_key(questions, row["id"]), row["question"], row["answer"], given)


def read_rows(questions: QuestionSet) -> Iterator[dict[str, Any]]:
    """The asked rows of a set without their images, in the order of the set's file."""
    asked = frozenset(questions.ids)
    with pq.ParquetFile(questions.path) as file:
        columns = [c for c in file.schema_arrow.names if c != "image"]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield from (row for row in batch.to_pylist() if row["id"] in asked)


def write_items(
    sets: Sequence[QuestionSet],
    ledger: Ledger,
    settings: Diagnosis,
    errors: Mapping[str, str],
    verdicts: Graded,
    path: Path,
) -> None:
    """Grade the ledger's answers and write them, in the order of the sets and their rows."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for questions in sets:
            rows = read_rows(questions)
            while batch := list(islice(rows, _BATCH_ROWS)):
                items = [
                    graded(
                        questions,
                        row,
                        ledger,
                        settings,
                        error=errors.get(row_key(questions.asked_as, row["id"])),
                        verdicts=verdicts,
                    )
                    for row in batch
                ]
                writer.write_table(pa.Table.from_pylist(items, schema=SCHEMA))


def regrade(source: Path, names: Sequence[str], path: Path) -> None:
    """Copy the rows of some sets, graded anew: who wrote them may have had other graders. A judge's verdicts stay.

    ValueError when a reference answer does not fit its type any more.
    """
    with pq.ParquetFile(source) as file, pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in file.iter_batches(_BATCH_ROWS):
            rows = batch.filter(pc.is_in(batch["set"], pa.array(names))).to_pylist()
            writer.write_table(pa.Table.from_pylist([_regraded(row) for row in rows], schema=SCHEMA))


def _regraded(item: dict[str, Any]) -> dict[str, Any]:
    kind, answer, choices = AnswerType(item["answer_type"]), item["answer"], item["choices"]
    if not is_programmatic(kind):
        return item
    response = item["response"]
    right = None if response is None else grade(response, answer, kind, choices)
    passes = [grade(text, answer, kind, choices) for text in item["rollouts"]]
    attributed = {"error_type": None, "weakness": None} if right else {}
    return (
        item
        | attributed
        | {
            "expected": claim(answer, kind, choices),
            "claim": None if response is None else claim(response, kind, choices),
            "correct": right,
            "rollouts_correct": passes,
            "pass_rate": sum(passes) / len(passes) if passes else None,
        }
    )


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

    def ids_answered(self, name: str) -> frozenset[str]:
        """Ids of one set that have a graded answer."""
        return frozenset(self.id[(self.set == name) & self.answered])

    def categories(self, name: str) -> dict[str, str]:
        """Categories of one set by id."""
        mine = self.set == name
        return dict(zip(self.id[mine], self.category[mine], strict=True))

    def names(self) -> tuple[str, ...]:
        """Names of the sets, in order."""
        return tuple(dict.fromkeys(self.set))
