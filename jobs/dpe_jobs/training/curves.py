"""Curves of a run, as points for SVG. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpe_jobs.training.metrics import StepMetrics

WIDTH, HEIGHT = 330, 150  # of the plot, in SVG units
POINTS = 300  # most points of a line: a longer run is averaged over stretches of steps
_SMOOTHED_FROM = 12  # steps; of fewer there is nothing to smooth
_TICKS = 4
_AS_IT_IS = ("learning_rate", "memory")  # lines without noise, which a mean would only delay


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, and its points as an SVG path. `soft`: each step, behind a running mean."""

    name: str
    path: str
    last: float
    soft: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One diagram over the steps."""

    name: str
    title: str
    unit: str
    lines: Sequence[Line]
    ticks: Sequence[tuple[float, str]]
    """Height from the top, and label."""
    steps: Sequence[tuple[float, str]]
    """Distance from the left, and label."""


Value = Callable[[StepMetrics], float | None]
Points = list[tuple[int, float]]


def _points(rows: Sequence[StepMetrics], value: Value) -> Points:
    """(step, value) where it was measured, averaged over stretches when there are too many."""
    found = [(row.step, v) for row in rows if (v := value(row)) is not None and math.isfinite(v)]
    size = math.ceil(len(found) / POINTS) or 1
    stretches = [found[i : i + size] for i in range(0, len(found), size)]
    return [(s[-1][0], sum(v for _, v in s) / len(s)) for s in stretches]


def _smoothed(points: Points) -> Points:
    """Mean over a tenth of the run that ends at each point."""
    size = max(2, len(points) // 10)
    parts = [points[max(0, i - size + 1) : i + 1] for i in range(len(points))]
    return [(part[-1][0], sum(v for _, v in part) / len(part)) for part in parts]


def label(value: float) -> str:
    """A number for people: four digits, and large or small ones with their power of ten."""
    if value == 0:
        return "0"
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{sign}"
    if abs(value) < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.4g}"


def scale(low: float, high: float) -> list[float]:
    """Round numbers that span the values, from the lowest to the highest tick."""
    if high - low < 1e-12:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    ticks = [first * step]
    while ticks[-1] < high - 1e-9 * step:
        ticks.append((first + len(ticks)) * step)
    return ticks


def chart(name: str, title: str, unit: str, rows: Sequence[StepMetrics], values: dict[str, Value]) -> Chart | None:
    """The diagram of some values over the run; None when none of them was measured."""
    found = {line: points for line, value in values.items() if (points := _points(rows, value))}
    if not found:
        return None
    every = [v for points in found.values() for _, v in points]
    ticks = scale(min(every), max(every))
    first, last = rows[0].step, rows[-1].step

    def across(step: float) -> float:
        return round(WIDTH * (step - first) / max(last - first, 1), 1)

    def down(value: float) -> float:
        return round(HEIGHT * (ticks[-1] - value) / (ticks[-1] - ticks[0]), 1)

    def path(points: Points) -> str:
        if len(points) == 1:  # a line from a point to itself is drawn as a dot
            points = points * 2
        return "M" + "L".join(f"{across(s)} {down(v)}" for s, v in points)

    lines = []
    for line, points in found.items():
        smooth = len(points) >= _SMOOTHED_FROM and len(found) == 1 and name not in _AS_IT_IS
        lines.append(
            Line(line, path(_smoothed(points) if smooth else points), points[-1][1], path(points) if smooth else "")
        )
    middle = [(across(s), str(s)) for s in {first, (first + last) // 2, last}]
    return Chart(name, title, unit, lines, [(down(t), label(t)) for t in ticks], sorted(middle))


def charts(rows: Sequence[StepMetrics]) -> list[Chart]:
    """All diagrams of a run that has at least one step, most telling first."""
    parts = sorted({part for row in rows for part in row.reward_parts})

    def part(name: str) -> Value:
        return lambda row: row.reward_parts.get(name)

    wanted: list[tuple[str, str, str, dict[str, Value]]] = [
        ("reward", "Reward", "mean of a step", {"reward": lambda r: r.reward}),
        ("parts", "Parts of the reward", "before their weights", {p: part(p) for p in parts} if len(parts) > 1 else {}),
        ("loss", "Loss", "", {"loss": lambda r: r.loss}),
        ("entropy", "Entropy", "nats per token", {"entropy": lambda r: r.entropy}),
        ("kl", "KL to the base", "nats per token", {"kl": lambda r: r.kl}),
        (
            "groups",
            "Groups with equal rewards",
            "share; they give no gradient",
            {"equal": lambda r: r.zero_std_share},
        ),
        ("grad_norm", "Gradient norm", "before clipping", {"norm": lambda r: r.grad_norm}),
        ("length", "Completion length", "tokens, mean", {"length": lambda r: r.completion_length}),
        ("cut", "Completions cut off", "share", {"cut": lambda r: r.cut_share}),
        ("mismatch", "Rollouts against trainer", "nats per token", {"gap": lambda r: r.sampling_logp_difference}),
        ("learning_rate", "Learning rate", "", {"rate": lambda r: r.learning_rate}),
        ("speed", "Speed", "tokens per second", {"speed": lambda r: r.tokens_per_second}),
        ("seconds", "Duration of a step", "seconds", {"duration": lambda r: r.seconds}),
        (
            "memory",
            "Memory of the first rank",
            "GiB, most so far",
            {
                "host": lambda r: None if r.host_memory_bytes is None else r.host_memory_bytes / 2**30,
                "GPU": lambda r: None if r.gpu_memory_bytes is None else r.gpu_memory_bytes / 2**30,
            },
        ),
    ]
    return [found for name, title, unit, values in wanted if (found := chart(name, title, unit, rows, values))]
