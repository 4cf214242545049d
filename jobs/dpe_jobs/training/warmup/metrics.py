"""What a step of the warm-up tells: a line of warmup.jsonl, gauges, and the summary."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dpe_api.artifacts import WarmupSummary
from dpe_api.base import ApiModel
from dpe_api.training_spec import Warmup
from dpe_jobs.training.warmup.lessons import Lessons, retention_in_batch

METRICS = "warmup.jsonl"


class WarmupStep(ApiModel):
    """One optimizer step, averaged over all ranks."""

    step: int
    loss: float
    """Nats per token of the answers."""
    grad_norm: float | None = None
    token_accuracy: float | None = None
    """Share of the answers' tokens that were the likeliest."""
    seconds: float


def append(path: Path, row: WarmupStep) -> None:
    """Add a line."""
    with path.open("a") as out:
        out.write(json.dumps(row.wire()) + "\n")


def read(path: Path) -> list[WarmupStep]:
    """All whole lines; a last one without a line break is still being written."""
    if not path.exists():
        return []
    text = path.read_text()
    return [WarmupStep.model_validate_json(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def summarise(rows: list[WarmupStep], lessons: Lessons, warmup: Warmup) -> WarmupSummary:
    """Summary of a finished warm-up; ValueError without a step."""
    if not rows:
        raise ValueError("no step of the warm-up was recorded")
    fifth = max(1, len(rows) // 5)
    drawn = retention_in_batch(lessons, warmup) * warmup.max_steps
    return WarmupSummary(
        steps=rows[-1].step,
        samples=lessons.categories,
        retention=min(len(lessons.retention), drawn),
        first_loss=round(sum(r.loss for r in rows[:fifth]) / fifth, 6),
        last_loss=round(sum(r.loss for r in rows[-fifth:]) / fifth, 6),
        seconds=round(sum(r.seconds for r in rows), 3),
    )


class WarmupCollector(Collector):
    """Gauges `dpe_training_warmup_*` of the newest step, read from warmup.jsonl when scraped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def describe(self) -> Iterable[Metric]:
        """Nothing: names depend on what was measured."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The newest row."""
        for row in read(self._path)[-1:]:
            for name, value in row.model_dump(exclude_none=True).items():
                what = f"{name.replace('_', ' ')} of the newest step of the warm-up"
                yield GaugeMetricFamily(f"dpe_training_warmup_{name}", what, value)
