"""training.html: what it shows, and that it asks for nothing."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.training.test_ends import launch
from tests.unit.training.test_metrics import row

from dpe_jobs.training import curves, page
from dpe_jobs.training.curves import HEIGHT, POINTS, WIDTH, label, scale
from dpe_jobs.training.metrics import StepMetrics, summarise
from dpe_jobs.training.pod import Result

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def written(folder: Path, rows: list[StepMetrics], early: str | None = None) -> str:
    out = folder / page.PAGE
    page.write(rows, summarise(rows, None, Result(2, 7, early, 0.0)), launch(), out, AT)
    return out.read_text()


def shown(text: str) -> set[str]:
    return set(re.findall(r'data-chart="(\w+)"', text))


def test_what_was_measured_has_a_diagram_and_nothing_else_has(tmp_path: Path) -> None:
    rows = [row(step, reward=step / 30) for step in range(1, 21)]
    assert shown(written(tmp_path, rows)) == {"reward", "loss", "length", "seconds"}
    more = [r.model_copy(update={"kl": 0.1, "reward_parts": {"answer": 0.5, "format": 1.0}}) for r in rows]
    assert shown(written(tmp_path, more)) == {"reward", "parts", "loss", "kl", "length", "seconds"}


def test_the_headline_is_that_of_the_summary_and_one_step_is_enough(tmp_path: Path) -> None:
    text = written(tmp_path, [row(1, reward=0.25)])
    assert 'data-reward="0.25"' in text
    assert 'data-steps="1"' in text


def test_a_run_that_ended_early_says_why(tmp_path: Path) -> None:
    rows = [row(step) for step in range(1, 5)]
    assert "ended early" not in written(tmp_path, rows)
    assert "AllRight" in written(tmp_path, rows, "AllRight")


def test_the_page_runs_nothing_and_loads_nothing(tmp_path: Path) -> None:
    hostile = [row(1).model_copy(update={"reward_parts": {"<script>x</script>": 1.0, "answer": 0.0}})]
    text = written(tmp_path, hostile)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert "url(" not in text


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_a_scale_spans_its_values_with_a_few_round_ticks(low: float, width: float) -> None:
    ticks = scale(low, low + width)
    slack = 1e-6 * (ticks[1] - ticks[0])
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack
    assert 2 <= len(ticks) <= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.8125, "0.8125"), (1e-6, "1e-6"), (2.5e-5, "2.5e-5"), (4012.3, "4.012k"), (-0.5, "-0.5")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert label(value) == text


def test_a_long_run_keeps_its_shape_with_a_bounded_number_of_points() -> None:
    rows = [row(step, reward=step / 10_000) for step in range(1, 10_001)]
    (reward, *_) = curves.charts(rows)
    points = [tuple(map(float, p.split())) for p in reward.lines[0].soft[1:].split("L")]
    assert len(points) <= POINTS
    assert points == sorted(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[-1][1] < points[0][1], "what rises goes up"
