import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.fakes import entry_points, worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, Script, serving

from dpe_api.artifacts import AnswerType, Comparison, DiagnosisReport, EvaluationSummary
from dpe_api.diagnosis_spec import Judge, Probe
from dpe_api.evaluation_spec import Benchmark, Evaluation
from dpe_jobs.diagnosis import report
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.evaluation.run import run
from dpe_jobs.runtime import BadConfig, BadData, Transient
from dpe_jobs.store import ChecksumMismatch

OUT = f"{worlds.ROOT}/evaluation"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        entry_points.install(tmp_path_factory.mktemp("programs"), patch)
        yield


@pytest.fixture(scope="module")
def diagnosed(installed: None) -> dict[str, bytes]:
    """The store after a base that knows colours alone was diagnosed."""
    store = MemoryStore()
    worlds.fill(store)
    with serving(worlds.knows("color")) as model:
        diagnose(worlds.diagnosis(model.url), store)
    return store.objects


@pytest.fixture
def store(diagnosed) -> MemoryStore:
    store = MemoryStore()
    store.objects = dict(diagnosed)
    return store


def items(store: MemoryStore, folder: str, tmp_path: Path) -> list[dict[str, Any]]:
    store.download(f"{folder}/items.parquet", tmp_path / "items.parquet")
    return pq.read_table(tmp_path / "items.parquet").to_pylist()


def summary(store: MemoryStore) -> EvaluationSummary:
    manifest = store.manifest(OUT)
    assert manifest is not None
    return EvaluationSummary.model_validate(manifest.summary)


def test_a_better_candidate_is_accepted_on_the_same_rows(store):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
    said = summary(store)
    assert said.accepted
    assert [(c.name, c.n) for c in said.comparisons] == [("probe", 15), ("test", 30)]
    test = said.comparisons[1]
    assert (test.before, test.after, test.delta.value) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert {c.name: c.delta.value for c in test.categories} == {"color": 0, "hue": 1, "negation": 0}
    assert "+0.333" in said.reason
    written = [Comparison.model_validate(c) for c in json.loads(store.get(f"{OUT}/comparison.json"))]
    assert written == said.comparisons


def test_paired_rows_are_the_diagnosis_s_own_and_the_others_those_of_the_next_round(store, tmp_path):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
        sent = Counter((a.question, a.sampled) for a in model.requests)
    before, after = (items(store, f"{worlds.ROOT}/{stage}", tmp_path) for stage in ("diagnosis", "evaluation"))
    assert pq.read_schema(tmp_path / "items.parquet").equals(SCHEMA)
    drawn, fresh, paired = (
        {r["id"]: r for r in rows if r["set"] == name}
        for rows, name in ((before, "probe"), (after, "probe"), (after, "probe_paired"))
    )
    assert paired.keys() == drawn.keys()
    assert all(r["rollouts"] == [] and r["response"] for r in paired.values())
    assert len(fresh) == 15
    assert not fresh.keys() & drawn.keys(), "thirty rows are two rounds"
    assert all(len(r["rollouts"]) == 3 for r in fresh.values())
    # the benchmark asks the same questions in these worlds
    assert all(count <= 1 + (not sampled) for (_, sampled), count in sent.items())
    assert sum(sent.values()) == 2 * 15 + 15 + 30
    report = summary(store).report
    assert [s.name for s in report.sets] == ["probe", "probe_paired", "test"]


def test_a_probe_no_larger_than_the_sample_is_asked_once_for_both(store, tmp_path):
    small = {"probe": Probe(uri=worlds.PROBE_URI, sample_size=100)}
    with serving(worlds.knows("color")) as model:
        diagnose(worlds.diagnosis(model.url, output=f"{worlds.ROOT}/whole", **small), store)
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url, diagnosis_artifact=f"{worlds.ROOT}/whole", **small), store)
        assert len(model.requests) == 2 * 30 + 30
    rows = items(store, OUT, tmp_path)
    fresh, paired = ({r["id"]: r["response"] for r in rows if r["set"] == n} for n in ("probe", "probe_paired"))
    assert fresh == paired
    assert summary(store).comparisons[0].n == 30


def test_a_row_of_both_sets_is_asked_once(store, tmp_path):
    larger = {"probe": Probe(uri=worlds.PROBE_URI, sample_size=21, adaptive_share=0.4)}
    with serving(worlds.knows("color")) as model:
        diagnose(worlds.diagnosis(model.url, output=f"{worlds.ROOT}/larger", **larger), store)
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url, diagnosis_artifact=f"{worlds.ROOT}/larger", **larger), store)
        sent = Counter((a.question, a.sampled) for a in model.requests)
    rows = items(store, OUT, tmp_path)
    fresh, paired = ({r["id"] for r in rows if r["set"] == n} for n in ("probe", "probe_paired"))
    assert len(fresh) == len(paired) == 21
    assert fresh & paired
    assert all(count <= 1 + (not sampled) for (_, sampled), count in sent.items())
    assert sum(count for (_, sampled), count in sent.items() if sampled) == 21
    assert sum(count for (_, sampled), count in sent.items() if not sampled) == len(fresh | paired) + 30


