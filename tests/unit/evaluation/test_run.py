import json

import pyarrow.parquet as pq
import pytest
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving

from dpe_api.artifacts import Comparison, EvaluationSummary
from dpe_api.spec import Benchmark, Evaluation
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.diagnosis.run import run as diagnose
from dpe_jobs.evaluation.run import run
from dpe_jobs.runtime import BadConfig, BadData

OUT = f"{worlds.ROOT}/evaluation"


@pytest.fixture(scope="module")
def diagnosed() -> dict[str, bytes]:
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


def summary(store: MemoryStore) -> EvaluationSummary:
    manifest = store.manifest(OUT)
    assert manifest is not None
    return EvaluationSummary.model_validate(manifest.summary)


def test_a_better_candidate_is_accepted_on_the_same_rows(store, tmp_path):
    with serving(worlds.knows("color", "hue")) as model:
        run(worlds.evaluation(model.url), store)
    said = summary(store)
    assert said.accepted
    assert [(c.name, c.n) for c in said.comparisons] == [("probe", 15), ("test", 30)]
    test = said.comparisons[1]
    assert (test.before, test.after, test.delta.value) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert {c.name: c.delta.value for c in test.categories} == {"color": 0, "hue": 1, "negation": 0}
    assert "+0.333" in said.reason
    for folder in ("diagnosis", "evaluation"):
        store.download(f"{worlds.ROOT}/{folder}/items.parquet", tmp_path / folder)
    before, after = (pq.read_table(tmp_path / f) for f in ("diagnosis", "evaluation"))
    assert after.schema.equals(SCHEMA)
    rows = [sorted((r["set"], r["id"], len(r["rollouts"])) for r in t.to_pylist()) for t in (before, after)]
    assert rows[0] == rows[1]
    written = [Comparison.model_validate(c) for c in json.loads(store.get(f"{OUT}/comparison.json"))]
    assert written == said.comparisons


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


def test_a_benchmark_that_was_not_diagnosed_is_refused(store):
    extra = [Benchmark(name="other", uri=worlds.TEST_URI)]
    with pytest.raises(BadConfig, match="has no answers to other"):
        run(worlds.evaluation("http://127.0.0.1:1", benchmarks=extra), store)


def test_a_benchmark_that_lost_rows_is_refused(store):
    worlds.upload(store, worlds.TEST_URI, worlds.questions(9))
    with pytest.raises(BadData, match="lacks 3 rows that the diagnosis asked"):
        run(worlds.evaluation("http://127.0.0.1:1"), store)
