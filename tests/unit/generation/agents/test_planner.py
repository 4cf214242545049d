import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.fakes.endpoints import block
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Reply, completion, serving
from tests.unit.generation.agents.given import AIM, EXAMPLES, Cast, client_of, of, target

from dpe_api.agents_spec import PlannerAgent
from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import SourceKind
from dpe_jobs.client import RequestFailed
from dpe_jobs.generation.agents.planner import EndpointPlanner
from dpe_jobs.generation.roles import Aim, Difficulty, Feedback, Order, Rejection, Target

SETTINGS = PlannerAgent(endpoint="teacher")
AIMS = {"birds": [AIM, Aim("calls crows ravens", {}, ("p-2",))]}
DRAWN = "render:birds"
FOUND = "search:wikimedia"


@dataclass
class Offered:
    name: str
    options: Mapping[str, tuple[str, ...]]
    program: object | None = None

    def supplies(self, category: str) -> bool:
        return True

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return self.options

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        return (" ".join([category, *knobs.values()]),)


OFFERS = [Offered(DRAWN, {"birds": ("1", "2", "3")}, program="birds"), Offered(FOUND, {})]


class Alternating:
    """Plans by turns from both sources."""

    async def plan(self, order: Order) -> Sequence[Target]:
        return [
            target(n, kind=SourceKind.RENDER, source=DRAWN, knobs={"birds": "1"}, query="")
            if n % 2
            else target(n, source=FOUND, knobs={}, query="bird")
            for n in range(order.first, order.first + order.count)
        ]


class Wordless:
    """Plans for the search, and says nothing of what to look for, as the programmatic planner does."""

    async def plan(self, order: Order) -> Sequence[Target]:
        return [target(n, source=FOUND, knobs={}, query="") for n in range(order.first, order.first + order.count)]


def order(count: int, first: int = 0, feedback: Feedback | None = None) -> Order:
    return Order("birds", first, count, feedback or Feedback())


async def plan(model, *orders: Order, store: MemoryStore | None = None) -> list[Target]:
    async with client_of(model, store) as client:
        planner = EndpointPlanner(Alternating(), client, of(model), SETTINGS, OFFERS, AIMS, EXAMPLES, 7)
        return [t for one in orders for t in await planner.plan(one)]


def proposal(source: str = FOUND, **changes: Any) -> dict[str, Any]:
    return {
        "aim": 2,
        "source": source,
        "facets": [{"name": "light", "value": "fog"}],
        "question_type": "number",
        "difficulty": "harder",
        "query": "ravens in fog",
        **changes,
    }


async def test_proposals_fill_what_the_program_planned_each_in_a_target_of_its_source():
    drawn = proposal(DRAWN, facets=[{"name": "birds", "value": "3"}], query="")
    with serving(Cast(plan={"targets": [proposal(), drawn]})) as model:
        planned = await plan(model, order(4))
    assert [t.number for t in planned] == [0, 1, 2, 3]
    found, rendered, *rest = planned
    assert (found.source, found.knobs, found.query) == (FOUND, {"light": "fog"}, "ravens in fog")
    assert (found.aim, found.difficulty, found.question_type) == (
        AIMS["birds"][1],
        Difficulty.HARDER,
        AnswerType.NUMBER,
    )
    assert (rendered.source, rendered.knobs) == (DRAWN, {"birds": "3"})
    assert rendered.question_type is None, "a program asks as it can"
    assert [t.query for t in rest] == ["bird", ""], "for the others it proposed nothing"


WILD = {
    "too many": [proposal() for _ in range(5000)],
    "none": [],
    "one": [proposal()],
    "all from one source": [proposal(DRAWN)] * 50,
    "other sources": [proposal("search:darkweb"), proposal("")],
    "other categories": [proposal() | {"category": "weapons", "count": 9}],
    "odd words": [
        proposal(
            aim=99, question_type="essay", difficulty="impossible", facets=[{"name": "x" * 9000, "value": "y"}] * 99
        )
    ],
}


@pytest.mark.parametrize("proposals", WILD.values(), ids=WILD.keys())
async def test_quotas_numbers_sources_and_seeds_are_exact_whatever_a_model_proposes(proposals):
    with serving(Cast(plan={"targets": proposals})) as model:
        planned = await plan(model, order(50, first=7))
        assert len(model.requests) == 3, "one request for each batch, and no other"
    program = await Alternating().plan(order(50, first=7))
    assert [(t.number, t.category, t.source, t.kind, t.seed, t.retention) for t in planned] == [
        (t.number, t.category, t.source, t.kind, t.seed, t.retention) for t in program
    ]
    for planned_one in planned:
        if planned_one.source == DRAWN:
            assert planned_one.knobs.keys() == {"birds"}
            assert planned_one.knobs["birds"] in ("1", "2", "3")
        assert len(planned_one.knobs) <= 6
        assert all(len(name) <= 80 and len(value) <= 80 for name, value in planned_one.knobs.items())