def test_the_next_round_would_draw_the_rows_that_the_evaluation_asked(store, tmp_path):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
        launch = worlds.diagnosis(model.url, uri=worlds.CANDIDATE_URI, output="s3://dpe/team/other/diagnosis", round=1)
        diagnose(launch, store)
    asked = [items(store, u, tmp_path) for u in (OUT, launch.output)]
    first, second = ([r["id"] for r in rows if r["set"] == "probe"] for rows in asked)
    assert first == second
    reports = [DiagnosisReport.model_validate_json(store.get(f"{u}/report.json")) for u in (OUT, launch.output)]
    assert reports[0].fingerprint == reports[1].fingerprint


def test_rows_that_trained_the_candidate_are_neither_compared_nor_diagnosed(store, tmp_path):
    before = {r["id"]: r for r in items(store, f"{worlds.ROOT}/diagnosis", tmp_path) if r["set"] == "probe"}
    stolen = [q for q in worlds.questions(10) if q.category == "hue" and q.id in before][:2]
    worlds.train(store, worlds.CANDIDATE_URI, worlds.BASE_URI, f"{worlds.ROOT}/generation", stolen)
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
    rows = items(store, OUT, tmp_path)
    assert not {r["id"] for r in rows if r["set"].startswith("probe")} & {q.id for q in stolen}
    sets = {s.name: s for s in summary(store).report.sets}
    # a picture is in three rows of these worlds
    assert sets["probe"].excluded == 6 >= sets["probe_paired"].excluded >= 2
    assert summary(store).comparisons[0].n == 15 - sets["probe_paired"].excluded


def run_as_served(store: MemoryStore, *arguments: str) -> None:
    """Evaluate a candidate whose server was started with these arguments."""
    with serving(worlds.knows("color", "hue")) as model:
        launch = worlds.evaluation(model.url)
        served = launch.model.model_copy(update={"extra_args": list(arguments)})
        run(launch.model_copy(update={"model": served}), store)


@pytest.mark.parametrize("what", ["release", "arguments"])
def test_a_verdict_on_a_base_that_was_diagnosed_under_another_serving_says_so(store, monkeypatch, caplog, what):
    if what == "release":
        monkeypatch.setattr(report, "SERVED_SINCE", report.SERVED_SINCE + 1)
    run_as_served(store, *(["--quantization", "fp8"] if what == "arguments" else []))
    said = summary(store)
    assert said.accepted, "an upgrade in the middle of an iteration ends it no less well"
    assert said.reason.startswith("accepted: change in macro accuracy test +0.333")
    assert "under another serving, judge or release: compare with care, or start a new iteration" in said.reason
    assert "compare with care" in caplog.text


def test_a_verdict_on_a_base_that_was_diagnosed_alike_says_nothing_of_serving(store):
    worlds.upload(store, worlds.TEST_URI, worlds.questions(11))  # rows that were added change nothing of it
    run_as_served(store)
    assert "serving" not in summary(store).reason


def test_a_worse_candidate_is_rejected_with_the_numbers(store):
    with serving(worlds.knows("nothing")) as model:
        run(worlds.evaluation(model.url), store)
    said = summary(store)
    assert not said.accepted
    assert said.reason.startswith("rejected")
    assert "test -0.333" in said.reason


def test_the_next_diagnosis_reuses_the_re_diagnosis(store):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
        asked = len(model.requests)
        launch = worlds.diagnosis(
            model.url, uri=worlds.CANDIDATE_URI, reuse=OUT, output="s3://dpe/team/shapes-2-ffffffff/diagnosis"
        )
        diagnose(launch, store)
        assert len(model.requests) == asked
    manifest = store.manifest(launch.output)
    assert manifest is not None
    assert manifest.summary["reused"] is True
    first, second = (json.loads(store.get(f"{u}/mixture.json")) for u in (f"{worlds.ROOT}/diagnosis", launch.output))
    assert first != second


def test_without_benchmarks_the_probe_decides(store):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url, benchmarks=[], evaluation=Evaluation()), store)
    said = summary(store)
    assert said.accepted
    assert "probe +0.333" in said.reason


