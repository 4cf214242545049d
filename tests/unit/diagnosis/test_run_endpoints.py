"""The whole stage with endpoints: categories, verdicts and error types come from a model behind real HTTP."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.fakes import worlds
from tests.fakes.endpoints import block, endpoint
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, FakeModel, Reply, serving

from dpe_api.artifacts import AnswerType, DiagnosisReport, DiagnosisSummary
from dpe_api.diagnosis_spec import Attribution, Categorise, Judge, Probe
from dpe_api.launch import DiagnosisLaunch
from dpe_jobs import runtime
from dpe_jobs.diagnosis.categorise import CATEGORIES
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.evaluation.run import run as evaluate
from dpe_jobs.questions import Question
from dpe_jobs.runtime import BadConfig

OUT, EVALUATION = f"{worlds.ROOT}/diagnosis", f"{worlds.ROOT}/evaluation"
NEXT = "s3://dpe/team/shapes-2-ffffffff/diagnosis"


def teacher(asked: Asked) -> list[str] | Reply:
    """Categorises by the question's first word, judges by the reference, and calls everything bad eyesight."""
    schema = json.dumps(asked.body.get("response_format", {}))
    if '"category"' in schema:
        return [json.dumps({"category": block(asked.question, "question").split()[0]})]
    if '"correct"' in schema:
        same = block(asked.question, "reference") in block(asked.question, "response").casefold()
        return [json.dumps({"reason": "compared", "correct": same})]
    if '"error_type"' in schema:
        return [json.dumps({"error_type": "visual_recognition", "weakness": "cannot tell purple"})]
    return Reply(status=500)


def kind(asked: Asked) -> str:
    schema = json.dumps(asked.body.get("response_format", {}))
    return next(k for k in ("category", "correct", "error_type", "weaknesses") if f'"{k}"' in schema)


def launched(make: Any, url: str, helper: FakeModel, **changes: Any) -> DiagnosisLaunch:
    settings = worlds.settings(
        judge=Judge(endpoint="teacher"), attribution=Attribution(endpoint="teacher", max_calls=40)
    )
    categories = Categorise(endpoint="teacher", taxonomy=[*worlds.CATEGORIES, "mixed"])
    probe = Probe(uri=worlds.PROBE_URI, sample_size=15, adaptive_share=0.2, categorise=categories)
    fields = {"diagnosis": settings, "probe": probe, "endpoints": [endpoint(helper)], "benchmarks": []}
    return make(url, **{**fields, **changes})


@pytest.fixture
def store() -> MemoryStore:
    """A probe whose category column says nothing and whose hues a judge grades."""
    store = MemoryStore()
    worlds.fill(store)
    rows = [replace(q, category="unknown") for q in worlds.questions(10)]
    worlds.upload(
        store,
        worlds.PROBE_URI,
        [replace(q, answer_type=AnswerType.JUDGE) if q.id.startswith("hue") else q for q in rows],
    )
    return store


def items(store: MemoryStore, folder: str, tmp_path: Path) -> list[dict[str, Any]]:
    store.download(f"{folder}/items.parquet", tmp_path / "items.parquet")
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "items.parquet").to_pylist()
    return rows


def report(store: MemoryStore, folder: str) -> DiagnosisReport:
    return DiagnosisReport.model_validate_json(store.get(f"{folder}/report.json"))


