"""What a diagnosis tells generation: quotas, weak slices, weaknesses in words, and the failures behind them."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from dpe_api.artifacts import AttributionReport, CategoryReport, DiagnosisReport, Quota, Slice, Weakness
from dpe_jobs.diagnosis.by_rules import slice_text
from dpe_jobs.diagnosis.items import ITEMS
from dpe_jobs.diagnosis.mixture import MIXTURE
from dpe_jobs.diagnosis.report import REPORT
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.generation.roles import Aim
from dpe_jobs.outputs import download_output, read_output
from dpe_jobs.questions import read_facets
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

_QUOTAS = TypeAdapter(list[Quota])
_MOST_FAILURES = 1000  # kept per category: examples, not a census
_EXAMPLES = 3

Failure = tuple[str, Mapping[str, str]]
"""Id and facets of a probe question that the model answered wrongly."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The part of a diagnosis that generation works from."""

    quotas: list[Quota]
    measured: Mapping[str, str]
    """By category: accuracy and pass rate, in words."""
    failures: Mapping[str, Sequence[Failure]]
    """By category."""
    attribution: AttributionReport = field(default_factory=AttributionReport)

    def slices(self, category: str) -> tuple[Slice, ...]:
        """Weak slices with facets that rows of this category can lie in, most certain first."""
        return tuple(s for s in self.attribution.slices if s.facets and s.category in (None, category))

    def examples(self, category: str, knobs: Mapping[str, str], within: Mapping[str, str] | None = None) -> list[str]:
        """Ids of the failures most like what a target shows, `within` a slice; three, if there are so many."""

        def unlike(failure: Failure) -> tuple[int, str]:
            return -len(knobs.items() & failure[1].items()), failure[0]

        known = [f for f in self.failures.get(category, ()) if (within or {}).items() <= f[1].items()]
        return [name for name, _ in sorted(known, key=unlike)[:_EXAMPLES]]

    def aim_at(self, weak: Slice, category: str, knobs: Mapping[str, str]) -> Aim:
        """At a weak slice."""
        text = f"{self._measured(category)}; {slice_text(weak)}"
        return Aim(text, weak.facets, tuple(self.examples(category, knobs, weak.facets)))

    def aim(self, category: str, number: int, knobs: Mapping[str, str]) -> Aim:
        """At one of the category's weaknesses, by `number`, each as often as it was seen among the wrong answers."""
        known: list[Weakness] = [w for w in self.attribution.weaknesses if w.category == category]
        near = self.examples(category, knobs)
        if not known:
            return Aim(self._measured(category), {}, tuple(near))
        draw = random.Random(derive(0, "aim", category, number))
        (chosen,) = draw.choices(known, [max(w.count, 1) for w in known])
        return Aim(f"{self._measured(category)}; {chosen.text}", {}, tuple([*chosen.examples, *near][:_EXAMPLES]))

    def _measured(self, category: str) -> str:
        return self.measured.get(category, "never asked")


def measured(category: CategoryReport) -> str:
    """What the diagnosis measured, in one line."""
    accuracy, rate = category.accuracy, category.pass_rate
    text = f"accuracy {accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}] on {category.n} probe questions"
    return text if rate is None else f"{text}, pass rate {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def read_findings(store: Store, artifact: str) -> Findings:
    """The findings of a published diagnosis; NotFound when it is not there, ChecksumMismatch when it was changed."""
    report = DiagnosisReport.model_validate_json(read_output(store, artifact, REPORT))
    failures: dict[str, list[Failure]] = defaultdict(list)
    columns = ["set", "id", "category", "correct", "facets"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        download_output(store, artifact, ITEMS, path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    known = failures[row["category"]]
                    if row["set"] == PROBE and row["correct"] is False and len(known) < _MOST_FAILURES:
                        known.append((row["id"], read_facets(row["facets"])))
    return Findings(
        quotas=_QUOTAS.validate_json(read_output(store, artifact, MIXTURE)),
        measured={category.name: measured(category) for category in report.of(PROBE).categories},
        failures=dict(failures),
        attribution=report.attribution or AttributionReport(),
    )
