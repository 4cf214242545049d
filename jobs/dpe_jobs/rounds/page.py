"""`run.html`: accuracy over the rounds, in the manner of `report.html`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dpe_jobs import pages
from dpe_jobs.diagnosis.page import FILTERS
from dpe_jobs.rounds.read import RoundFound
from dpe_jobs.rounds.series import Series, by_category, comparable, macro

PAGE = "run.html"


@dataclass(frozen=True, slots=True)
class Chart:
    """Where a series is drawn. Pixels; y grows downwards, accuracy 0 at the bottom, 1 at the top."""

    width: float
    height: float
    left: float
    """Room for the scale."""
    right: float = 12
    top: float = 10
    bottom: float = 22
    rounds: int = 1

    def x(self, number: int) -> float:
        """Of a round."""
        return self.left + (self.width - self.left - self.right) * number / max(self.rounds, 1)

    def y(self, share: float) -> float:
        """Of an accuracy."""
        return self.top + (self.height - self.top - self.bottom) * (1 - share)

    def line(self, series: Series) -> str:
        """Path through the models that stood; a rejected round goes on level."""
        steps, last = [], None
        for point in series.points:
            if point.accepted:
                last = point.accuracy.value
            if last is not None:
                steps.append(f"{self.x(point.round):.1f} {self.y(last):.1f}")
        return "M" + "L".join(steps) if steps else ""

    @property
    def labelled(self) -> list[int]:
        """Rounds that are named below the axis: all, or so many that they do not touch."""
        step = -(-(self.rounds + 1) // max(2, int((self.width - self.left) // 34)))
        return list(range(0, self.rounds + 1, step))


def write(rounds: Sequence[RoundFound], out: Path, *, created_at: datetime) -> None:
    """Write the page of at least one round, oldest first. ValueError without any."""
    if not rounds:
        raise ValueError("no round to show")
    given, rounds = len(rounds), comparable(rounds)
    whole, count = macro(rounds), len(rounds)
    text = pages.render(
        "dpe_jobs.rounds",
        "run",
        FILTERS,
        rounds=rounds,
        macro=whole,
        categories=by_category(rounds),
        headline=rounds[-1].headline,
        large=Chart(760, 280, 44, rounds=count),
        small=Chart(250, 130, 34, rounds=count),
        left_out=given - count,
        confidence=rounds[-1].evaluation.report.confidence,
        created_at=created_at,
    )
    out.write_text(text, encoding="utf-8")
