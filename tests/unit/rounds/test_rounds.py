import re
from dataclasses import replace

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.unit.rounds import chains
from tests.unit.rounds.chains import NOW, interval, publish, root

from dpe_api.artifacts import Manifest, TaskComparison
from dpe_api.names import Exit
from dpe_jobs.rounds import cli, page
from dpe_jobs.rounds.page import Chart
from dpe_jobs.rounds.read import RoundFound, earlier_rounds
from dpe_jobs.rounds.series import by_category, macro, newcombe

FIRST = {"colour": 0.6, "count": 0.9}
SECOND = {"colour": 0.8, "count": 0.7}  # accepted: better on the whole, and count is forgotten
WORSE = {"colour": 0.3, "count": 0.4}  # rejected
LAST = {"colour": 0.9, "count": 0.8}


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    publish(store, 1, FIRST, SECOND)
    publish(store, 2, SECOND, WORSE, accepted=False)
    publish(store, 3, SECOND, LAST)
    return store


@pytest.fixture
def rounds(store) -> list[RoundFound]:
    return earlier_rounds(store, root(3))


def test_the_chain_leads_from_an_evaluation_back_to_the_first_round_through_rejected_ones(rounds):
    assert [(r.name, r.evaluation.accepted) for r in rounds] == [
        ("shapes-1", True),
        ("shapes-2", False),
        ("shapes-3", True),
    ]


def test_the_chain_begins_after_a_round_whose_artifacts_were_removed(store):
    store.delete([f"{root(1)}/generation/manifest.json"])
    assert [r.name for r in earlier_rounds(store, root(3))] == ["shapes-2", "shapes-3"]
    store.delete([f"{root(2)}/evaluation/manifest.json"])
    assert [r.name for r in earlier_rounds(store, root(3))] == ["shapes-3"]


def test_a_set_of_questions_may_have_a_folder_that_is_called_evaluation():
    store = MemoryStore()
    store.publish("s3://dpe/data/evaluation", Manifest(stage="import", created_at=NOW, inputs=[], summary={}))
    for number in (1, 2):
        publish(store, number, FIRST, SECOND, questions="s3://dpe/data/evaluation")
    assert [r.name for r in earlier_rounds(store, root(2))] == ["shapes-1", "shapes-2"]


def test_rounds_that_asked_other_questions_are_left_out_of_the_page_which_says_so(rounds, tmp_path):
    first = rounds[0].evaluation.report
    sets = [s.model_copy(update={"uri": "s3://dpe/data/older"}) for s in first.sets]
    evaluation = rounds[0].evaluation.model_copy(update={"report": first.model_copy(update={"sets": sets})})
    page.write([replace(rounds[0], evaluation=evaluation), *rounds[1:]], tmp_path / "run.html", created_at=NOW)
    text = (tmp_path / "run.html").read_text()
    assert 'data-rounds="2"' in text
    assert "1 earlier round asked another set of questions" in text
    page.write(rounds, tmp_path / "run.html", created_at=NOW)
    assert "another set of questions" not in (tmp_path / "run.html").read_text()


def test_intervals_of_accuracy_are_told_with_their_own_confidence_and_not_the_gates(rounds, tmp_path):
    report = rounds[-1].evaluation.report.model_copy(update={"confidence": 0.9})
    evaluation = rounds[-1].evaluation.model_copy(update={"report": report, "confidence": 0.8})
    page.write([replace(rounds[-1], evaluation=evaluation)], tmp_path / "run.html", created_at=NOW)
    text = (tmp_path / "run.html").read_text()
    assert "with 90% confidence" in text
    assert "80%" not in text


def test_a_category_is_followed_over_the_models_that_stood(rounds):
    colour, count = by_category(rounds)
    assert [(p.round, p.accuracy.value, p.accepted) for p in colour.points] == [
        (0, 0.6, True),
        (1, 0.8, True),
        (2, 0.3, False),
        (3, 0.9, True),
    ]
    assert (colour.forgotten, colour.lost_in) == (0.0, ())
    assert count.forgotten == pytest.approx(0.1)  # .9 stood at first, .8 stands now; the rejected .4 never stood
    assert count.lost_in == (1,)
    assert count.change is not None
    assert count.change.value == pytest.approx(-0.1)
    assert colour.quotas == (50, 50, 50)
    assert colour.kept == (48, 48, 48)


