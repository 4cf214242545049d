"""`training.html`: the curves of a run."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dpe_api.artifacts import TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_jobs import pages
from dpe_jobs.training import curves
from dpe_jobs.training.metrics import StepMetrics

PAGE = "training.html"


def write(
    rows: Sequence[StepMetrics], summary: TrainingSummary, launch: TrainingLaunch, out: Path, created_at: datetime
) -> None:
    """Write the page of a run that has at least one step."""
    best = max(rows, key=lambda row: row.reward)
    text = pages.render(
        "dpe_jobs.training",
        "training",
        {},
        launch=launch,
        training=launch.training,
        summary=summary,
        charts=curves.charts(rows),
        best=best,
        hours=sum(row.seconds for row in rows) / 3600,
        width=curves.WIDTH,
        height=curves.HEIGHT,
        label=curves.label,
        created_at=created_at,
    )
    out.write_text(text, encoding="utf-8")
