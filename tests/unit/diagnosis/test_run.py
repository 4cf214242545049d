import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving

from dpe_api.artifacts import DiagnosisReport, DiagnosisSummary, Quota
from dpe_api.diagnosis_spec import Probe
from dpe_api.generation_spec import Generation
from dpe_api.launch import DiagnosisLaunch
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.diagnosis.run import run
from dpe_jobs.runtime import BadConfig, Transient
from dpe_jobs.store import AlreadyPublished, NotFound

OUT = f"{worlds.ROOT}/diagnosis"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    worlds.fill(store)
    return store


def rows(store: MemoryStore, folder: str, tmp_path) -> list[dict]:
    path = tmp_path / "items.parquet"
    store.download(f"{folder}/items.parquet", path)
    return pq.read_table(path).to_pylist()


def summary(store: MemoryStore, folder: str = OUT) -> DiagnosisSummary:
    manifest = store.manifest(folder)
    assert manifest is not None
    return DiagnosisSummary.model_validate(manifest.summary)


def test_diagnosis_publishes_items_report_and_quotas_that_agree(store, tmp_path):
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)

    said = summary(store)
    probe = {c.name: c for c in said.report.of("probe").categories}
    assert {n: (c.n, c.correct, c.rollouts, c.errors) for n, c in probe.items()} == {
        "color": (5, 5, 15, 0),
        "hue": (5, 0, 15, 0),
        "negation": (5, 0, 15, 0),
    }
    assert said.report.of("test").n == 30
    assert said.report.of("probe").macro.value == pytest.approx(1 / 3)
    assert sum(q.quota for q in said.quotas) == 100
    assert said.tokens.prompt == 10 * (15 * 2 + 30)
    assert said.tokens.completion == 2 * (15 * (1 + 3) + 30)

    report = DiagnosisReport.model_validate_json(store.get(f"{OUT}/report.json"))
    assert report.model_copy(update={"attribution": None}) == said.report
    assert report.attribution is not None
    assert (report.attribution.wrong, report.attribution.looked_at) == (10, 0)
    assert {(c.category, c.given) for c in report.attribution.confusions} == {("hue", "purple"), ("negation", "purple")}
    assert said.weaknesses[0].category in ("hue", "negation")
    assert [Quota.model_validate(q) for q in json.loads(store.get(f"{OUT}/mixture.json"))] == said.quotas
    items = rows(store, OUT, tmp_path)
    assert pq.read_schema(tmp_path / "items.parquet").equals(SCHEMA)
    assert len(items) == 45
    color = [r for r in items if r["set"] == "probe" and r["category"] == "color"]
    assert all(r["correct"] and r["pass_rate"] == 1.0 and r["rollouts_correct"] == [True] * 3 for r in color)
    test = [r for r in items if r["set"] == "test"]
    assert all(r["pass_rate"] is None and r["rollouts"] == [] for r in test)
    manifest = store.manifest(OUT)
    assert manifest is not None
    assert {o.path for o in manifest.outputs} == {"items.parquet", "report.json", "report.html", "mixture.json"}
    assert {i.uri for i in manifest.inputs} == {worlds.BASE_URI, worlds.PROBE_URI, worlds.TEST_URI}
    progress = json.loads(store.get(f"{OUT}/progress.json"))
    assert (progress["done"], progress["total"], progress["unit"]) == (60, 60, "requests")


def test_two_runs_with_the_same_seed_write_the_same_items(tmp_path):
    found = []
    for _ in range(2):
        store = MemoryStore()
        worlds.fill(store)
        with serving(worlds.knows("hue")) as model:
            run(worlds.diagnosis(model.url), store)
            seeds = {(a.question, a.body.get("seed")) for a in model.requests if a.sampled}
        found.append((rows(store, OUT, tmp_path), seeds))
    assert found[0] == found[1]


