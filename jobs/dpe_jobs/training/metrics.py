"""What a step tells: TRL's log turned into one row of metrics.jsonl, gauges, and the summary."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dpe_api.artifacts import Tokens, TrainingSummary
from dpe_api.base import ApiModel


class StepMetrics(ApiModel):
    """One optimizer step, averaged over all ranks. Absent: not measured in this setting."""

    step: int
    loss: float
    reward: float
    """Mean over the step's completions."""
    reward_std: float | None = None
    """Mean over the groups of the standard deviation inside a group."""
    zero_std_share: float | None = None
    """Share of groups whose rewards are all equal: they give no gradient."""
    entropy: float | None = None
    """Nats per token."""
    kl: float | None = None
    """Against the base model; only with a KL penalty."""
    grad_norm: float | None = None
    learning_rate: float | None = None
    completion_length: float
    """Tokens, mean."""
    cut_share: float | None = None
    """Share of completions that reached maxCompletionLength."""
    sampling_logp_difference: float | None = None
    """Nats per token between the rollout engine and the trainer; only with vllm."""
    completion_tokens: int
    total_tokens: int
    """Prompt and completion tokens of all steps so far."""
    seconds: float


# our name -> TRL's
_TRL = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "zero_std_share": "frac_reward_zero_std",
    "entropy": "entropy",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "completion_length": "completions/mean_length",
    "cut_share": "completions/clipped_ratio",
    "sampling_logp_difference": "sampling/sampling_logp_difference/mean",
    "total_tokens": "num_tokens",
}


def from_trl(logs: dict[str, float], step: int, completions: int, seconds: float) -> StepMetrics:
    """The row of one step from what TRL logs; `completions` is their number in the step, over all ranks."""
    found = {ours: logs[theirs] for ours, theirs in _TRL.items() if logs.get(theirs) is not None}
    return StepMetrics.model_validate(
        {
            **found,
            "total_tokens": int(found["total_tokens"]),
            "step": step,
            "completion_tokens": round(found["completion_length"] * completions),
            "seconds": round(seconds, 4),
        }
    )


def append_row(path: Path, row: StepMetrics) -> None:
    """Add a line."""
    with path.open("a") as out:
        out.write(json.dumps(row.wire()) + "\n")


def read_rows(path: Path) -> list[StepMetrics]:
    """All whole lines; a last one without a line break is still being written."""
    if not path.exists():
        return []
    text = path.read_text()
    return [StepMetrics.model_validate_json(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def last_row(path: Path) -> StepMetrics | None:
    """The newest step, or None before the first. Reads the end of the file only."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    return StepMetrics.model_validate_json(lines[-1]) if lines else None


class StepCollector(Collector):
    """Gauges `dpe_training_*` of the newest step, read from metrics.jsonl when scraped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def describe(self) -> Iterable[Metric]:
        """Nothing: names depend on what was measured."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The newest row."""
        row = last_row(self._path)
        if row is None:
            return
        for name, value in row.model_dump(exclude_none=True).items():
            name = {"seconds": "seconds_per_step"}.get(name, name)
            yield GaugeMetricFamily(f"dpe_training_{name}", f"{name.replace('_', ' ')} of the newest step", value)


def summarise(
    rows: list[StepMetrics], resumed_from_step: int | None, world_size: int, peak_rss_bytes: int
) -> TrainingSummary:
    """Summary of a finished run; ValueError without a step."""
    if not rows:
        raise ValueError("no step was recorded")
    fifth = max(1, len(rows) // 5)
    completion = sum(r.completion_tokens for r in rows)

    def mean(values: list[float]) -> float:
        return round(sum(values) / len(values), 6)

    return TrainingSummary(
        steps=rows[-1].step,
        resumed_from_step=resumed_from_step,
        world_size=world_size,
        first_reward=mean([r.reward for r in rows[:fifth]]),
        last_reward=mean([r.reward for r in rows[-fifth:]]),
        seconds_per_step=mean([r.seconds for r in rows]),
        peak_rss_bytes=peak_rss_bytes,
        tokens=Tokens(prompt=max(rows[-1].total_tokens - completion, 0), completion=completion),
    )
