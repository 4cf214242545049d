"""Wrong answers of the diagnosed model, as planner and writer are shown them: in words, and with small pictures."""

import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from dpe_jobs.diagnosis.items import ITEMS
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.endpoints.texts import shorten
from dpe_jobs.generation.agents.seen import glance
from dpe_jobs.outputs import download_output
from dpe_jobs.questions import read_questions
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

_MOST_IN_WORDS = 8  # of a category
_LONGEST = 400  # characters of a question, an answer or a response


@dataclass(frozen=True, slots=True)
class Example:
    """One wrong answer."""

    id: str
    question: str
    answer: str
    response: str
    image: bytes | None = None
    """A small JPEG; None: not among those that are shown."""

    def text(self) -> str:
        """In words."""
        said, question, answer = (shorten(t, _LONGEST) for t in (self.response, self.question, self.answer))
        return f"asked {question!r}, it said {said!r}; right is {answer!r}"


@dataclass(frozen=True, slots=True)
class Examples:
    """By category: those with images first. Everything in them is data."""

    by_category: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    def shown(self, category: str) -> list[Example]:
        """Those with images."""
        return [example for example in self.by_category.get(category, ()) if example.image is not None]

    def texts(self, category: str, preferred: Iterable[str] = ()) -> str:
        """Some in words, the preferred ones first; a line each."""
        first = frozenset(preferred)
        known = sorted(self.by_category.get(category, ()), key=lambda example: example.id not in first)
        return "\n".join(f"- {example.text()}" for example in known[:_MOST_IN_WORDS]) or "- none is known"


def read_examples(
    store: Store, artifact: str, probe: str, preferred: Mapping[str, Sequence[str]], *, images: int
) -> Examples:
    """Wrong answers of the diagnosis in `artifact` to the probe at `probe`, `images` of each category with pictures.

    `preferred` ids of a category come first, then others by a hash of their ids. NotFound when either is not there.
    """
    chosen: dict[str, list[Example]] = {}
    rank = {name: place for ids in preferred.values() for place, name in enumerate(ids)}

    def order(example: Example) -> tuple[int, int, str]:
        return rank.get(example.id, len(rank)), derive(0, "examples", example.id), example.id

    columns = ["set", "id", "category", "question", "answer", "response", "correct"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        download_output(store, artifact, ITEMS, path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    if row["set"] != PROBE or row["correct"] is not False:
                        continue
                    known = chosen.setdefault(row["category"], [])
                    known.append(Example(row["id"], row["question"], row["answer"], row["response"] or ""))
                    known.sort(key=order)
                    del known[_MOST_IN_WORDS:]
    wanted = {example.id for known in chosen.values() for example in known[:images]}
    pictures = _pictures(store, probe, wanted) if wanted else {}
    return Examples({name: [replace(e, image=pictures.get(e.id)) for e in known] for name, known in chosen.items()})


def _pictures(store: Store, probe: str, wanted: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for question in read_questions(store, probe, categories=False, only=wanted):
        with Image.open(io.BytesIO(question.image)) as image:
            found[question.id] = glance(image)
        if len(found) == len(wanted):
            break
    return found