def test_a_lost_diagnosis_asks_only_what_the_ledger_lacks(store):
    def dies_half_way(asked: Asked) -> list[str] | Reply:
        return Reply(status=400) if asked.number > 40 else worlds.knows("color")(asked)

    with serving(dies_half_way) as model, pytest.raises(Transient, match="got no answer"):
        run(worlds.diagnosis(model.url), store)
    finished = sum(
        len(d.splitlines()) for u, d in store.objects.items() if u.startswith(f"{OUT}/ledger/") and u.endswith("l")
    )
    assert finished > 5
    assert store.manifest(OUT) is None

    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url, attempt=2), store)
        questions_asked = len({(a.question, a.sampled) for a in model.requests})
        assert questions_asked == len(model.requests)
    said = summary(store)
    assert said.report.of("probe").n == 15
    assert said.tokens.prompt == 10 * (15 * 2 + 30), "answers of the first attempt are paid for as well"


def test_a_request_without_an_answer_is_an_error_and_not_a_wrong_answer(store, tmp_path):
    def one_refused(asked: Asked) -> list[str] | Reply:
        if asked.question.startswith("color 3:"):
            return Reply(status=400, body=b'{"message": "too long"}')
        return worlds.knows("color", "hue", "negation")(asked)

    launch = worlds.diagnosis("http://x", diagnosis=worlds.settings(max_error_rate=0.1))
    with serving(one_refused) as model:
        run(launch.model_copy(update={"model": launch.model.model_copy(update={"url": model.url})}), store)
    test = {c.name: c for c in summary(store).report.of("test").categories}
    assert (test["color"].n, test["color"].errors, test["color"].accuracy.value) == (9, 1, 1.0)
    bad = [r for r in rows(store, OUT, tmp_path) if r["error"]]
    assert {r["id"] for r in bad} == {"color-3"}
    assert all(r["response"] is None and r["correct"] is None for r in bad)
    assert "too long" in bad[0]["error"]


def test_too_many_errors_stop_the_stage_early_with_reason_error_rate(store):
    with serving(lambda asked: Reply(status=400)) as model:
        with pytest.raises(Transient) as caught:
            run(worlds.diagnosis(model.url), store)
        assert len(model.requests) < 15
    assert caught.value.reason == "ErrorRate"
    assert "maxErrorRate" in str(caught.value)
    assert store.manifest(OUT) is None


@pytest.mark.parametrize("what", ["all requests", "rollouts"])
def test_a_small_probe_without_answers_is_not_outweighed_by_a_large_benchmark(store, what):
    worlds.upload(store, worlds.TEST_URI, [replace(q, question=f"{q.question} test") for q in worlds.questions(100)])

    def fails(asked: Asked) -> list[str] | Reply:
        lost = asked.sampled if what == "rollouts" else not asked.question.endswith("test")
        return Reply(status=400) if lost else worlds.knows("color")(asked)

    launch = worlds.diagnosis("http://x", diagnosis=worlds.settings(max_error_rate=0.1))
    with serving(fails) as model, pytest.raises(Transient, match="2 of the 15 questions of probe") as caught:
        run(launch.model_copy(update={"model": launch.model.model_copy(update={"url": model.url})}), store)
    assert caught.value.reason == "ErrorRate"
    assert store.manifest(OUT) is None


def test_published_diagnosis_is_not_made_again(store):
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        asked = len(model.requests)
        run(worlds.diagnosis(model.url, attempt=2), store)
        assert len(model.requests) == asked


def test_answers_of_the_same_model_are_reused_and_the_mixture_is_made_anew(store):
    next_out = "s3://dpe/team/shapes-2-ffffffff/diagnosis"
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        asked = len(model.requests)
        # another seed would draw another sample of the probe
        run(
            worlds.diagnosis(model.url, reuse=OUT, output=next_out, seed=99, generation=Generation(target_samples=10)),
            store,
        )
        assert len(model.requests) == asked
    before, after = summary(store), summary(store, next_out)
    assert after.reused
    assert not before.reused
    assert after.report == before.report
    assert after.tokens.prompt == 0
    assert sum(q.quota for q in after.quotas) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"uri": worlds.CANDIDATE_URI},
        {"diagnosis": worlds.settings(temperature=0.5)},
        {"probe": Probe(uri=worlds.PROBE_URI, sample_size=12)},
        {"benchmarks": []},
        {"serving": {"extra_args": ["--quantization", "fp8"]}},
        {"serving": {"max_model_len": 512}},
    ],
    ids=["other model", "other sampling", "other sample size", "other benchmarks", "other arguments", "other length"],
)
def test_answers_are_not_reused_when_anything_that_decides_them_differs(store, change):
    next_out = "s3://dpe/team/shapes-2-ffffffff/diagnosis"
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        asked = len(model.requests)
        served = change.pop("serving", {})
        launch = worlds.diagnosis(model.url, reuse=OUT, output=next_out, **change)
        run(launch.model_copy(update={"model": launch.model.model_copy(update=served)}), store)
        assert len(model.requests) > asked
    assert not summary(store, next_out).reused