def test_a_turn_with_endpoints_pays_for_nothing_twice(store, tmp_path):
    with serving(teacher) as helper:
        with serving(worlds.knows("color", "hue")) as model:
            diagnose(launched(worlds.diagnosis, model.url, helper), store)
        spent = Counter(kind(a) for a in helper.requests)
        assert spent["category"] == 30
        found = report(store, OUT)
        assert {c.name for c in found.of("probe").categories} == set(worlds.CATEGORIES)
        hues = [r for r in items(store, OUT, tmp_path) if r["category"] == "hue"]
        assert all(r["correct"] and r["rollouts_correct"] == [True] * 3 and r["answer_type"] == "judge" for r in hues)
        assert found.attribution is not None
        assert spent["error_type"] == found.attribution.wrong == found.attribution.looked_at
        assert found.attribution.error_types == {"negation": {"visual_recognition": found.attribution.wrong}}
        (weakness,) = [w for w in found.attribution.weaknesses if w.error_type]
        assert (weakness.category, weakness.text) == ("negation", "cannot tell purple")
        told = [r for r in items(store, OUT, tmp_path) if r["weakness"]]
        assert {r["category"] for r in told} == {"negation"}
        assert {(r["error_type"], r["claim"], r["expected"] in worlds.COLORS) for r in told} == {
            ("visual_recognition", "purple", True)
        }
        manifest = store.manifest(OUT)
        assert manifest is not None
        assert {o.path for o in manifest.outputs} >= {CATEGORIES, "report.html"}
        assert manifest.versions["prompt/judge"]
        assert DiagnosisSummary.model_validate(manifest.summary).weaknesses == found.attribution.weaknesses

        # the evaluation categorises nothing anew and attributes by rules
        helper.requests.clear()
        with serving(worlds.knows("color", "hue")) as model:
            evaluate(launched(worlds.evaluation, model.url, helper, evaluation={"benchmarks": []}), store)
        assert {kind(a) for a in helper.requests} <= {"correct"}

        # the next round reuses all of it, and has its wrong answers looked at
        helper.requests.clear()
        again = launched(
            worlds.diagnosis, "http://127.0.0.1:1", helper, uri=worlds.CANDIDATE_URI, reuse=EVALUATION, output=NEXT
        )
        diagnose(again, store)
        assert {kind(a) for a in helper.requests} == {"error_type"}
        assert {r["set"] for r in items(store, NEXT, tmp_path)} == {"probe"}

        # and a round after a rejection has even that
        helper.requests.clear()
        diagnose(again.model_copy(update={"reuse": NEXT, "output": f"{NEXT}-3"}), store)
        assert helper.requests == []
        assert report(store, NEXT) == report(store, f"{NEXT}-3")
        rejected = store.manifest(f"{NEXT}-3")
        assert rejected is not None
        assert DiagnosisSummary.model_validate(rejected.summary).tokens.prompt == 0

        # told to look otherwise it has all of its calls: those of the round before are not charged to it
        wrong = report(store, NEXT).attribution.wrong
        closer = Attribution(endpoint="teacher", error_types=["visual_recognition", "other"], max_calls=wrong + 1)
        otherwise = again.diagnosis.model_copy(update={"attribution": closer})
        diagnose(again.model_copy(update={"reuse": NEXT, "output": f"{NEXT}-4", "diagnosis": otherwise}), store)
        assert report(store, f"{NEXT}-4").attribution.looked_at == wrong


def test_rows_without_a_category_are_errors_and_not_mixed(store):
    def blind(asked: Asked) -> list[str] | Reply:
        if kind(asked) == "category" and block(asked.question, "question").startswith("color 3:"):
            return Reply(status=400, body=b"too strange")
        return teacher(asked)

    with serving(blind) as helper, serving(worlds.knows("color")) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper), store)
    probe = report(store, OUT).of("probe")
    assert probe.uncategorised == 1
    assert "mixed" not in {c.name for c in probe.categories}


def test_a_judge_that_fails_on_a_row_is_an_error_and_not_a_wrong_answer(store, tmp_path):
    def moody(asked: Asked) -> list[str] | Reply:
        if kind(asked) == "correct" and "hue 3:" in asked.question:
            return Reply(status=400, body=b"no comment")
        return teacher(asked)

    settings = worlds.settings(judge=Judge(endpoint="teacher"), max_error_rate=0.4)
    probe = Probe(uri=worlds.PROBE_URI, sample_size=100)
    rows = [replace(q, answer_type=AnswerType.JUDGE) if q.category == "hue" else q for q in worlds.questions(10)]
    worlds.upload(store, worlds.PROBE_URI, rows)
    with serving(moody) as helper, serving(worlds.knows("color", "hue")) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper, diagnosis=settings, probe=probe), store)
    hue = next(c for c in report(store, OUT).of("probe").categories if c.name == "hue")
    assert (hue.n, hue.errors, hue.correct) == (9, 1, 9)
    (row,) = [r for r in items(store, OUT, tmp_path) if r["id"] == "hue-3"]
    assert row["response"]
    assert (row["correct"], row["pass_rate"], row["rollouts_correct"]) == (None, None, [])
    assert "no comment" in row["error"]


