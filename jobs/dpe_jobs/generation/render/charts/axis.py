"""Round numbers for an axis, and boxes that must not touch."""

import math
from collections.abc import Iterable

from dpe_jobs.generation.render.scene import Box

_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = 5  # about so many


def ticks(low: float, high: float, from_zero: bool) -> list[float]:
    """Evenly spaced round numbers, the first not above `low` and the last not below `high`."""
    low = min(0.0, low) if from_zero else low
    rough = (high - low or abs(high) or 1.0) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(s for s in _STEPS if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def label(value: float) -> str:
    """A tick's label: 35,000 or 0.25."""
    text = f"{value:,.10f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def touches(box: Box, others: Iterable[Box], gap: float = 1.0) -> bool:
    """Whether a box comes nearer to one of the others than `gap` pixels."""
    return any(
        box[0] < o[2] + gap and o[0] < box[2] + gap and box[1] < o[3] + gap and o[1] < box[3] + gap for o in others
    )