def test_the_macro_average_is_that_of_the_model_that_stands(rounds):
    found = macro(rounds)
    assert found.now.value == pytest.approx(0.85)
    assert [round(p.accuracy.value, 3) for p in found.points] == [0.75, 0.75, 0.35, 0.85]


def test_the_difference_of_two_intervals_is_newcombes():
    # Newcombe 1998, table II, case (a): 56/70 - 48/80, method 10: .0524 to .3339
    first, second = interval(0.6), interval(0.8)
    wilson = {  # Wilson intervals of 48/80 and 56/70
        "before": first.model_copy(update={"value": 48 / 80, "low": 0.4905, "high": 0.7004}),
        "after": second.model_copy(update={"value": 56 / 70, "low": 0.6919, "high": 0.8773}),
    }
    found = newcombe(wilson["before"], wilson["after"])
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=2e-4), pytest.approx(0.3339, abs=2e-4))


def test_the_line_goes_on_level_after_a_rejected_round(rounds):
    heights = re.findall(r"[ML][\d.]+ ([\d.]+)", Chart(400, 200, 40, rounds=3).line(by_category(rounds)[0]))
    assert len(heights) == 4
    assert heights[1] == heights[2]


def test_the_axis_names_no_more_rounds_than_it_has_room_for():
    assert Chart(250, 130, 34, rounds=3).labelled == [0, 1, 2, 3]
    assert len(Chart(250, 130, 34, rounds=99).labelled) <= 8


def test_the_page_holds_the_figures_and_asks_for_nothing(rounds, tmp_path):
    page.write(rounds, tmp_path / "run.html", created_at=NOW)
    text = (tmp_path / "run.html").read_text()
    assert re.findall(r'data-accepted="(\w+)"', text) == ["true", "false", "true"]
    assert re.findall(r'data-category="(\w+)" data-now="([\d.]+)"', text)[1:] == [("colour", "0.9"), ("count", "0.8")]
    assert "lost in round 1" in text
    assert not re.search(r"<script|https?://|src=", text)


def test_public_benchmarks_are_shown_where_a_round_was_asked_some(rounds, tmp_path):
    assert "Public benchmarks" not in written(rounds, tmp_path)
    paired = TaskComparison(task="ai2d", metric="exact_match,none", n=24, before=0.25, after=0.5, gate=True)
    paired = paired.model_copy(update={"delta": interval(0.25), "before_stderr": 0.0903})
    told = TaskComparison(task="mmmu_val", metric="mmmu_acc,none", n=1900, before=0.5, after=0.51)
    last = rounds[-1].evaluation.model_copy(update={"lmms_eval": [paired, told]})
    text = written([*rounds[:-1], replace(rounds[-1], evaluation=last)], tmp_path)
    assert re.findall(r'data-task="(\w+)" data-before="([\d.]+)" data-after="([\d.]+)"', text) == [
        ("ai2d", "0.25", "0.5"),
        ("mmmu_val", "0.5", "0.51"),
    ]
    assert "± 0.09" in text
    assert "1,900" in text
    assert "reported only" in text


def written(rounds, tmp_path) -> str:
    page.write(rounds, tmp_path / "run.html", created_at=NOW)
    return (tmp_path / "run.html").read_text()


def test_names_are_data_and_never_markup(store, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    publish(store, 4, {hostile: 0.5}, {hostile: 0.6})
    page.write(earlier_rounds(store, root(4)), tmp_path / "run.html", created_at=NOW)
    assert "<img" not in (tmp_path / "run.html").read_text()


def test_the_command_writes_the_page_or_says_what_is_missing(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "connect", lambda _region: store)
    out = tmp_path / "page.html"
    assert cli.main([f"{root(2)}/", "--out", str(out)]) is Exit.DONE
    assert 'data-rounds="2"' in out.read_text()
    assert cli.main([chains.root(9), "--out", str(out)]) is Exit.BAD_DATA
    assert "holds no finished evaluation" in capsys.readouterr().err
    assert cli.main(["lab/shapes-1", "--out", str(out)]) is Exit.BAD_CONFIG
