"""Questions of easy-vqa, and what other tools would have written of them."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from examples.shapes import data
from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs.questions import Question, facet_pairs
from dpe_jobs.store import Store

FACETS = ("color", "negated", "shape")


def png(color: str = "red", size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def easy_vqa(per_category: int = 12) -> list[Question]:
    """Rows of the example's probe; those on colour and shape as multiple choice."""
    return [_with_choices(data.question(row)) for row in data.balanced(data.Part.PROBE, per_category)]


def _with_choices(question: Question) -> Question:
    for category, choices in (("color", data.BASIC_COLORS), ("shape", data.SHAPES)):
        if question.category == category:
            return replace(question, choices=choices, answer_type=AnswerType.CHOICE)
    return question


def bare(questions: Sequence[Question]) -> list[Question]:
    """Without what a format cannot hold: source and licence."""
    return [replace(q, source=None, licence=None) for q in questions]


def answer_of(question: Question) -> str:
    """The answer as VLMEvalKit writes it: the letter of the choice."""
    return ascii_uppercase[question.choices.index(question.answer)] if question.choices else question.answer


def tsv_row(question: Question, letters: int = 5) -> dict[str, str]:
    options = dict(zip(ascii_uppercase[:letters], [*question.choices, *[""] * letters], strict=False))
    facets = {name: question.facets.get(name, "") for name in FACETS}
    return {
        "index": question.id,
        "image": base64.b64encode(question.image).decode(),
        "question": question.question,
        **options,
        "answer": answer_of(question),
        "category": question.category,
        **facets,
    }


def write_tsv(rows: Sequence[dict[str, str]], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_llava(questions: Sequence[Question], folder: Path, name: str = "probe.json") -> Path:
    """`conversations`, images in the folder `images` beside the file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for question in questions:
        (folder / "images" / f"{question.id}.png").write_bytes(question.image)
        entries.append(
            {
                "id": question.id,
                "image": f"images/{question.id}.png",
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question.question}"},
                    {"from": "gpt", "value": question.answer},
                ],
                "choices": list(question.choices),
                "category": question.category,
                "facets": dict(question.facets),
            }
        )
    path = folder / name
    lines = "\n".join(json.dumps(e) for e in entries)
    path.write_text(lines if name.endswith("l") else json.dumps(entries, indent=1), encoding="utf-8")
    return path


def columns_of(questions: Sequence[Question]) -> dict[str, list[object]]:
    """As a person would hand them to `datasets.Dataset.from_dict`: no answer types."""
    return {
        "id": [q.id for q in questions],
        "image": [{"bytes": q.image, "path": None} for q in questions],
        "question": [q.question for q in questions],
        "answer": [q.answer for q in questions],
        "choices": [list(q.choices) for q in questions],
        "category": [q.category for q in questions],
        "facets": [facet_pairs(q.facets) for q in questions],
    }


def put_folder(store: Store, folder: Path, uri: str) -> str:
    """Upload a folder; returns its address."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        store.upload(path, f"{uri}/{path.relative_to(folder).as_posix()}")
    return uri
