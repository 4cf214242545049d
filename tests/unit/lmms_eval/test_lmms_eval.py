"""`recorded` has what lmms-eval 0.7.3 wrote and said: its own tasks ai2d and mmmu_val, on drawn data of their form."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import entry_points, worlds
from tests.fakes.lmms_eval import RECORDED, LmmsEval
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import serving

from dpe_api.artifacts import (
    Comparison,
    DiagnosisSummary,
    EvaluationSummary,
    InputRef,
    Interval,
    Manifest,
    TaskComparison,
    TaskResult,
)
from dpe_api.evaluation_spec import Benchmark, Evaluation, Gate, LmmsEvalTask
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.evaluation.compare import judge, paired_change
from dpe_jobs.evaluation.run import run as evaluate
from dpe_jobs.lmms_eval import program, results
from dpe_jobs.lmms_eval.compare import compare, paired
from dpe_jobs.lmms_eval.results import Scored
from dpe_jobs.lmms_eval.run import ask_tasks, file_names
from dpe_jobs.runtime import BadConfig, BadData, Stopped, Transient

AI2D, MMMU = LmmsEvalTask(task="ai2d"), LmmsEvalTask(task="mmmu_val")
BASE, CANDIDATE = InputRef(uri="s3://m/base", sha256="b"), InputRef(uri="s3://m/candidate", sha256="c")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LmmsEval:
    folder = tmp_path / "lmms-eval"
    folder.mkdir()
    return LmmsEval(folder, monkeypatch)


@pytest.fixture
def ask(tmp_path, installed):
    """Ask tasks in a folder of their own each time, as each attempt of a stage does."""
    times = iter(range(100))

    def once(store, *tasks, model=BASE, **changes):
        folder = tmp_path / str(next(times))
        folder.mkdir()
        return ask_tasks(worlds.diagnosis("http://served:8000", **changes), tasks, store, model, folder)

    return once


def test_base_and_candidate_are_asked_and_compared_on_the_same_questions(installed, tmp_path, monkeypatch):
    entry_points.install(tmp_path, monkeypatch)
    tasks = [AI2D, MMMU]
    store = MemoryStore()
    worlds.fill(store)
    with serving(worlds.knows("color")) as model:
        diagnose(worlds.diagnosis(model.url, lmms_eval=tasks), store)
    found = DiagnosisSummary.model_validate(store.manifest(f"{worlds.ROOT}/diagnosis").summary)
    assert [(t.task, t.metric, t.value, t.n) for t in found.lmms_eval] == [
        ("ai2d", "exact_match,flexible-extract", 0.25, 24),
        ("mmmu_val", "mmmu_acc,none", 0.25, 12),
    ]
    assert found.lmms_eval[0].stderr == pytest.approx(0.0903, abs=1e-4)  # as its table says
    assert found.lmms_eval[1].stderr is None
    assert found.tokens.prompt >= 240 + 120

    installed.answers_as("candidate")
    benchmarks = [Benchmark(name="test", uri=worlds.TEST_URI)]
    with serving(worlds.knows("color", "hue")) as model:
        evaluate(worlds.evaluation(model.url, evaluation=Evaluation(benchmarks=benchmarks, lmms_eval=tasks)), store)
    manifest = store.manifest(f"{worlds.ROOT}/evaluation")
    ai2d, mmmu = EvaluationSummary.model_validate(manifest.summary).lmms_eval
    assert (ai2d.before, ai2d.after, ai2d.n, ai2d.gate) == (0.25, 0.5, 24, False)
    assert ai2d.delta is not None
    assert ai2d.delta.value == pytest.approx(0.25)
    assert 0 < ai2d.delta.low < 0.25 < ai2d.delta.high  # six of 24 gained, none lost
    assert (mmmu.before, mmmu.after, mmmu.delta) == (0.25, 0.25, None)
    raw = {name for task in tasks for name in file_names(task.task)}
    assert raw <= {o.path for o in manifest.outputs}
    kept = store.get(f"{worlds.ROOT}/evaluation/lmms-eval-ai2d-samples.jsonl")
    assert kept == (RECORDED / "candidate" / "ai2d_samples.jsonl").read_bytes()


def test_it_is_run_where_the_data_are_without_our_credentials_and_without_a_hub(installed, ask, monkeypatch):
    monkeypatch.setenv("DPE_S3_SECRET_KEY", "s3cret")
    monkeypatch.setenv("DPE_ENDPOINT_KEY_TEACHER", "s3cret")
    monkeypatch.setenv("OPENAI_API_KEY", "a-judge's")
    (installed.data / "tasks").mkdir()
    ask(MemoryStore(), LmmsEvalTask(task="ai2d", limit=8))
    (call,) = installed.calls
    assert call["cwd"] == str(installed.data)
    assert "s3cret" not in json.dumps(call)
    assert (call["env"]["OPENAI_API_KEY"], call["env"]["HF_HUB_OFFLINE"]) == ("a-judge's", "1")
    said = " ".join(call["argv"])
    assert "model=model,base_url=http://served:8000/v1,api_key=none,num_concurrent=4" in said
    assert f"--include_path {installed.data}/tasks" in said
    assert "--limit 8" in said


def test_a_task_that_is_finished_is_not_asked_again(installed, ask):
    store = MemoryStore()
    first = ask(store, AI2D)
    assert ask(store, AI2D, MMMU, attempt=2)[0] == first[0]
    assert [c["argv"][c["argv"].index("--tasks") + 1] for c in installed.calls] == ["ai2d,ai2d", "mmmu_val,mmmu_val"]


def test_grading_is_progress_as_asking_is(installed, tmp_path):
    told = []
    command = program.command(AI2D, "http://x", tmp_path / "out", concurrency=1, seed=0, data=installed.data)
    program.run(command, tmp_path, installed.data, lambda done, total: told.append((done, total)))
    assert told == [(12, 24), (6, 24)]


def test_a_data_set_may_be_called_as_its_task(installed, ask):
    (installed.data / "ai2d").mkdir()
    (found,) = ask(MemoryStore(), AI2D)
    assert found.n == 24


@pytest.mark.parametrize("changed", ["model", "limit", "version"])
def test_another_model_other_questions_or_another_lmms_eval_are_asked_afresh(installed, ask, changed):
    store = MemoryStore()
    ask(store, AI2D)
    task, model = AI2D, BASE
    if changed == "model":
        model = CANDIDATE
    elif changed == "limit":
        task = LmmsEvalTask(task="ai2d", limit=24)
    else:
        installed.version("0.8.0")
    ask(store, task, model=model)
    assert len(installed.calls) == 2


def test_a_diagnosis_takes_what_the_evaluation_before_found_about_the_same_model(installed, ask):
    store = MemoryStore()
    asked = ask(store, AI2D, output="s3://dpe/before/evaluation")
    reused = ask(store, AI2D, reuse="s3://dpe/before/evaluation")
    assert len(installed.calls) == 1
    assert (reused[0].value, reused[0].tokens.prompt, asked[0].tokens.prompt) == (0.25, 0, 240)
    assert store.find(f"{worlds.ROOT}/diagnosis/lmms-eval-ai2d-results.json") is not None


def publish(store: MemoryStore, folder: str, scratch: Path) -> None:
    """Put the manifest of an artifact that has what was found about AI2D."""
    outputs = []
    for name in file_names(AI2D.task):
        store.download(f"{folder}/{name}", scratch / name)
        outputs.append(store.upload(scratch / name, f"{folder}/{name}"))
    manifest = Manifest(stage="diagnosis", created_at=datetime(2026, 1, 1, tzinfo=UTC), outputs=outputs)
    store.publish(folder, manifest)


@pytest.mark.parametrize("written_again", [None, *file_names(AI2D.task)])
def test_what_a_late_attempt_wrote_over_a_published_diagnosis_is_asked_afresh(installed, ask, tmp_path, written_again):
    store, before = MemoryStore(), "s3://dpe/before/diagnosis"
    ask(store, AI2D, output=before)
    publish(store, before, tmp_path)
    if written_again:
        store.put(f"{before}/{written_again}", store.get(f"{before}/{written_again}") + b"\n")
    ask(store, AI2D, reuse=before)
    assert len(installed.calls) == (2 if written_again else 1)
    kept = store.get(f"{worlds.ROOT}/diagnosis/lmms-eval-ai2d-samples.jsonl")
    assert kept == (RECORDED / "base" / "ai2d_samples.jsonl").read_bytes()


def test_a_server_that_does_not_answer_is_an_error_and_no_score_of_0(installed, ask):
    """lmms-eval grades its own note of a failed request as an answer: it reports 0 and ends well."""
    installed.answers_as("dead")
    written = json.loads((RECORDED / "dead" / "ai2d_results.json").read_text())
    assert written["results"]["ai2d"]["exact_match,flexible-extract"] == 0.0
    store = MemoryStore()
    with pytest.raises(Transient, match=r"ai2d: the model server did not answer 4 of 4 .*Connection error") as failed:
        ask(store, AI2D)
    assert failed.value.reason == "LmmsEvalUnanswered"
    assert not [uri for uri in store.objects if "lmms-eval" in uri]


@pytest.mark.parametrize(
    ("task", "reason", "words"),
    [
        ("nosuchtask", "UnknownTask", "lmms-eval has no task nosuchtask"),
        ("chartqa", "NoTaskData", "the data of chartqa are not below .*Couldn't reach 'lmms-lab-encoder/ChartQA'"),
    ],
)
def test_a_failing_lmms_eval_is_an_error_that_names_the_task_and_its_words(ask, task, reason, words):
    with pytest.raises(BadConfig, match=f"(?s){words}") as failed:
        ask(MemoryStore(), LmmsEvalTask(task=task))
    assert failed.value.reason == reason


def test_words_that_nobody_knows_may_be_better_another_time():
    said = f"status 1: {program.shown(['Traceback', 'a.b.OutOfMemoryError: no room', '  detail', 'killed'])}"
    failed = program.failure("ai2d", said)
    assert isinstance(failed, Transient)
    assert "ai2d wrote no results: status 1: a.b.OutOfMemoryError: no room" in str(failed)


def test_a_gate_needs_a_score_of_each_question_and_says_so_with_the_base(ask):
    with pytest.raises(BadConfig, match=r"mmmu_val has gate, but mmmu_acc,none is no mean of a score"):
        ask(MemoryStore(), LmmsEvalTask(task="mmmu_val", gate=True))
    assert ask(MemoryStore(), LmmsEvalTask(task="ai2d", gate=True))[0].value == 0.25


def test_a_metric_can_be_named_with_its_filter_or_without(ask):
    for name in ("exact_match", "exact_match,flexible-extract"):
        (found,) = ask(MemoryStore(), LmmsEvalTask(task="ai2d", metric=name))
        assert found.metric == "exact_match,flexible-extract"
    with pytest.raises(BadConfig, match=r"metric anls of ai2d is none of exact_match,flexible-extract"):
        ask(MemoryStore(), LmmsEvalTask(task="ai2d", metric="anls"))


def test_a_group_of_tasks_is_refused_with_the_names_in_it(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("t_results.json", "t_samples_mathvista_cot.jsonl", "t_samples_mathvista_format.jsonl"):
        (folder / name).write_text("{}")
    with pytest.raises(BadConfig, match="mathvista is a group of mathvista_cot, mathvista_format: name those"):
        results.find(tmp_path, "mathvista")


@pytest.mark.parametrize("missing", ["program", "data"])
def test_an_image_without_lmms_eval_and_a_pod_without_data_are_refused(installed, ask, missing):
    if missing == "program":
        installed.remove()
    else:
        installed.data.rmdir()
    with pytest.raises(BadConfig, match=r"Helm value lmmsEval\.(image|data)") as failed:
        ask(MemoryStore(), AI2D)
    assert failed.value.reason == "NoLmmsEval"


def test_nothing_of_it_is_left_when_the_stage_is_stopped(tmp_path):
    script = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=True)\n"
    script += "print('Model Responding:   4%|4 | 1/24 [00:00<00:11,  2.03it/s]', flush=True); time.sleep(300)"
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise Stopped

    with pytest.raises(Stopped):
        program.run([sys.executable, "-c", script], tmp_path, tmp_path, stop)
    assert told == [(1, 24)]
    sleeping = [p for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists() and p.read_bytes() == b"sleep\x00300\x00"]
    assert not sleeping


def result(model: str, **changes: object) -> tuple[TaskResult, Path]:
    path = RECORDED / model
    found = results.read(AI2D, path / "ai2d_results.json", version="0.7.3", fingerprint="f")
    return found.model_copy(update=changes), path / "ai2d_samples.jsonl"


def test_results_about_other_questions_are_not_compared(tmp_path):
    (before, asked), (after, answered) = result("base"), result("candidate")
    how = {"gate": False, "confidence": 0.95, "seed": 1}
    with pytest.raises(BadData, match=r"asked 24 questions by version 0\.7\.3 .* the candidate 24 by 0\.8"):
        compare(before, after.model_copy(update={"version": "0.8"}), (asked, answered), **how)
    other = tmp_path / "samples.jsonl"
    other.write_text(answered.read_text().replace("Which colour is square 7?", "What colour is square 7?"))
    with pytest.raises(BadData, match="ai2d: its questions have changed since the diagnosis"):
        compare(before, after, (asked, other), **how)


def test_scores_of_0_and_1_are_compared_as_answers_of_our_own_benchmarks_are():
    (before, asked), (after, answered) = result("base"), result("candidate")
    b, a = results.scores(before, asked), results.scores(after, answered)
    right = [[found[name].score == 1 for name in sorted(b)] for found in (b, a)]
    assert paired(b, a, 0.95, 1) == paired_change(np.array(right[0]), np.array(right[1]), 0.95)


def test_partial_scores_are_compared_by_a_bootstrap_over_questions():
    random = np.random.default_rng(3)
    before = {str(i): Scored("q", float(score)) for i, score in enumerate(random.random(400))}
    after = {name: Scored("q", float(score)) for name, score in zip(before, random.random(400), strict=True)}
    change = paired(before, after, 0.95, 7)
    spread = np.std([after[name].score - before[name].score for name in before]) / 400**0.5
    least = paired_change(
        *(np.array([found[n].score >= 0.5 for n in sorted(before)]) for found in (before, after)), 0.95
    )
    assert change.value - change.low == pytest.approx(max(1.96 * spread, least.value - least.low), rel=0.05)
    assert change.high - change.value == pytest.approx(max(1.96 * spread, least.high - least.value), rel=0.05)
    assert change == paired(before, after, 0.95, 7)


@pytest.mark.parametrize("n", [5, 20, 100])
def test_the_interval_of_partial_scores_that_did_not_change_is_not_empty(n):
    """One answer that is half right made it so, and the gate let anything pass that was asked few questions."""
    half = {str(i): Scored("q", 0.5 if i == 0 else 1.0) for i in range(n)}
    whole = {str(i): Scored("q", 1.0) for i in range(n)}
    assert paired(half, half, 0.95, 1) == paired(whole, whole, 0.95, 1)
    assert paired(half, half, 0.95, 1).low < 0


def test_a_metric_that_is_not_the_mean_of_its_scores_has_none(tmp_path):
    found, samples = result("base")
    assert results.scores(found, samples) is not None
    assert results.scores(found.model_copy(update={"value": 25.0}), samples) is None
    twice = tmp_path / "samples.jsonl"
    twice.write_text(samples.read_text() * 2)  # a row for each of two filters
    assert results.scores(found, twice) is None


def gated(value: float, low: float, high: float, *, gate: bool, higher_is_better: bool = True) -> TaskComparison:
    delta = Interval(value=value, low=low, high=high)
    kind = {"gate": gate, "higher_is_better": higher_is_better}
    return TaskComparison(task="ai2d", metric="m", n=9, before=0.5, after=0.5 + value, delta=delta, **kind)


@pytest.mark.parametrize(
    ("task", "accepted"),
    [
        (gated(-0.2, -0.3, -0.1, gate=False), True),
        (gated(-0.2, -0.3, -0.1, gate=True), False),
        (gated(0.2, 0.1, 0.3, gate=True), True),
        (gated(0.2, 0.1, 0.3, gate=True, higher_is_better=False), False),
        (gated(-0.2, -0.3, -0.1, gate=True, higher_is_better=False), True),
    ],
)
def test_a_task_is_reported_only_unless_it_has_gate(task, accepted):
    delta = Interval(value=0.1, low=0.05, high=0.15)
    better = Comparison(name="probe", n=9, before=0.5, after=0.6, delta=delta, categories=[])
    verdict, reason = judge([better], Gate(), [task])
    assert verdict is accepted
    assert ("ai2d" in reason) is task.gate