def test_a_row_that_only_one_model_answered_is_left_out(store):
    def script(asked: Asked) -> list[str] | Reply:
        if asked.question.startswith("color 0:"):
            return Reply(status=400)
        return worlds.knows("color")(asked)

    launch = worlds.evaluation("http://x", diagnosis=worlds.settings(max_error_rate=0.2))
    with serving(script) as model:
        run(launch.model_copy(update={"model": launch.model.model_copy(update={"url": model.url})}), store)
    test = summary(store).comparisons[1]
    assert test.n == 29
    assert test.delta.value == 0


def unanswered(*endings: str) -> Script:
    """A model that gives no answer to questions with these endings."""

    def script(asked: Asked) -> list[str] | Reply:
        return Reply(status=400) if asked.question.endswith(endings) else worlds.knows("color")(asked)

    return script


@pytest.fixture
def told_apart() -> MemoryStore:
    """Like `store`, with a benchmark whose questions are not those of the probe; nothing was answered of that."""
    store = MemoryStore()
    worlds.fill(store)
    worlds.upload(store, worlds.TEST_URI, [replace(q, question=f"{q.question} test") for q in worlds.questions(10)])
    return store


LENIENT = worlds.settings(max_error_rate=1.0)


def test_a_probe_that_cannot_be_compared_is_left_out_where_benchmarks_decide(told_apart):
    with serving(unanswered("?")) as model:
        diagnose(worlds.diagnosis(model.url, diagnosis=LENIENT), told_apart)
        run(worlds.evaluation(model.url, diagnosis=LENIENT), told_apart)
    assert [c.name for c in summary(told_apart).comparisons] == ["test"]


def test_a_gate_whose_candidate_owes_every_answer_is_tried_again(told_apart):
    with serving(unanswered("none")) as model:
        diagnose(worlds.diagnosis(model.url), told_apart)
    with serving(unanswered("test")) as model, pytest.raises(Transient, match="no item of test") as caught:
        run(worlds.evaluation(model.url, diagnosis=LENIENT), told_apart)
    assert caught.value.reason == "NothingToCompare"
    with serving(unanswered("none")) as model:
        run(worlds.evaluation(model.url, diagnosis=LENIENT, attempt=2), told_apart)
    assert [c.name for c in summary(told_apart).comparisons] == ["probe", "test"]


def test_a_gate_on_questions_that_the_diagnosis_has_no_answers_to_is_bad_data(told_apart):
    with serving(unanswered("test")) as model:
        diagnose(worlds.diagnosis(model.url, diagnosis=LENIENT), told_apart)
    with serving(unanswered("none")) as model, pytest.raises(BadData, match="the diagnosis has no answers to it"):
        run(worlds.evaluation(model.url, diagnosis=LENIENT), told_apart)


def test_a_benchmark_that_was_not_diagnosed_is_refused(store):
    extra = [Benchmark(name="other", uri=worlds.TEST_URI)]
    with pytest.raises(BadConfig, match="has no answers to other"):
        run(worlds.evaluation("http://127.0.0.1:1", benchmarks=extra), store)


@pytest.mark.parametrize("uri", [worlds.PROBE_URI, worlds.TEST_URI])
@pytest.mark.parametrize(
    "change", [{"answer": "purple"}, {"question": "hue 1: which color?"}, {"answer_type": AnswerType.JUDGE}]
)
def test_a_row_that_is_not_what_the_diagnosis_asked_is_refused_by_its_name(store, uri, change):
    names = {r.id for r in worlds.questions(10) if r.category == "hue"}
    rows = [replace(q, **change) if q.id in names else q for q in worlds.questions(10)]
    worlds.upload(store, uri, rows)
    settings = worlds.settings(judge=Judge(endpoint="none"))
    with pytest.raises(
        BadData, match=rf"{uri}, row 'hue-\d+': its {next(iter(change))} is .*, and was .*: put"
    ) as caught:
        run(worlds.evaluation("http://127.0.0.1:1", diagnosis=settings), store)
    assert caught.value.reason == "QuestionsChanged"


def test_rows_that_were_added_since_the_diagnosis_do_no_harm(store):
    worlds.upload(store, worlds.TEST_URI, worlds.questions(11))
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
    assert summary(store).comparisons[1].n == 30


def test_answers_of_the_base_that_were_written_again_are_refused(store):
    store.put(f"{worlds.ROOT}/diagnosis/items.parquet", b"of an attempt that was thought to be lost")
    with pytest.raises(ChecksumMismatch, match=r"diagnosis/items\.parquet"):
        run(worlds.evaluation("http://127.0.0.1:1"), store)


def test_a_benchmark_that_lost_rows_is_refused(store):
    worlds.upload(store, worlds.TEST_URI, worlds.questions(9))
    with pytest.raises(BadData, match="lacks 3 rows that were asked before"):
        run(worlds.evaluation("http://127.0.0.1:1"), store)
