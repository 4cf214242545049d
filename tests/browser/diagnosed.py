"""A diagnosis of easy-vqa by a model that is made up: files as the stage writes them, for looking at the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from examples.shapes import data

from dpe_api.artifacts import (
    AttributionReport,
    CategoryReport,
    DiagnosisReport,
    Quota,
    SetReport,
    Weakness,
)
from dpe_api.diagnosis_spec import ERROR_TYPES, Diagnosis
from dpe_jobs.diagnosis import confusions, intervals, slices
from dpe_jobs.questions import FACETS_TYPE, Question, facet_pairs, write_questions

ITEMS = pa.schema(
    [
        *((name, pa.string()) for name in ("set", "id", "category", "question", "answer", "answer_type")),
        ("choices", pa.list_(pa.string())),
        ("facets", FACETS_TYPE),
        ("response", pa.string()),
        ("correct", pa.bool_()),
        ("rollouts", pa.list_(pa.string())),
        ("rollouts_correct", pa.list_(pa.bool_())),
        ("pass_rate", pa.float64()),
        ("error", pa.string()),
        *((name, pa.string()) for name in ("expected", "claim", "error_type", "weakness")),
    ]
)
SKILL = {
    "color": 0.97, "color_fine": 0.45, "shape": 0.9, "shape_ref": 0.8, "exist_color": 0.85, "exist_shape": 0.75,
    "negation": 0.6,
}  # fmt: skip
LOOKALIKE = {"teal": "green", "gray": "black", "brown": "red", "rectangle": "triangle", "yes": "no", "no": "yes"}


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows in the form of items.parquet."""
    return pa.Table.from_pylist(list(rows), schema=ITEMS)


def shapes(per_category: int) -> list[Question]:
    """Rows of the example's probe."""
    return [data.question(row) for row in data.balanced(data.Part.PROBE, per_category)]


def answer(questions: Sequence[Question], folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Answer with SKILL, worse on teal and on negated rectangles, 1% without an answer: items and questions."""
    random, rows = np.random.default_rng(seed), []
    answers = {q.category: sorted({o.answer for o in questions if o.category == q.category}) for q in questions}
    for q in questions:
        skill = SKILL.get(q.category.split("/")[-1], 0.8)
        if q.answer == "teal" or (q.facets.get("shape") == "rectangle" and q.category == "negation"):
            skill *= 0.4
        ability = random.beta(4 * skill + 0.1, 4 * (1 - skill) + 0.1)
        right, failed = bool(random.random() < ability), random.random() < 0.01
        others = [a for a in answers[q.category] if a != q.answer] or ["something else"]
        guess = LOOKALIKE.get(q.answer) if random.random() < 0.7 else None
        claim = q.answer if right else guess or str(random.choice(others))
        passes = [bool(x) for x in random.random(9) < ability]
        attributed = not right and not failed and random.random() < 0.5
        rows.append(
            {
                **{c: getattr(q, c) for c in ("id", "category", "question", "answer")},
                "set": "probe",
                "answer_type": str(q.answer_type),
                "choices": list(q.choices),
                "facets": facet_pairs(q.facets),
                "response": None if failed else f"I look at the picture. The answer is {claim}.",
                "correct": None if failed else right,
                "rollouts": [] if failed else ["..."] * 9,
                "rollouts_correct": [] if failed else passes,
                "pass_rate": None if failed else sum(passes) / 9,
                "error": "HTTP 503 after 5 tries: upstream connect error" if failed else None,
                "expected": q.answer,
                "claim": None if failed else claim,
                "error_type": ERROR_TYPES[int(random.choice(5, p=[0.6, 0.05, 0.15, 0.15, 0.05]))]
                if attributed
                else None,
                "weakness": f"takes {q.answer} for {claim}" if attributed else None,
            }
        )
    items, asked = folder / "items.parquet", folder / "probe.parquet"
    pq.write_table(table(rows), items)
    write_questions(questions, asked)
    return items, asked


def report(items: Path, settings: Diagnosis) -> tuple[DiagnosisReport, list[Quota]]:
    """The figures of items.parquet, and quotas by hand."""
    rows = pq.read_table(items).to_pylist()
    answered = [r for r in rows if r["correct"] is not None]
    wrong = [r for r in answered if not r["correct"]]
    categories = []
    for name in sorted({r["category"] for r in rows}):
        mine = [r for r in answered if r["category"] == name]
        correct = sum(r["correct"] for r in mine)
        categories.append(
            CategoryReport(
                name=name,
                n=len(mine),
                errors=sum(r["category"] == name for r in rows) - len(mine),
                correct=correct,
                accuracy=intervals.accuracy(correct, len(mine), settings.confidence),
                rollouts=9 * len(mine),
                pass_rate=intervals.pass_rate([r["pass_rate"] for r in mine], 9 * len(mine), settings.confidence),
            )
        )
    found, tested = slices.find(
        slices.Rows(
            [r["category"] for r in answered],
            [{f["key"]: f["value"] for f in r["facets"]} for r in answered],
            np.array([r["correct"] for r in answered]),
        ),
        confidence=settings.confidence,
        significance=settings.attribution.significance,
    )
    looked_at = [r for r in wrong if r["error_type"]]
    weaknesses: dict[tuple[str, str], list[dict[str, str]]] = {}
    for r in looked_at:
        weaknesses.setdefault((r["category"], r["weakness"]), []).append(r)
    attribution = AttributionReport(
        slices=found,
        tested=tested,
        confusions=confusions.count(*([r[c] for r in wrong] for c in ("category", "expected", "claim"))),
        error_types={
            c.name: {
                k: n for k in ERROR_TYPES if (n := sum(r["error_type"] == k and r["category"] == c.name for r in wrong))
            }
            for c in categories
        },
        weaknesses=[
            Weakness(
                category=c, text=text, error_type=rs[0]["error_type"], count=len(rs), examples=[r["id"] for r in rs[:2]]
            )
            for (c, text), rs in sorted(weaknesses.items(), key=lambda i: (i[0][0], -len(i[1])))
        ],
        wrong=len(wrong),
        looked_at=len(looked_at),
        failed=2,
    )
    macro = intervals.macro([c.accuracy for c in categories])
    n, errors = len(answered), len(rows) - len(answered)
    test = [c.model_copy(update={"pass_rate": None, "errors": 0}) for c in categories]
    quotas = [
        Quota(
            name=c.name,
            weight=1 / len(categories),
            quota=1000 // len(categories),
            reachable=c.pass_rate is None or c.pass_rate.high >= 0.3,
            retention=c.accuracy.value >= 0.9,
            supply=500 if i == 2 else None,
        )
        for i, c in enumerate(categories)
    ]
    return (
        DiagnosisReport(
            model_uri="s3://dpe/models/qwen2.5-vl-7b-instruct",
            model_sha256="5f" * 32,
            fingerprint="a7" * 32,
            sets=[
                SetReport(
                    name="probe", uri="s3://dpe/data/probe", n=n, errors=errors, macro=macro, categories=categories
                ),
                SetReport(name="test", uri="s3://dpe/data/test", n=n, errors=0, macro=macro, categories=test),
            ],
            attribution=attribution,
        ),
        quotas,
    )