async def test_knobs_that_a_program_does_not_have_leave_it_as_it_was():
    wrong = [{"name": "birds", "value": "-1"}, {"name": "__class__", "value": "x"}]
    with serving(Cast(plan={"targets": [proposal(DRAWN, facets=wrong)] * 2})) as model:
        planned = await plan(model, order(4))
    assert [t.knobs for t in planned if t.source == DRAWN] == [{"birds": "1"}] * 2


async def test_it_sees_weaknesses_failures_with_images_and_what_became_of_earlier_targets():
    feedback = Feedback()
    feedback.add(target(), None)
    feedback.add(target(1, query="dodo"), Rejection("NoImage", "nothing for 'dodo'"))
    with serving(Cast()) as model:
        await plan(model, order(2, 2, feedback))
        (asked,) = model.requests
    assert block(asked.question, "aims") == "1. miscounts birds that overlap\n2. calls crows ravens"
    assert block(asked.question, "examples") == "- image 1: asked 'How many birds?', it said '5'; right is '4'"
    assert asked.images == (b"\xff\xd8\xff small",)
    told = block(asked.question, "feedback")
    assert told.startswith("1 kept; rejected: 1 NoImage.")
    assert "query 'dodo': NoImage: nothing for 'dodo'" in told
    assert f"- {DRAWN}: 1 targets. Knobs: birds: 1, 2, 3" in asked.question
    assert f"- {FOUND}: 1 targets. No knobs" in asked.question


async def test_the_schema_lists_sources_types_and_weaknesses_and_bounds_the_number():
    with serving(Cast()) as model:
        await plan(model, order(4))
        schema = model.requests[0].body["response_format"]["json_schema"]["schema"]
    targets = schema["properties"]["targets"]
    assert (targets["minItems"], targets["maxItems"]) == (4, 4)
    one = schema["$defs"]["Target"]
    assert one["properties"]["source"]["enum"] == [DRAWN, FOUND]
    assert (one["properties"]["aim"]["minimum"], one["properties"]["aim"]["maximum"]) == (1, 2)
    assert set(one["required"]) == set(one["properties"])


@pytest.mark.parametrize("said", ["I would rather not say.", completion(None, refusal="no"), '{"targets": 3}'])
async def test_a_planner_that_says_nothing_usable_leaves_the_programs_plan_and_it_is_told(said, caplog):
    caplog.set_level(logging.WARNING)
    with serving(Cast(plan=said)) as model:
        planned = await plan(model, order(4))
    assert [t.query for t in planned] == [t.query for t in await Alternating().plan(order(4))]
    assert "birds: 4 targets are planned by program" in caplog.text


async def test_a_planner_that_cannot_be_reached_is_an_error_and_no_plan():
    with serving(Cast(plan=Reply(status=400))) as model, pytest.raises(RequestFailed):
        await plan(model, order(4))


async def test_targets_that_look_for_the_same_are_numbered_over_all_blocks():
    with serving(Cast(plan={"targets": [proposal(), proposal(query="owls"), proposal()]})) as model:
        planned = await plan(model, order(6), order(6, 6))
    found = [(t.query, t.ordinal) for t in planned if t.source == FOUND]
    ravens, owls = "ravens in fog", "owls"
    assert found == [(ravens, 0), (owls, 0), (ravens, 1), (ravens, 2), (owls, 1), (ravens, 3)]
    assert max(Counter(found).values()) == 1


async def test_targets_of_a_source_that_a_program_reads_are_numbered_by_their_knobs_whatever_the_query():
    knobs = [{"name": "birds", "value": "3"}]
    queries = ("three ravens", "three owls", "")
    with serving(Cast(plan={"targets": [proposal(DRAWN, query=query, facets=knobs) for query in queries]})) as model:
        planned = await plan(model, order(8))
    assert [(t.knobs["birds"], t.ordinal) for t in planned if t.source == DRAWN] == [
        ("3", 0),
        ("3", 1),
        ("3", 2),
        ("1", 0),
    ]


async def test_targets_of_a_search_are_numbered_by_what_is_searched_for_whatever_the_facets():
    fog = [{"name": "light", "value": "fog"}]
    proposals = [
        proposal(query="birds fog", facets=[]),
        proposal(query="birds fog", facets=[{"name": "light", "value": "dusk"}]),
        proposal(query="", facets=fog),
    ]
    with serving(Cast(plan={"targets": proposals})) as model:
        async with client_of(model) as client:
            planner = EndpointPlanner(Wordless(), client, of(model), SETTINGS, OFFERS, AIMS, EXAMPLES, 7)
            planned = await planner.plan(order(3))
    assert [t.ordinal for t in planned] == [0, 1, 2], "the third is searched for by the same words"


async def test_a_plan_is_the_same_after_a_restart_and_costs_nothing_again():
    store = MemoryStore()
    script = Cast(plan=lambda asked: {"targets": [proposal(query=f"query {asked.number}")] * 2})
    with serving(script) as model:
        first = await plan(model, order(4), order(4, 4), store=store)
        assert len(model.requests) == 2
        assert await plan(model, order(4), order(4, 4), store=store) == first
        assert len(model.requests) == 2
