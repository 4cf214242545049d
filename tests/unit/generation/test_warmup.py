"""Samples for the warm-up: of categories out of reach, beside the quotas, and never among GRPO's."""

import json
from collections import Counter
from functools import partial

import pytest
from tests.fakes import entry_points
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import serving
from tests.unit.generation import test_review, world

from dpe_api.artifacts import AnswerType, Quota
from dpe_api.training_spec import Warmup
from dpe_jobs import asking
from dpe_jobs.generation.run import run
from dpe_jobs.generation.schedule import warmups
from dpe_jobs.lineage.samples import read_samples
from dpe_jobs.lineage.walk import Ancestor

WANTED = 10
WARMUP = Warmup(samples_per_category=WANTED, retention_share=0)


def with_shape_out_of_reach() -> MemoryStore:
    store = MemoryStore()
    world.fill(store)
    quotas = [q.model_copy(update={"reachable": q.name != "shape"}) for q in world.quotas()]
    store.put(f"{world.DIAGNOSIS}/mixture.json", json.dumps([q.wire() for q in quotas]).encode())
    return store


@pytest.fixture
def out_of_reach() -> MemoryStore:
    """A diagnosis that has `shape` out of reach."""
    return with_shape_out_of_reach()


def generate(store: MemoryStore, warmup: Warmup | None = WARMUP, **changes: object) -> None:
    with serving(world.solves(0.2)) as model:
        generation = {"max_candidates": 600, "review": changes.pop("review", "none")}
        launch = world.launch(model.url, generation=generation, **changes)
        run(launch.model_copy(update={"warmup": warmup}), store)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """A generation with a warm-up."""
    store = with_shape_out_of_reach()
    with pytest.MonkeyPatch.context() as patch:
        entry_points.install(tmp_path_factory.mktemp("programs"), patch)
        generate(store)
    return store


def warmup_rows(store: MemoryStore) -> list[dict[str, object]]:
    manifest = store.manifest(world.OUT)
    assert manifest is not None
    return [row for o in manifest.outputs if o.path.startswith("warmup/") for row in world.table(store, o.path)]


def test_a_category_out_of_reach_gets_as_many_samples_for_the_warm_up_as_are_asked_for(generated: MemoryStore):
    rows, said = warmup_rows(generated), world.summary(generated)
    assert Counter(row["category"] for row in rows) == {"shape": WANTED}
    assert all(row["pass_rate"] <= 0.8 and len(row["rollouts"]) == 9 for row in rows)
    assert any(row["pass_rate"] < 0.3 for row in rows)
    assert (said.warmup, {c.name: c.warmup for c in said.categories}) == (
        WANTED,
        {"color": 0, "color_fine": 0, "shape": WANTED},
    )


def test_the_quota_is_filled_by_the_solver_filter_as_ever_and_shares_no_sample_with_the_warm_up(
    generated: MemoryStore,
):
    kept, rejected = world.samples(generated), world.table(generated, "rejected.parquet")
    assert all(row["retention"] or 0.3 <= row["pass_rate"] <= 0.8 for row in kept)
    assert Counter(row["category"] for row in kept) == world.QUOTAS
    ids = [row["id"] for row in kept + rejected + warmup_rows(generated)]
    assert len(set(ids)) == len(ids) == world.summary(generated).candidates


def test_what_is_kept_for_the_warm_up_does_not_depend_on_concurrency(generated: MemoryStore, out_of_reach: MemoryStore):
    generate(out_of_reach, concurrency=1)
    assert warmup_rows(out_of_reach) == warmup_rows(generated)


def test_without_a_warm_up_nothing_but_quotas_is_kept(out_of_reach: MemoryStore):
    generate(out_of_reach, None)
    assert warmup_rows(out_of_reach) == []
    assert world.summary(out_of_reach).warmup == 0


def test_a_category_that_sampling_never_solves_gets_its_warm_up_and_a_shortfall(out_of_reach: MemoryStore):
    with serving(partial(nothing_of, "shape", world.solves(0.5))) as model:
        launch = world.launch(model.url, generation={"max_candidates": 200})
        run(launch.model_copy(update={"warmup": WARMUP}), out_of_reach)
    shape = next(c for c in world.summary(out_of_reach).categories if c.name == "shape")
    assert (shape.kept, shape.warmup, shape.shortfall_reason) == (0, WANTED, "MaxCandidates")
    assert {row["pass_rate"] for row in warmup_rows(out_of_reach)} == {0.0}
    assert shape.candidates == 200 * 6 // (22 + WANTED), "its part of maxCandidates, and not the warm-up's too"


