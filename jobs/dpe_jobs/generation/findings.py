"""What a diagnosis tells generation: quotas, weaknesses in words, and the failures behind them."""

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from dpe_api.artifacts import CategoryReport, DiagnosisReport, Quota
from dpe_jobs.diagnosis.items import ITEMS
from dpe_jobs.diagnosis.mixture import MIXTURE
from dpe_jobs.diagnosis.report import REPORT
from dpe_jobs.diagnosis.sample import PROBE
from dpe_jobs.questions import read_facets
from dpe_jobs.store import Store, join

_QUOTAS = TypeAdapter(list[Quota])
_MOST_FAILURES = 1000  # kept per category: examples, not a census
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Findings:
    """The part of a diagnosis that generation works from."""

    quotas: list[Quota]
    weaknesses: Mapping[str, str]
    """By category."""
    failures: Mapping[str, list[tuple[str, Mapping[str, str]]]]
    """By category: id and facets of probe questions that the model answered wrongly."""

    def examples(self, category: str, knobs: Mapping[str, str]) -> list[str]:
        """Ids of the failures most like what a target shows; fewer than three when there are no more."""

        def unlike(failure: tuple[str, Mapping[str, str]]) -> tuple[int, str]:
            return -len(knobs.items() & failure[1].items()), failure[0]

        return [name for name, _ in sorted(self.failures.get(category, ()), key=unlike)[:_EXAMPLES]]


def weakness(category: CategoryReport) -> str:
    """What the diagnosis measured, in one line."""
    accuracy, rate = category.accuracy, category.pass_rate
    text = f"accuracy {accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}] on {category.n} probe questions"
    return text if rate is None else f"{text}, pass rate {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def read_findings(store: Store, artifact: str) -> Findings:
    """The findings of a published diagnosis; NotFound when it is not there."""
    report = DiagnosisReport.model_validate(store.get_json(join(artifact, REPORT)))
    failures: dict[str, list[tuple[str, Mapping[str, str]]]] = defaultdict(list)
    columns = ["set", "id", "category", "correct", "facets"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        store.download(join(artifact, ITEMS), path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    known = failures[row["category"]]
                    if row["set"] == PROBE and row["correct"] is False and len(known) < _MOST_FAILURES:
                        known.append((row["id"], read_facets(row["facets"])))
    return Findings(
        quotas=_QUOTAS.validate_json(store.get(join(artifact, MIXTURE))),
        weaknesses={category.name: weakness(category) for category in report.of(PROBE).categories},
        failures=dict(failures),
    )
