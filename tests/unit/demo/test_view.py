import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from examples.shapes import view
from rich.console import Console, RenderableType

from dpe_api.artifacts import Interval
from dpe_api.status import Status

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
AGO = (NOW - timedelta(seconds=42)).isoformat()


def status(phase: str = "Training", **more: Any) -> Status:
    return Status.model_validate({"phase": phase, **more})


def training(**more: Any) -> dict[str, Any]:
    return {"name": "training", "state": "Running", "attempt": 1, "startTime": AGO, **more}


def finished(phase: str = "Succeeded", **more: Any) -> Status:
    return status(
        phase,
        artifacts="s3://dpe/dpe/shapes-1-12345678",
        diagnosis={
            "overall": {"value": 0.6, "low": 0.5, "high": 0.7},
            "categories": [
                _diagnosed("color", 1.0, 40),
                _diagnosed("negation", 0.1, 4, reachable=False),
                _diagnosed("color_fine", 0.28, 148),
            ],
        },
        samples={"candidates": 500, "kept": 190, "shortfall": 2, "keptByCategory": {"color": 40, "color_fine": 148}},
        evaluation=[
            {
                "name": "test",
                "n": 900,
                "before": 0.46,
                "after": 0.63,
                "delta": {"value": 0.17, "low": 0.15, "high": 0.19},
                "categories": [
                    _changed("color", 1.0, 0.98),
                    _changed("color_fine", 0.28, 0.79),
                    _changed("negation", 0.1, 0.12),
                ],
            }
        ],
        model={"uri": "s3://dpe/dpe/shapes-1-12345678/training/model", "accepted": True},
        **more,
    )


def _diagnosed(name: str, accuracy: float, quota: int, reachable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "n": 34,
        "errors": 0,
        "accuracy": accuracy,
        "low": 0.0,
        "high": 1.0,
        "weight": quota / 192,
        "quota": quota,
        "reachable": reachable,
    }


def _changed(name: str, before: float, after: float) -> dict[str, Any]:
    delta = {"value": after - before, "low": after - before - 0.05, "high": after - before + 0.05}
    return {"name": name, "n": 300, "before": before, "after": after, "delta": delta}


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3780, "1 h 03 min")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


def test_a_running_stage_shows_time_rate_remaining_time_and_how_long_it_took_last() -> None:
    progress = {"done": 4, "total": 16, "unit": "steps", "rate": 0.8, "etaSeconds": 15}
    stage = status(stages=[training(progress=progress)]).stages[0]
    assert view.stage_note(stage, NOW, 38.0) == "42 s, 0.8 steps/s, 15 s left, last time 38 s"


def test_a_stage_between_attempts_says_when_it_goes_on_and_why_it_stopped() -> None:
    again = (NOW + timedelta(seconds=20)).isoformat()
    stage = status(
        stages=[training(state="Backoff", attempt=2, nextAttemptTime=again, message="pod x: out of memory")]
    ).stages[0]
    assert view.stage_note(stage, NOW, None) == "42 s, attempt 2, again in 20 s, pod x: out of memory"


def test_the_live_view_lists_every_stage_in_order_and_the_newest_event() -> None:
    event = view.ObjectEvent("1", False, "StageStarted", "training: attempt 1")
    progress = {"done": 4, "total": 16, "unit": "steps"}
    text = shown(view.live("shapes-1", status(stages=[training(progress=progress)]), NOW, {}, event, None))
    places = [text.index(name) for name in ("serve-base", "diagnosis", "generation", "training", "evaluation")]
    assert places == sorted(places)
    assert "4/16 steps" in text
    assert "StageStarted: training: attempt 1" in text


def test_an_iteration_that_is_not_accepted_says_what_to_mend() -> None:
    condition = {
        "type": "Accepted",
        "status": "False",
        "reason": "UnknownPool",
        "message": "spec.training.pool is 'gpu'",
        "lastTransitionTime": AGO,
    }
    text = view.headline("shapes-1", status("Pending", conditions=[condition]))
    assert text == "shapes-1: Pending - UnknownPool: spec.training.pool is 'gpu'"


def test_a_log_gets_a_line_for_each_change_and_none_without_one() -> None:
    before = status("Generating", stages=[{"name": "generation", "state": "Running", "attempt": 1}])
    after = status("Training", stages=[{"name": "generation", "state": "Done", "attempt": 1}, training()])
    assert view.changes(before, after, NOW, {"training": 30.0}) == [
        "Training",
        "generation: Done",
        "training: Running (42 s, last time 30 s)",
    ]
    assert view.changes(after, after, NOW, {}) == []


def test_the_table_has_the_weakest_category_first_and_says_what_is_out_of_reach() -> None:
    rows = view.category_rows(finished())
    assert [row.name for row in rows] == ["negation", "color_fine", "color"]
    assert [row.quota for row in rows] == [4, 148, 40]
    assert [row.kept for row in rows] == [0, 148, 40]
    text = shown(view.result_table(finished()))
    assert "negation (out of reach)" in text
    assert "+51.0 [+46.0, +56.0]" in text
    macro = next(line for line in text.splitlines() if "macro" in line)
    assert [w for w in macro.split() if w in {"900", "46.0", "63.0", "192", "190"}] == [
        "900",
        "46.0",
        "63.0",
        "192",
        "190",
    ]


def test_the_table_of_an_unfinished_iteration_shows_the_diagnosis_alone() -> None:
    half = finished().model_copy(update={"evaluation": [], "samples": None})
    rows = view.category_rows(half)
    assert [(row.name, row.after, row.kept) for row in rows] == [
        ("negation", None, None),
        ("color_fine", None, None),
        ("color", None, None),
    ]
    assert "Diagnosis" in shown(view.result_table(half))


def test_a_failure_names_stage_attempt_reason_and_the_pods_own_words() -> None:
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "MissingColumns",
        "message": "m",
        "lastTransitionTime": AGO,
    }
    failed = status(
        "Failed", stages=[training(state="Failed", message="pod p: no column answer")], conditions=[condition]
    )
    assert view.verdict("shapes-1", failed) == (
        "shapes-1 failed in stage training, attempt 1 (MissingColumns): pod p: no column answer"
    )
    first = view.where_next("shapes-1", "dpe", failed, None)[0]
    assert first.startswith("kubectl -n dpe logs -l dpe.dev/iteration=shapes-1,dpe.dev/stage=training")


def test_where_to_look_next_has_the_address_of_the_artifacts_and_of_the_model() -> None:
    lines = "\n".join(view.where_next("shapes-1", "dpe", finished(), "http://10.0.0.1:9000"))
    assert "s3://dpe/dpe/shapes-1-12345678/ at http://10.0.0.1:9000" in lines
    assert "s3://dpe/dpe/shapes-1-12345678/training/model" in lines
    assert "make verify NAME=shapes-1" in lines


def test_a_dash_stands_for_what_is_not_known() -> None:
    assert view.percent(None) == "–"
    assert view.points(None) == "–"
    assert view.points(Interval(value=-0.01, low=-0.02, high=0.0)) == "-1.0 [-2.0, +0.0]"
