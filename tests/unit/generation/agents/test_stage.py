"""The whole stage with agents by endpoint: quotas, budgets, restarts, and what a broken endpoint does to it."""

import io
from typing import Any

import pytest
from PIL import Image
from tests.fakes.endpoints import endpoint
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, FakeModel, Reply, Script, completion, serving, storm
from tests.unit.generation import world
from tests.unit.generation.agents.given import ANSWER, QUESTION, Cast, role

from dpe_api.endpoints import Price, SpendingLimit
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.run import run
from dpe_jobs.runtime import BadConfig, BadData, Transient

ASKS = "what shape is present?"
AGENTS = {name: {"endpoint": "teacher"} for name in ("planner", "writer", "validator")}
QUOTA = 12


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    world.fill(store, {"shape": QUOTA})
    return store


def seen(asked: Asked) -> str:
    """What shape is in the picture that was sent: read from its pixels."""
    with Image.open(io.BytesIO(asked.image)) as image:
        return Shapes().answer(image, ASKS)


def right(asked: Asked) -> dict[str, Any]:
    return QUESTION | {"question": ASKS, "answer": seen(asked), "answer_type": "exact"}


def blind(asked: Asked) -> dict[str, Any]:
    return ANSWER | {"answer": seen(asked)}


def teacher(**changes: Any) -> Cast:
    return Cast(**{"write": right, "answer": blind, **changes})


def make(
    model: FakeModel, solver: FakeModel, store: MemoryStore, *, agents: dict[str, Any] = AGENTS, **changes: Any
) -> None:
    told = world.launch(
        solver.url,
        generation={"target_samples": QUOTA, "max_candidates": 120, **agents},
        endpoints=[endpoint(model, **changes)],
    )
    run(told, store)


def test_agents_fill_the_quota_exactly_with_right_answers_and_all_that_they_cost_is_told(store):
    with serving(teacher()) as model, serving(world.solves(0.5)) as solver:
        make(model, solver, store, price=Price(input=1000.0, output=0.0))
        asked = len(model.requests)
        assert {role(a) for a in model.requests} == {"plan", "observe", "write", "answer", "verify"}
        solved = len(solver.requests)
    said, kept = world.summary(store), world.samples(store)
    assert (said.kept, said.shortfall, len(kept)) == (QUOTA, 0, QUOTA)
    for row in kept:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert row["answer"] == Shapes().answer(image, ASKS)
    (spent,) = said.spending
    assert (spent.endpoint, spent.calls, spent.tokens.prompt, spent.budget_spent) == (
        "teacher",
        asked,
        10 * asked,
        False,
    )
    assert spent.cost == pytest.approx(0.01 * asked)
    assert said.tokens.prompt == 10 * (asked + solved)
    manifest = store.manifest(world.OUT)
    assert manifest is not None
    assert {f"prompt/{name}" for name in ("plan", "observe", "write", "answer", "verify")} <= manifest.versions.keys()


def test_a_writer_that_is_often_wrong_is_caught_by_blind_answers_though_the_validator_always_agrees(store):
    def careless(asked: Asked) -> dict[str, Any]:
        wrong = {"circle": "rectangle", "rectangle": "triangle", "triangle": "circle"}[seen(asked)]
        return right(asked) if asked.body["seed"] % 2 else right(asked) | {"answer": wrong}

    with serving(teacher(write=careless)) as model, serving(world.solves(0.5)) as solver:
        make(model, solver, store)
    assert world.summary(store).rejected["WrongAnswer"] > 0
    for row in world.samples(store):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert row["answer"] == Shapes().answer(image, ASKS)