def rewrite(store: MemoryStore, folder: str, edit: Callable[[dict], object]) -> None:
    """Edit the items of a published artifact; its manifest promises what is there then."""
    with TemporaryDirectory() as name:
        path = Path(name) / "items.parquet"
        found = rows(store, folder, Path(name))
        for row in found:
            edit(row)
        pq.write_table(pa.Table.from_pylist(found, schema=SCHEMA), path)
        new = store.upload(path, f"{folder}/items.parquet")
    manifest = store.manifest(folder)
    assert manifest is not None
    outputs = [new if o.path == new.path else o for o in manifest.outputs]
    changed = manifest.model_copy(update={"outputs": outputs})
    store.put(f"{folder}/manifest.json", changed.model_dump_json(by_alias=True).encode())


def test_reused_answers_are_graded_by_the_graders_of_now(store, tmp_path):
    next_out = "s3://dpe/team/shapes-2-ffffffff/diagnosis"
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        rewrite(
            store, OUT, lambda row: row.update(correct=False, rollouts_correct=[False] * 3, pass_rate=0.0, claim="x")
        )
        run(worlds.diagnosis(model.url, reuse=OUT, output=next_out), store)
    said = summary(store, next_out)
    assert said.reused
    assert {c.name: (c.correct, c.pass_rate.value) for c in said.report.of("probe").categories} == {
        "color": (5, 1.0),
        "hue": (0, 0.0),
        "negation": (0, 0.0),
    }
    assert all(row["claim"] != "x" for row in rows(store, next_out, tmp_path))


def test_answers_that_were_written_again_after_they_were_published_are_not_reused(store):
    next_out = "s3://dpe/team/shapes-2-ffffffff/diagnosis"
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        store.put(f"{OUT}/items.parquet", b"of an attempt that was thought to be lost")
        run(worlds.diagnosis(model.url, reuse=OUT, output=next_out), store)
    assert not summary(store, next_out).reused


def test_an_attempt_that_comes_second_leaves_the_files_of_the_first_as_they_are(store, monkeypatch):
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        before = dict(store.objects)
        looks = iter([None])  # at its start nothing was published
        found = store.manifest
        monkeypatch.setattr(store, "manifest", lambda folder: next(looks, found(folder)))
        with pytest.raises(AlreadyPublished, match="another attempt came first"):
            run(worlds.diagnosis(model.url, attempt=2, seed=8), store)
    promised = {f"{OUT}/{name}" for name in ("items.parquet", "report.json", "report.html", "mixture.json")}
    assert {uri for uri in promised if store.objects[uri] != before[uri]} == set()


def test_answers_are_not_reused_when_the_probe_was_uploaded_again(store):
    next_out = "s3://dpe/team/shapes-2-ffffffff/diagnosis"
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url), store)
        worlds.upload(store, worlds.PROBE_URI, worlds.questions(11))
        run(worlds.diagnosis(model.url, reuse=OUT, output=next_out), store)
    assert not summary(store, next_out).reused


def test_a_missing_probe_names_its_address(store):
    store.delete([f"{worlds.PROBE_URI}/part-0.parquet"])
    with pytest.raises(NotFound, match=r"s3://dpe/data/probe holds no .parquet file"):
        run(worlds.diagnosis("http://127.0.0.1:1"), store)


def test_a_category_that_the_sample_missed_is_reported_and_explored(store):
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url, probe=Probe(uri=worlds.PROBE_URI, sample_size=2)), store)
    said = summary(store)
    missed = next(c for c in said.report.of("probe").categories if c.n == 0)
    assert (missed.accuracy.low, missed.accuracy.high, missed.pass_rate) == (0.0, 1.0, None)
    assert next(q for q in said.quotas if q.name == missed.name).weight == pytest.approx(0.02)


