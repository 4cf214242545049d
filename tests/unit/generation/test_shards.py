import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving
from tests.unit.generation import world

from dpe_jobs.generation.run import run
from dpe_jobs.generation.shards import INDEX, Shard
from dpe_jobs.runtime import BadConfig, BadData, Transient

SHARDS = 3


def play(monkeypatch: pytest.MonkeyPatch, store: MemoryStore, url: str, index: int, **more: object) -> None:
    """One pod of the Indexed Job."""
    monkeypatch.setenv(INDEX, str(index))
    run(world.launch(url, generation={"shards": SHARDS, **more}), store)


def kept(store: MemoryStore) -> dict[str, str]:
    manifest = store.manifest(world.OUT)
    assert manifest is not None
    return {o.path: o.sha256 for o in manifest.outputs if o.path.startswith("samples/")}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 64))
def test_parts_of_quotas_sum_to_them_and_shards_have_about_as_much_to_do(wanted, count):
    quotas = world.quotas({f"c{i}": n for i, n in enumerate(wanted)}) if sum(wanted) else []
    parts = [Shard(index, count).quotas(quotas) for index in range(count)]
    for place, quota in enumerate(quotas):
        assert sum(part[place].quota for part in parts) == quota.quota
    loads = [sum(q.quota for q in part) for part in parts]
    assert max(loads) - min(loads) <= 1
    assert sum(Shard(i, count).part(1000) for i in range(count)) == 1000


def test_the_last_shard_publishes_one_artifact_with_disjoint_samples_and_exact_quotas(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        for index in range(SHARDS):
            assert store.manifest(world.OUT) is None
            play(monkeypatch, store, model.url, index)
        said, rows = world.summary(store), world.samples(store)
        assert said.tokens.prompt == 10 * len(model.requests)
    assert {c.name: c.kept for c in said.categories} == world.QUOTAS
    assert (said.target, said.kept, said.shortfall, len(rows)) == (22, 22, 0, 22)
    assert len({row["id"] for row in rows}) == len({row["image"]["bytes"] for row in rows}) == 22
    assert {row["id"].split("-")[0] for row in rows} == {"r0s00", "r0s01", "r0s02"}
    rejected = world.table(store, "rejected.parquet")
    assert len(rejected) == sum(said.rejected.values()) == said.candidates - said.kept


def test_a_killed_shard_resumes_alone_and_nothing_changes(store, monkeypatch):
    whole = MemoryStore()
    world.fill(whole)
    with serving(world.solves(0.5)) as model:
        for index in range(SHARDS):
            play(monkeypatch, whole, model.url, index)

    def dies(asked: Asked) -> list[str] | Reply:
        return Reply(status=400) if asked.number >= 4 else world.solves(0.5)(asked)

    with serving(world.solves(0.5)) as model:
        play(monkeypatch, store, model.url, 0)
        play(monkeypatch, store, model.url, 2)
    with serving(dies) as model, pytest.raises(Transient):
        play(monkeypatch, store, model.url, 1)
    with serving(world.solves(0.5)) as model:
        play(monkeypatch, store, model.url, 0)
        assert not model.requests, "a shard that has published has nothing to do"
        assert store.manifest(world.OUT) is None
        play(monkeypatch, store, model.url, 1)
    assert kept(store) == kept(whole)


def test_a_shard_that_died_between_its_manifest_and_that_of_all_puts_it_when_it_comes_back(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        for index in range(SHARDS):
            play(monkeypatch, store, model.url, index)
        manifest = store.objects.pop(f"{world.OUT}/manifest.json")
        asked = len(model.requests)
        play(monkeypatch, store, model.url, 1)
        assert len(model.requests) == asked
    assert kept(store)
    assert store.objects[f"{world.OUT}/manifest.json"] == manifest, "the same one, whoever puts it"


def test_nothing_kept_by_any_shard_is_bad_data(store, monkeypatch):
    world.put_diagnosis(store, {"shape": 6})
    with serving(world.solves(-2.0)) as model:
        for index in range(SHARDS - 1):
            play(monkeypatch, store, model.url, index, target_samples=6, max_candidates=30)
        with pytest.raises(BadData, match=r"none of 30 candidates was kept \(30 TooHard\)"):
            play(monkeypatch, store, model.url, 2, target_samples=6, max_candidates=30)


@pytest.mark.parametrize("told", ["", "3", "x"])
def test_a_pod_that_does_not_know_which_shard_it_is_says_so(store, monkeypatch, told):
    monkeypatch.setenv(INDEX, told)
    with pytest.raises(BadConfig, match=r"JOB_COMPLETION_INDEX is .*shards 3: 0 to 2"):
        run(world.launch("http://x", generation={"shards": SHARDS}), store)