@pytest.mark.parametrize(
    "budget", [SpendingLimit(tokens=70 * 12 + 1024), SpendingLimit(cost=0.95)], ids=["tokens", "cost"]
)
def test_a_budget_ends_the_stage_cleanly_with_what_it_has(store, budget):
    with serving(teacher()) as model, serving(world.solves(0.5)) as solver:
        make(model, solver, store, budget=budget, price=Price(input=1000.0, output=200.0), max_concurrency=1)
        asked = len(model.requests)
    said = world.summary(store)
    assert 0 < said.kept < QUOTA
    assert said.kept == len(world.samples(store))
    assert said.shortfall == QUOTA - said.kept
    assert [c.shortfall_reason for c in said.categories] == ["Budget"]
    (spent,) = said.spending
    assert spent.budget_spent
    assert spent.calls == asked
    if budget.tokens is not None:
        assert spent.tokens.prompt + spent.tokens.completion <= budget.tokens
    else:
        assert spent.cost is not None
        assert spent.cost <= 0.95


def test_a_budget_without_a_single_sample_is_bad_data_and_no_empty_artifact(store):
    with (
        serving(teacher()) as model,
        serving(world.solves(0.5)) as solver,
        pytest.raises(
            BadData, match=r"none of 0 .*the budget of endpoint teacher is used up: raise spec.endpoints\[\].budget"
        ),
    ):
        make(model, solver, store, budget=SpendingLimit(tokens=1030))
    assert store.manifest(world.OUT) is None


def dying(script: Script, after: int) -> Script:
    def fails(asked: Asked) -> list[str] | Reply:
        return script(asked) if asked.number < after else Reply(status=503)

    return fails


def test_an_endpoint_that_dies_in_the_middle_ends_the_attempt_and_the_next_one_pays_for_nothing_twice(store):
    with serving(dying(teacher(), 25)) as model, serving(world.solves(0.5)) as solver:
        with pytest.raises(Transient, match="endpoint teacher") as caught:
            make(model, solver, store)
        assert caught.value.reason in ("EndpointDown", "ErrorRate")
        model.script = teacher()
        answered, before = model.requests[:25], len(model.requests)
        make(model, solver, store)
        again = model.requests[before:]
    bodies = [repr(a.body) for a in answered]
    assert not [a for a in again if repr(a.body) in bodies], "what was answered is in the ledger"
    said = world.summary(store)
    assert said.kept == QUOTA
    assert said.spending[0].calls == 25 + len(again)


def test_a_storm_of_429_delays_and_changes_nothing(store):
    other = MemoryStore()
    world.fill(other, {"shape": QUOTA})
    with serving(world.solves(0.5)) as solver:
        with serving(storm(teacher(), times=20, retry_after_s=0.05)) as model:
            make(model, solver, store)
        with serving(teacher()) as model:
            make(model, solver, other)
    rows = [[(r["id"], r["question"], r["answer"]) for r in world.samples(s)] for s in (store, other)]
    assert rows[0] == rows[1]


def test_a_teacher_that_always_declines_is_a_shortfall_with_that_reason_and_no_retries(store):
    refusing = teacher(write=completion(None, refusal="I will not look at shapes"))
    with serving(refusing) as model, serving(world.solves(0.5)) as solver:
        with pytest.raises(BadData, match=r"none of \d+ candidates was kept \(\d+ Declined\)"):
            make(model, solver, store)
        assert len({a.body["seed"] for a in model.requests if role(a) == "write"}) == sum(
            role(a) == "write" for a in model.requests
        )


def test_replies_without_form_are_errors_of_the_service_and_too_many_end_the_attempt(store):
    ends = pytest.raises(Transient, match=r"more than maxErrorRate allows.*no reply of 3 has the form")
    with serving(teacher(verify="Sure, looks good!")) as model, serving(world.solves(0.5)) as solver, ends as caught:
        make(model, solver, store)
    assert caught.value.reason == "ErrorRate"
    assert store.manifest(world.OUT) is None


def test_slow_replies_time_out_as_the_spec_says(store):
    ends = pytest.raises(Transient, match="ReadTimeout")
    with serving(lambda asked: Reply(delay_s=3)) as model, serving(world.solves(0.5)) as solver, ends:
        make(model, solver, store, timeout_seconds=1, max_concurrency=32)


def test_a_refused_key_ends_the_stage_at_once(store):
    with serving(lambda asked: Reply(status=401)) as model, serving(world.solves(0.5)) as solver:
        with pytest.raises(BadConfig, match="API key is missing"):
            make(model, solver, store)
        assert len(model.requests) <= 4