def adaptive(url: str, **changes: object) -> DiagnosisLaunch:
    probe = Probe(uri=worlds.PROBE_URI, sample_size=40, adaptive_share=0.5)
    return worlds.diagnosis(url, probe=probe, **{"benchmarks": [], **changes})


def half(asked: Asked) -> list[str]:
    """Right on every other colour, on all negations, on no hue."""
    number, category = int(asked.question.split(":")[0].split()[1]), asked.question.split()[0]
    right = category == "negation" or (category == "color" and number % 2)
    return [worlds.truth(asked) if right else "purple"] * asked.n


def test_the_last_rows_are_asked_where_the_interval_is_widest(tmp_path):
    store = MemoryStore()
    worlds.fill(store, per_category=30)
    with serving(half) as model:
        run(adaptive(model.url), store)
        assert len(model.requests) == 80
    n = {c.name: c.n for c in summary(store).report.of("probe").categories}
    assert sum(n.values()) == 40
    assert n["color"] > max(n["hue"], n["negation"])
    items = rows(store, OUT, tmp_path)
    assert all(r["response"] and len(r["rollouts"]) == 3 for r in items)


def test_a_lost_adaptive_diagnosis_ends_as_an_undisturbed_one(tmp_path):
    found = []
    for dies_at in (None, 15, 45, 62):
        store = MemoryStore()
        worlds.fill(store, per_category=30)

        def script(asked: Asked, dies_at: int | None = dies_at) -> list[str] | Reply:
            return half(asked) if dies_at is None or asked.number < dies_at else Reply(status=400)

        with serving(script) as model:
            if dies_at is not None:
                with pytest.raises(Transient):
                    run(adaptive(model.url), store)
                model.script = half
            run(adaptive(model.url, attempt=2), store)
        found.append((store.get(f"{OUT}/report.json"), rows(store, OUT, tmp_path)))
    assert all(other == found[0] for other in found[1:])


def test_each_round_asks_other_rows(tmp_path):
    store, asked = MemoryStore(), []
    worlds.fill(store)
    with serving(worlds.knows("color")) as model:
        for number in range(2):
            folder = f"s3://dpe/team/round-{number}/diagnosis"
            run(worlds.diagnosis(model.url, round=number, output=folder), store)
            asked.append({r["id"] for r in rows(store, folder, tmp_path) if r["set"] == "probe"})
    assert len(asked[0]) == len(asked[1]) == 15
    assert not asked[0] & asked[1]


def test_rollouts_that_did_not_come_leave_the_greedy_answer_standing(store, tmp_path):
    def no_rollouts(asked: Asked) -> list[str] | Reply:
        if asked.sampled and asked.question.startswith("color"):
            return Reply(status=400, body=b"no sampling")
        return worlds.knows("color")(asked)

    launch = worlds.diagnosis("http://x", diagnosis=worlds.settings(max_error_rate=0.4))
    with serving(no_rollouts) as model:
        run(launch.model_copy(update={"model": launch.model.model_copy(update={"url": model.url})}), store)
    color = next(c for c in summary(store).report.of("probe").categories if c.name == "color")
    assert (color.n, color.errors, color.accuracy.value, color.pass_rate) == (5, 0, 1.0, None)
    items = [r for r in rows(store, OUT, tmp_path) if r["set"] == "probe" and r["category"] == "color"]
    assert all(r["correct"] and r["rollouts"] == [] and "no sampling" in r["error"] for r in items)


@pytest.mark.parametrize("name", ["items", "pool", "categories", "mixture", "report"])
def test_a_benchmark_may_be_named_as_a_file_of_the_stage_is(store, name):
    with serving(worlds.knows("color")) as model:
        run(worlds.diagnosis(model.url, benchmarks=[{"name": name, "uri": worlds.TEST_URI}]), store)
    assert [s.name for s in summary(store).report.sets] == ["probe", name]


def test_a_benchmark_named_as_the_probe_is_refused(store):
    with pytest.raises(BadConfig, match="a benchmark is named probe"):
        run(worlds.diagnosis("http://127.0.0.1:1", benchmarks=[{"name": "probe", "uri": worlds.TEST_URI}]), store)