def declines(asked: Asked) -> list[str] | Reply:
    """A judge that says nothing about one question, whatever the answer to it is."""
    return ["I would rather not say."] if "hue 3:" in asked.question else teacher(asked)


def test_one_row_that_its_judge_declines_is_one_error_of_all_rows_of_its_set(store):
    rows = [worlds.question(n, "color") for n in range(39)]
    worlds.upload(store, worlds.PROBE_URI, [*rows, replace(worlds.question(3, "hue"), answer_type=AnswerType.JUDGE)])
    settings = worlds.settings(judge=Judge(endpoint="teacher"), max_error_rate=0.05)
    probe = Probe(uri=worlds.PROBE_URI, sample_size=40)
    with serving(declines) as helper, serving(worlds.knows("color")) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper, diagnosis=settings, probe=probe), store)
    said = report(store, OUT).of("probe")
    assert (said.n, said.errors) == (39, 1)


def test_an_answer_that_its_judge_declines_is_shown_to_it_once_whatever_sets_it_is_in(store):
    rows = [replace(q, answer_type=AnswerType.JUDGE) if q.category == "hue" else q for q in worlds.questions(10)]
    worlds.upload(store, worlds.PROBE_URI, rows)
    # all rows are drawn again, and some of them only after the answers to the others were judged
    probe = Probe(uri=worlds.PROBE_URI, sample_size=30, adaptive_share=0.2)
    how = {"diagnosis": worlds.settings(judge=Judge(endpoint="teacher"), max_error_rate=0.1), "probe": probe}
    with serving(declines) as helper, serving(worlds.knows("color", "hue")) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper, **how), store)
        helper.requests.clear()
        evaluate(launched(worlds.evaluation, model.url, helper, **how, evaluation={"benchmarks": []}), store)
        shown = [a.question for a in helper.requests if "hue 3:" in a.question]
    assert sum("An earlier reply" not in text for text in shown) == 1, "the others remind it of the form"
    said = report(store, EVALUATION)
    assert [(s.name, s.errors) for s in said.sets] == [("probe", 1), ("probe_paired", 1)]


def test_rows_for_a_judge_without_a_judge_are_refused_before_anything_is_asked(store):
    with serving(teacher) as helper, serving(worlds.knows("color")) as model:
        with pytest.raises(BadConfig, match=r"spec\.diagnosis\.judge\.endpoint"):
            diagnose(launched(worlds.diagnosis, model.url, helper, diagnosis=worlds.settings()), store)
        assert model.requests == []


def test_a_row_for_a_judge_that_only_a_later_round_would_draw_is_refused_before_anything_is_asked(store):
    rows = worlds.questions(30)
    rows = [replace(q, answer_type=AnswerType.JUDGE) if q.id == "hue-29" else q for q in rows]
    worlds.upload(store, worlds.PROBE_URI, rows)
    for number in range(6):
        with serving(teacher) as helper, serving(worlds.knows("color")) as model:
            launch = launched(worlds.diagnosis, model.url, helper, diagnosis=worlds.settings(), round=number)
            with pytest.raises(BadConfig, match=r"spec\.diagnosis\.judge\.endpoint"):
                diagnose(launch, store)
            assert model.requests == helper.requests == []


def test_a_benchmark_for_a_judge_is_refused_before_an_endpoint_is_paid_for_categories(store):
    worlds.upload(store, worlds.PROBE_URI, [replace(q, category="unknown") for q in worlds.questions(10)])
    worlds.upload(store, worlds.TEST_URI, [replace(worlds.question(0, "hue"), answer_type=AnswerType.JUDGE)])
    with serving(teacher) as helper, serving(worlds.knows("color")) as model:
        benchmarks = [{"name": "test", "uri": worlds.TEST_URI}]
        settings = {"diagnosis": worlds.settings(), "benchmarks": benchmarks}
        with pytest.raises(BadConfig, match=r"spec\.diagnosis\.judge\.endpoint"):
            diagnose(launched(worlds.diagnosis, model.url, helper, **settings), store)
        assert model.requests == helper.requests == []


