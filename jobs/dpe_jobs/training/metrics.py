"""What a step tells: TRL's log turned into one row of metrics.jsonl, gauges, and the summary."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import Field

from dpe_api.artifacts import Tokens, TrainingSummary
from dpe_api.base import ApiModel
from dpe_jobs.training.pod import Result


class StepMetrics(ApiModel):
    """One optimizer step, averaged over all ranks. Absent: not measured in this setting."""

    step: int
    loss: float
    reward: float
    """Mean over the step's completions: the weighted sum of its parts."""
    answer: float | None = None
    """Share of completions with a right answer."""
    reward_parts: dict[str, float] = Field(default_factory=dict)
    """Mean of each part of the reward, before its weight, by the part's name."""
    reward_std: float | None = None
    """Standard deviation over all completions of the step."""
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
    """0 where a step learns from the rollouts of the step before (numIterations)."""
    total_tokens: int
    """Prompt and completion tokens of all steps so far."""
    tokens_per_second: float | None = None
    """Prompt and completion tokens of this step, over all ranks, by its duration."""
    host_memory_bytes: int | None = None
    """Most that the pod's first rank has held so far."""
    gpu_memory_bytes: int | None = None
    """Most that torch has allocated on the GPU of the pod's first rank so far."""
    seconds: float


_OF_ROLLOUTS = (
    "reward",
    "answer",
    "reward_std",
    "zero_std_share",
    "completion_length",
    "cut_share",
    "sampling_logp_difference",
    "total_tokens",
)
# our name -> TRL's
_TRL = {
    "loss": "loss",
    "reward": "reward",
    "answer": "rewards/answer/mean",
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


_LIVE = (
    "step",
    "loss",
    "reward",
    "answer",
    "entropy",
    "kl",
    "gradNorm",
    "tokensPerSecond",
    "hostMemoryBytes",
    "gpuMemoryBytes",
)
_PART = re.compile(r"rewards/(.+)/mean")


@dataclass(frozen=True, slots=True)
class Memory:
    """What the process holds, in bytes."""

    host: int
    gpu: int | None = None


def from_trl(
    logs: Mapping[str, float],
    step: int,
    completions: int,
    seconds: float,
    before: StepMetrics | None = None,
    memory: Memory | None = None,
) -> StepMetrics:
    """The row of one step from what TRL logs; `completions` is their number in the step, over all ranks.

    `before` is the step before: a step on the same rollouts (numIterations) takes what is told of them from there.
    """
    found = {ours: logs[theirs] for ours, theirs in _TRL.items() if logs.get(theirs) is not None}
    parts = {m[1]: v for name, v in logs.items() if (m := _PART.fullmatch(name)) and v is not None}
    sampled = "reward" in found
    if not sampled and before is not None:
        found = {**{name: value for name in _OF_ROLLOUTS if (value := getattr(before, name)) is not None}, **found}
        parts = dict(before.reward_parts)
    earlier = 0 if before is None else before.total_tokens
    total = int(found["total_tokens"])
    return StepMetrics.model_validate(
        {
            **found,
            "reward_parts": parts,
            "total_tokens": total,
            "step": step,
            "completion_tokens": round(found["completion_length"] * completions) if sampled else 0,
            "tokens_per_second": round((total - earlier) / seconds, 1) if total > earlier and seconds > 0 else None,
            "host_memory_bytes": None if memory is None else memory.host,
            "gpu_memory_bytes": None if memory is None else memory.gpu,
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
        parts = GaugeMetricFamily("dpe_training_reward_part", "mean of a part of the reward", labels=["part"])
        for part, value in row.reward_parts.items():
            parts.add_metric([part], value)
        yield parts
        for name, value in row.model_dump(exclude_none=True, exclude={"reward_parts"}).items():
            name = {"seconds": "seconds_per_step"}.get(name, name)
            yield GaugeMetricFamily(f"dpe_training_{name}", f"{name.replace('_', ' ')} of the newest step", value)


def live(row: StepMetrics) -> dict[str, float]:
    """What progress.json tells of the newest step, by the names of metrics.jsonl."""
    wire = row.wire()
    return {name: value for name in _LIVE if isinstance(value := wire.get(name), int | float)}


def summarise(rows: list[StepMetrics], resumed_from_step: int | None, result: Result) -> TrainingSummary:
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
        world_size=result.world_size,
        first_reward=mean([r.reward for r in rows[:fifth]]),
        last_reward=mean([r.reward for r in rows[-fifth:]]),
        seconds_per_step=mean([r.seconds for r in rows]),
        peak_rss_bytes=result.peak_rss_bytes,
        ended_early=result.ended_early,
        merged_share=result.merged_share,
        tokens=Tokens(prompt=max(rows[-1].total_tokens - completion, 0), completion=completion),
    )