def nothing_of(category: str, otherwise, asked):
    return [" purple"] * asked.n if category in asked.question else otherwise(asked)


def test_card_and_gallery_tell_of_the_warm_up(generated: MemoryStore):
    card, page = (generated.get(f"{world.OUT}/{name}").decode() for name in ("README.md", "gallery.html"))
    assert "path: warmup/*.parquet" in card
    assert "| shape | 6 | 6 | 10 |" in card
    assert 'data-warmup="10"' in page
    assert 'data-group="Warmup"' in page


def test_a_warm_up_sample_that_review_drops_is_gone_and_the_quota_is_not_short_of_it(out_of_reach: MemoryStore):
    generate(out_of_reach, review="required")
    rows = test_review.table(out_of_reach, "review.parquet")
    draft = out_of_reach.manifest(test_review.DRAFT)
    assert draft is not None
    (path,) = (o.path for o in draft.outputs if o.path.startswith("warmup/"))
    bad = test_review.table(out_of_reach, path)[0]["id"]
    test_review.mark(out_of_reach, [row | {"verdict": "drop" if row["id"] == bad else "keep"} for row in rows])
    test_review.accept(out_of_reach)
    said = world.summary(out_of_reach)
    assert (said.kept, said.warmup, said.shortfall) == (22, WANTED - 1, 0)
    assert bad not in {row["id"] for row in warmup_rows(out_of_reach)}
    assert said.rejected["Reviewed"] == 1


def test_the_lineage_names_warm_up_samples_as_what_trained_a_model(generated: MemoryStore):
    manifest = generated.manifest(world.OUT)
    found = {s.id for s in read_samples(generated, Ancestor(world.OUT, None, None, manifest))}
    assert found == {row["id"] for row in world.samples(generated) + warmup_rows(generated)}


def test_retention_samples_of_all_other_categories_lie_beside_them_whatever_their_difficulty(out_of_reach: MemoryStore):
    generate(out_of_reach, Warmup(samples_per_category=WANTED, retention_share=0.6))
    rows = warmup_rows(out_of_reach)
    assert Counter((row["category"], row["retention"]) for row in rows) == {
        ("shape", False): WANTED,
        ("color", True): 8,
        ("color_fine", True): 8,
    }
    assert all((row["pass_rate"] is None) == (row["category"] == "color") for row in rows), "strong ones are not asked"
    assert any(row["pass_rate"] < 0.3 for row in rows if row["category"] == "color_fine")


def test_what_is_out_of_reach_is_warmed_up_beside_all_others_and_no_more_than_their_sources_can_add():
    def quota(name: str, *, reachable: bool = True, strong: bool = False, supply: int | None = None) -> Quota:
        return Quota(name=name, weight=0.2, quota=4, reachable=reachable, retention=strong, supply=supply)

    quotas = [
        quota("color", strong=True),
        quota("exist", strong=True, supply=10),
        quota("shape"),
        quota("negation", reachable=False),
        quota("map", reachable=False, supply=9),
        quota("chart", reachable=False, supply=0),
    ]
    found = warmups(quotas, Warmup(samples_per_category=64, retention_share=0.5))
    assert found == {"negation": 64, "map": 5, "chart": 0, "color": 23, "exist": 6, "shape": 23}
    assert warmups(quotas, None) == {}
    assert warmups(quotas[:3], WARMUP) == {"color": 0, "exist": 0, "shape": 0}, "nothing is out of reach"


@pytest.mark.parametrize(
    ("question", "answer", "choices", "kind", "response"),
    [
        ("what color is it?", "teal", (), AnswerType.EXACT, "teal"),
        ("which one?", "teal", ("red", "teal"), AnswerType.CHOICE, "B"),
        (r"x? Put it in \boxed{}.", "4", (), AnswerType.NUMBER, r"\boxed{4}"),
        ("x? Put it in <answer> tags.", "4", (), AnswerType.NUMBER, "<answer>4</answer>"),
        ("x? Answer in JSON.", "4", (), AnswerType.NUMBER, '{"answer": "4"}'),
        ("x? Think in <think> tags, then <answer>.", "4", (), AnswerType.NUMBER, None),
    ],
)
def test_the_answer_is_written_in_the_form_that_its_question_asks_for(question, answer, choices, kind, response):
    assert asking.response(question, answer, choices, kind) == response