def test_the_judge_reads_what_follows_the_thinking_and_unfinished_thoughts_are_wrong_unasked(store, tmp_path):
    worlds.upload(store, worlds.PROBE_URI, [worlds.question(n, "hue") for n in range(6)])
    rows = [replace(worlds.question(n, "hue"), answer_type=AnswerType.JUDGE) for n in range(6)]
    worlds.upload(store, worlds.PROBE_URI, rows)

    def thinks(asked: Asked) -> list[str]:
        right = worlds.truth(asked)
        ends = int(asked.question.split(":")[0].split()[1]) % 2
        return [f"<think>blue, green or red?</think>{right}" if ends else f"<think>it is {right}"] * asked.n

    settings = {"diagnosis": worlds.settings(judge=Judge(endpoint="teacher")), "probe": Probe(uri=worlds.PROBE_URI)}
    with serving(teacher) as helper, serving(thinks) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper, **settings), store)
        heard = {block(a.question, "response") for a in helper.requests}
    assert heard == set(worlds.COLORS)
    assert {r["id"] for r in items(store, OUT, tmp_path) if r["correct"]} == {"hue-1", "hue-3", "hue-5"}


def choice(number: int) -> Question:
    row = worlds.question(number, "color")
    return replace(row, answer_type=AnswerType.CHOICE, choices=worlds.COLORS)


def test_shuffled_options_are_graded_as_they_were_shown(store, tmp_path):
    worlds.upload(store, worlds.PROBE_URI, [choice(n) for n in range(12)])

    def by_letter(asked: Asked) -> list[str]:
        lines = dict(line.split(". ") for line in asked.question.splitlines()[1:])
        right = worlds.truth(asked)
        wrong = asked.question.startswith("color 0:")
        return [next(letter for letter, text in lines.items() if (text == right) != wrong)] * asked.n

    shuffled = worlds.settings(shuffle_choices=True)
    launch = {"probe": Probe(uri=worlds.PROBE_URI, sample_size=12), "diagnosis": shuffled, "benchmarks": []}
    with serving(by_letter) as model:
        diagnose(worlds.diagnosis(model.url, **launch), store)
        evaluate(worlds.evaluation(model.url, **launch, evaluation={"benchmarks": []}), store)
        asked = {}
        for request in model.requests:
            asked.setdefault(request.question.split(":")[0], set()).add(request.question)
    assert all(len(texts) == 1 for texts in asked.values()), "base and candidate read the same text"
    rows = items(store, OUT, tmp_path)
    assert {r["id"] for r in rows if not r["correct"]} == {"color-0"}
    assert len({tuple(r["choices"]) for r in rows}) > 1
    assert all(r["expected"] == r["claim"] for r in rows if r["correct"])
    assert {r["expected"] for r in rows} == set(worlds.COLORS)


def test_large_images_are_sent_within_the_pixel_limit(store):
    worlds.upload(store, worlds.PROBE_URI, [replace(worlds.question(0, "color"), image=worlds.picture("red", 60))])
    with serving(worlds.knows("color")) as model:
        diagnose(worlds.diagnosis(model.url, benchmarks=[], diagnosis=worlds.settings(max_pixels=784)), store)
        assert {len(a.image) for a in model.requests} == {len(worlds.picture("red", 28))}


def test_every_part_that_takes_long_tells_how_far_it_is(store, monkeypatch):
    told: dict[str, list[tuple[int, int]]] = {}
    put = store.put

    def listen(uri: str, data: bytes) -> None:
        if uri.endswith("progress.json"):
            progress = json.loads(data)
            told.setdefault(progress["unit"], []).append((progress["done"], progress["total"]))
        put(uri, data)

    monkeypatch.setattr(store, "put", listen)
    monkeypatch.setattr(runtime, "PROGRESS_INTERVAL_S", 0.0)
    with serving(teacher) as helper, serving(worlds.knows("color")) as model:
        diagnose(launched(worlds.diagnosis, model.url, helper), store)
    assert list(told) == ["rows read", "rows categorised", "requests", "verdicts", "wrong answers"]
    assert told["rows categorised"][-1] == (30, 30)
    assert told["requests"][-1] == (30, 30)
    assert all(len(steps) > 2 for steps in told.values())
