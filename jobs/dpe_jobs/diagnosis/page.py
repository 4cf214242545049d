"""`report.html`: a diagnosis for looking at."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from dpe_api.artifacts import AttributionReport, CategoryReport, Confusion, DiagnosisReport, Quota, Slice, Weakness
from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs import pages
from dpe_jobs.diagnosis.confusions import Matrix, matrix
from dpe_jobs.diagnosis.failures import Failure, read_failures, readable
from dpe_jobs.diagnosis.sample import PROBE

PAGE = "report.html"
_BATCH_ROWS = 4096
_CONFUSIONS_SHOWN = 12  # of a category without a matrix
_ERRORS_SHOWN = 5
_NAME = 80  # characters of a category, a facet, an id


@dataclass(frozen=True, slots=True)
class Category:
    """All that the page shows of one category."""

    report: CategoryReport
    quota: Quota | None
    weak: bool
    """It is itself a significant slice."""
    wrong: int
    matrix: Matrix | None
    confusions: Sequence[Confusion]
    """Shown where there is no matrix."""
    failures: Sequence[Failure]
    weaknesses: Sequence[Weakness]
    error_types: dict[str, int]


def write(
    report: DiagnosisReport,
    quotas: Sequence[Quota],
    items_path: Path,
    questions_path: Path,
    out: Path,
    *,
    settings: Diagnosis,
    created_at: datetime,
) -> None:
    """Write the page. `items_path` is items.parquet, `questions_path` the asked rows of the probe with their images."""
    attribution = report.attribution or AttributionReport()
    found = Counts.read(items_path)
    failures, wrong = read_failures(
        items_path, questions_path, {example for weakness in attribution.weaknesses for example in weakness.examples}
    )
    by_name = {quota.name: quota for quota in quotas}
    weak = {s.category for s in attribution.slices if not s.facets}
    categories = [
        Category(
            report=category,
            quota=by_name.get(category.name),
            weak=category.name in weak,
            wrong=wrong.get(category.name, 0),
            matrix=matrix(found.answers.get(category.name, Counter())),
            confusions=[c for c in attribution.confusions if c.category == category.name][:_CONFUSIONS_SHOWN],
            failures=failures.get(category.name, ()),
            weaknesses=[w for w in attribution.weaknesses if w.category == category.name],
            error_types=attribution.error_types.get(category.name, {}),
        )
        for category in sorted(report.of(PROBE).categories, key=_weakest_first)
    ]
    shown = [failure.id for category in categories for failure in category.failures]
    text = pages.render(
        "dpe_jobs.diagnosis",
        "report",
        {**FILTERS, "probability": probability, "where": where},
        report=report,
        probe=report.of(PROBE),
        benchmarks=[s for s in report.sets if s.name != PROBE],
        categories=categories,
        attribution=attribution,
        anchors={row_id: f"failure-{number}" for number, row_id in enumerate(shown, 1)},
        errors=found.errors.most_common(_ERRORS_SHOWN),
        mixed=bool(quotas),
        settings=settings,
        created_at=created_at,
    )
    out.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted over the probe's rows."""

    answers: dict[str, Counter[tuple[str, str | None]]]
    """By category: how often each answer was given where each was expected."""
    errors: Counter[str]
    """Why the server gave no answer."""

    @classmethod
    def read(cls, path: Path) -> "Counts":
        """Count over items.parquet, batch by batch."""
        answers: dict[str, Counter[tuple[str, str | None]]] = {}
        errors = Counter[str]()
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            wanted = [c for c in ("set", "category", "correct", "expected", "claim", "error") if c in known]
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    if row["set"] != PROBE:
                        continue
                    if row["correct"] is None:
                        errors[readable(row["error"] or "no reason given", 200)] += 1
                    elif row.get("expected") is not None:
                        right, claim = readable(row["expected"], 200), readable(row["claim"] or "", 200)
                        # equal texts may yet be graded wrong, by a judge for one: that is no right answer
                        said = claim if claim != right else f"{claim} (graded wrong)"
                        answers.setdefault(row["category"], Counter())[right, right if row["correct"] else said] += 1
        return cls(answers, errors)


def _weakest_first(category: CategoryReport) -> tuple[bool, float, str]:
    return (category.n == 0, category.accuracy.value, category.name)


def short(text: str) -> str:
    """A name for people: names are data too, and may be endless."""
    return readable(text, _NAME)


def percent(share: float) -> str:
    """A share for people: 73.4%."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A difference of shares, in percentage points, with a real minus sign."""
    return f"{100 * difference:+.0f}".replace("-", "−")


def probability(value: float) -> str:
    """A p- or q-value for people."""
    if value < 1e-6:
        return "< 10⁻⁶"
    return f"{value:.1g}" if value < 0.001 else f"{value:.3f}"


def where(found: Slice) -> str:
    """The slice in words, for those who hear the page."""
    facets = " and ".join(f"{key} {value}" for key, value in found.facets.items())
    return " with ".join(part for part in (found.category or "all categories", facets) if part)


FILTERS: dict[str, Callable[..., str]] = {"percent": percent, "points": points, "readable": readable, "short": short}
"""What the templates of all pages may use."""
