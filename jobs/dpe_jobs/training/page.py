"""`training.html`: the curves of a run. One file that needs nothing else: no script, no request."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dpe_api.artifacts import TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_jobs.training import curves
from dpe_jobs.training.metrics import StepMetrics

PAGE = "training.html"


def write(
    rows: Sequence[StepMetrics], summary: TrainingSummary, launch: TrainingLaunch, out: Path, created_at: datetime
) -> None:
    """Write the page of a run that has at least one step."""
    environment = Environment(
        loader=PackageLoader("dpe_jobs.training", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = _css()
    best = max(rows, key=lambda row: row.reward)
    text = environment.get_template("training.html.jinja").render(
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
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )
    out.write_text(text, encoding="utf-8")


def _css() -> str:
    """The look of the reports, and what is only here."""
    sheets = (("dpe_jobs.diagnosis", "report.css"), ("dpe_jobs.training", "training.css"))
    return "".join(files(where).joinpath("templates", name).read_text(encoding="utf-8") for where, name in sheets)
