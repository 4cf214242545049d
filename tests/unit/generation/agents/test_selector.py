import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image
from tests.fakes.endpoints import block
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, Script, calling, complaint, completion, serving, storm
from tests.unit.generation.agents.given import (
    PHOTO,
    Brush,
    Gallery,
    Pencil,
    Program,
    client_of,
    colour_of,
    of,
    picture,
    target,
)

from dpe_api.agents_spec import SelectorAgent
from dpe_api.endpoints import SpendingLimit
from dpe_api.generation_spec import SourceKind
from dpe_jobs.client import BudgetSpent, EndpointDown, RequestFailed
from dpe_jobs.generation.agents.selector import EndpointSelector, Sources
from dpe_jobs.generation.agents.tools import Hands, Refuses, anything_goes
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.roles import Target
from dpe_jobs.generation.search.supply import Found

SETTINGS = SelectorAgent(endpoint="teacher", max_steps=6)
FOUND = Gallery(
    [
        [("A wren, CC0, 800 x 600", picture("red")), ("A crow, 640 x 480", "NotAnImage: it is HTML")],
        [("Two owls", picture("lime"))],
    ]
)
SOURCES = Sources(
    searches={PHOTO: FOUND},
    pools={"pool:birds": Gallery([[("in the pool", picture("yellow", SourceKind.POOL))]])},
    drawers={"render:birds": Pencil()},
    editors={"edit:editor": Brush()},
)


async def select(
    model,
    wanted: Target | None = None,
    *,
    settings: SelectorAgent = SETTINGS,
    store: MemoryStore | None = None,
    refuses: Refuses = anything_goes,
    **changes: Any,
) -> Picture:
    async with client_of(model, store, **changes) as client:
        selector = EndpointSelector(client, of(model, **changes), settings, SOURCES, Program(), refuses)
        return await selector.select(wanted or target())


def steps(*said: Reply | Sequence[tuple[str, object]]) -> Script:
    """One reply after the other; the last one for ever."""
    replies = [s if isinstance(s, Reply) else calling(*s) for s in said]

    def script(asked: Asked) -> Reply:
        turns = sum(m["role"] == "assistant" for m in asked.body["messages"])
        return replies[min(turns, len(replies) - 1)]

    return script


SEARCH = [("search_images", {"query": "birds on a wire"})]
USE = [("use_image", {"number": 1})]


def offered(asked: Asked) -> set[str]:
    return {tool["function"]["name"] for tool in asked.body["tools"]}


async def test_it_searches_looks_and_ends_with_a_picture_and_the_calls_that_found_it():
    with serving(steps(SEARCH, [("look_at", {"number": 1})], USE)) as model:
        found = await select(model)
        _, after_search, after_look = model.requests
    assert colour_of(after_look.images[-1]) == (255, 0, 0), "what it looks at is shown"
    assert block(after_search.results[0], "results") == "1. A wren, CC0, 800 x 600\n2. A crow, 640 x 480"
    assert found.origin == picture("red").origin
    assert [(c["tool"], c["result"]) for c in found.tool_calls] == [
        ("search_images", "2 images"),
        ("look_at", "64 x 48"),
        ("use_image", "red"),
    ]
    assert found.tool_calls[0]["arguments"] == {"query": "birds on a wire", "page": 1}


async def test_it_is_told_of_the_target_and_of_nothing_else():
    with serving(steps(SEARCH, USE)) as model:
        await select(model, target(difficulty="harder"))
        asked = model.requests[0]
    assert block(asked.question, "weakness") == "miscounts birds that overlap"
    assert block(asked.question, "facets") == "- light: dusk"
    assert block(asked.question, "query") == "birds on a wire"
    assert offered(asked) == {"search_images", "give_up"}, "there is no picture yet"
    assert (asked.body["tool_choice"], asked.body["parallel_tool_calls"]) == ("required", False)
    search = next(t["function"] for t in asked.body["tools"] if t["function"]["name"] == "search_images")
    assert search["description"].startswith("Search the web for images.")
    assert search["parameters"]["properties"]["query"]["maxLength"] == 120, "a weak model would write without end"
    assert (asked.body["max_tokens"], asked.body["temperature"]) == (1024, 0.3)


@pytest.mark.parametrize(
    ("kind", "source", "tools"),
    [
        (SourceKind.POOL, "pool:birds", {"pool_search"}),
        (SourceKind.RENDER, "render:birds", {"render"}),
        (SourceKind.EDIT, "edit:editor", {"search_images", "pool_search", "render", "edit_image"}),
    ],
)
async def test_a_target_has_the_tools_of_its_source_so_that_shares_stay_what_they_are(kind, source, tools):
    with serving(steps([("give_up", {"reason": "no"})])) as model:
        with pytest.raises(NoImage, match="gave up: no"):
            await select(model, target(kind=kind, source=source))
        assert offered(model.requests[0]) == tools - {"edit_image"} | {"give_up"}


async def test_originals_of_an_edit_are_drawn_in_categories_that_the_program_has_and_no_others():
    with serving(steps([("give_up", {"reason": "no"})])) as model:
        with pytest.raises(NoImage, match="gave up: no"):
            await select(model, target(kind=SourceKind.EDIT, source="edit:editor", category="fish"))
        assert offered(model.requests[0]) == {"search_images", "pool_search", "give_up"}


def arguments(asked: Asked, tool: str) -> Any:
    """The schemas of a tool's arguments as they were sent."""
    return next(t["function"] for t in asked.body["tools"] if t["function"]["name"] == tool)["parameters"]["properties"]


async def test_numbers_are_offered_as_far_as_there_are_pictures_and_knobs_by_their_values():
    drawn = target(kind=SourceKind.EDIT, source="edit:editor")
    with serving(steps(SEARCH, [("pool_search", {"query": "owl"})], [("give_up", {"reason": "no"})])) as model:
        with pytest.raises(NoImage, match="gave up: no"):
            await select(model, drawn)
        first, second, third = model.requests
    assert "maximum" not in str(arguments(first, "render"))
    assert arguments(first, "render")["knobs"]["properties"] == {"colour": {"type": "string", "enum": ["red", "lime"]}}
    numbered = ("look_at", "use_image", "edit_image")
    assert {arguments(second, tool)["number"]["maximum"] for tool in numbered} == {2}
    assert {arguments(third, tool)["number"]["maximum"] for tool in numbered} == {3}


async def test_a_picture_is_shown_once_for_servers_take_only_so_many_images():
    look = [("look_at", {"number": 1})]
    with serving(steps(SEARCH, look, look, USE)) as model:
        await select(model)
        last = model.requests[-1]
    assert len(last.images) == 1
    assert "picture 1 was shown before" in last.results[-1]


async def test_pages_go_on_counting():
    with serving(
        steps(SEARCH, [("search_images", {"query": "x", "page": 2})], [("use_image", {"number": 3})])
    ) as model:
        assert (await select(model)).origin.id == "lime"


async def test_a_picture_that_cannot_be_had_or_used_is_told_and_another_one_is_taken():
    async def no_red(wanted: Target, found: Picture) -> str | None:
        return "its licence is unknown" if found.origin.id == "red" else None

    wanted = steps(
        SEARCH,
        [("use_image", {"number": 2})],
        USE,
        [("search_images", {"query": "x", "page": 2})],
        [("use_image", {"number": 3})],
    )
    with serving(wanted) as model:
        assert (await select(model, refuses=no_red)).origin.id == "lime"
        told = "\n".join(model.requests[-1].results)
    assert "NotAnImage: it is HTML" in told
    assert "picture 1 cannot be used: its licence is unknown" in told


async def test_it_draws_with_knobs_that_there_are_and_keeps_those_of_the_target():
    drawn = target(kind=SourceKind.RENDER, source="render:birds", knobs={"colour": "lime"})
    with serving(steps([("render", {"knobs": {"colour": "pink"}})], [("render", {"knobs": {}})], USE)) as model:
        assert (await select(model, drawn)).origin.id == "lime"
        assert (
            "there is no knob 'colour' with the value 'pink'. Knobs: colour: red, lime" in model.requests[1].results[0]
        )


async def test_an_edited_target_ends_with_an_edited_picture():
    wanted = steps(
        [("pool_search", {"query": "owl"})],
        USE,
        [("edit_image", {"number": 1, "instruction": "add a crowd"})],
        [("edit_image", {"number": 1, "instruction": "paint it blue"})],
        [("use_image", {"number": 2})],
    )
    with serving(wanted) as model:
        found = await select(model, target(kind=SourceKind.EDIT, source="edit:editor"))
        results = model.requests[-1].results
        assert colour_of(model.requests[-1].images[-1]) == (0, 0, 255)
    assert "this target is an edited picture" in results[1]
    assert "makes no pictures of people" in results[2]
    assert [o.id for o in found.origin.parents] == ["yellow"]
    assert found.origin.kind is SourceKind.EDIT


MISUSED: dict[str, list[tuple[str, object]]] = {
    "unknown tool": [("delete_everything", {"path": "/"})],
    "no JSON": [("search_images", "{query: birds")],
    "wrong type": [("search_images", {"query": ["birds"]})],
    "missing": [("look_at", {})],
    "no such number": [("look_at", {"number": 17})],
    "negative number": [("look_at", {"number": -1})],
    "page 0": [("search_images", {"query": "birds", "page": 0})],
    "failing search": [("search_images", {"query": "broken"})],
    "unknown argument": [("look_at", {"number": 1, "path": "/etc/passwd"})],
}


@pytest.mark.parametrize("calls", MISUSED.values(), ids=MISUSED.keys())
async def test_misuse_of_tools_is_told_to_the_model_which_may_go_on(calls):
    with serving(steps(calls, SEARCH, USE)) as model:
        assert (await select(model)).origin.id == "red"
        assert len(model.requests[1].results) == 1


async def test_a_selector_that_gives_up_because_nobody_answered_tells_of_an_outage():
    broken, give_up = [("search_images", {"query": "broken"})], [("give_up", {"reason": "no"})]
    edited = target(kind=SourceKind.EDIT, source="edit:editor", knobs={"colour": "lime"})
    outages = []
    for wanted, said in (
        (target(), [broken, give_up]),
        (target(), [broken]),
        (target(), [SEARCH, give_up]),
        (target(), [broken, SEARCH, [("look_at", {"number": 1})], give_up]),
        (edited, [broken, [("render", {"knobs": {}})], give_up]),
    ):
        with serving(steps(*said)) as model, pytest.raises(NoImage) as caught:
            await select(model, wanted)
        outages.append(caught.value.outage)
    assert outages == [True, True, False, False, False]


async def test_pictures_that_were_looked_at_are_brought_again_and_not_kept_in_memory():
    brought: list[weakref.ref[Image.Image]] = []

    async def load() -> Picture:
        found = picture("red")
        brought.append(weakref.ref(found.image))
        return found

    class One:
        async def find(self, query: str, page: int) -> list[Found]:
            return [Found("A wren", load)]

    hands = Hands(target(), searches=One(), drawer=Pencil(), editor=Brush())
    await hands.search_images("wren")
    await hands.look_at(1)
    await hands.edit_image(1, "paint it blue")
    await hands.render({"colour": "lime"})
    gc.collect()
    assert [image() for image in brought] == [None] * len(brought)
    assert [(await hands._picture(number)).origin.id for number in (1, 2, 3)] == ["red", "e1000", "lime"]


async def test_words_instead_of_a_call_are_answered_by_a_reminder():
    with serving(steps(completion("I think the wren is nice."), SEARCH, USE)) as model:
        assert (await select(model)).origin.id == "red"


@pytest.mark.parametrize(
    "said",
    [SEARCH, [("delete_everything", {})], [("search_images", "{")], completion("Let me think."), completion("")],
    ids=["searches", "unknown tool", "no JSON", "words", "nothing"],
)
async def test_a_loop_that_never_ends_is_ended_after_its_steps(said):
    with serving(steps(said)) as model:
        with pytest.raises(NoImage, match="endpoint teacher"):
            await select(model)
        assert len(model.requests) <= SETTINGS.max_steps


async def test_a_loop_is_ended_by_its_tokens_too():
    few = SelectorAgent(endpoint="teacher", max_steps=60, max_tokens_per_target=1000)
    long = steps(Reply(body=calling(*SEARCH).body.replace(b'"prompt_tokens": 10', b'"prompt_tokens": 400')))
    with serving(long) as model:
        with pytest.raises(NoImage, match=r"total_tokens_limit of 1000.*it called search_images, search_images"):
            await select(model, settings=few)
        assert len(model.requests) == 3


async def test_many_calls_at_once_are_done_in_order():
    with serving(
        steps(SEARCH, [("look_at", {"number": 1}), ("search_images", {"query": "x", "page": 2})], USE)
    ) as model:
        found = await select(model)
    assert [c["tool"] for c in found.tool_calls] == ["search_images", "look_at", "search_images", "use_image"]


async def test_a_model_that_declines_finds_no_image():
    with serving(steps(completion(None, refusal="I do not look at birds"))) as model, pytest.raises(NoImage):
        await select(model)


async def test_a_storm_of_429_is_waited_out_inside_a_loop():
    with serving(storm(steps(SEARCH, USE), times=3, retry_after_s=0.1)) as model:
        assert (await select(model)).origin.id == "red"
        assert len(model.requests) == 2 + 3


@pytest.mark.parametrize(
    ("refuses", "demands"),
    [
        (lambda body: "parallel_tool_calls" in body, ["required, one", "required", "required"]),
        (lambda body: body["tool_choice"] == "required", ["required, one", "required", "auto", "auto"]),
    ],
    ids=["one call at a time", "required"],
)
async def test_a_server_that_refuses_a_demand_is_asked_without_it_from_then_on(refuses, demands):
    def old(asked: Asked) -> list[str] | Reply:
        return complaint(400, "not supported with this model") if refuses(asked.body) else steps(SEARCH, USE)(asked)

    with serving(old) as model:
        assert (await select(model)).origin.id == "red"
        bodies = [asked.body for asked in model.requests]
    assert [b["tool_choice"] + ", one" * (b.get("parallel_tool_calls") is False) for b in bodies] == demands


@pytest.mark.parametrize(
    ("reply", "error"),
    [(Reply(status=400), RequestFailed), (Reply(status=503), RequestFailed), (Reply(hang_up=True), RequestFailed)],
)
async def test_an_endpoint_that_fails_in_the_middle_is_an_error_and_not_a_missing_image(reply, error):
    with serving(steps(SEARCH, reply)) as model:
        with pytest.raises(error, match="endpoint teacher") as caught:
            await select(model)
        assert not isinstance(caught.value, EndpointDown)


async def test_a_budget_that_ends_in_the_middle_is_told_as_such():
    with serving(steps(SEARCH, USE)) as model:
        with pytest.raises(BudgetSpent, match=r"the budget of endpoint teacher \(1040 tokens\) is used up: 12 tokens"):
            await select(model, budget=SpendingLimit(tokens=1040))
        assert len(model.requests) == 1


async def test_a_target_that_is_begun_again_costs_nothing_and_ends_with_the_same_picture():
    store = MemoryStore()
    with serving(steps(SEARCH, [("look_at", {"number": 1})], USE)) as model:
        first = await select(model, store=store)
        again = await select(model, store=store)
        assert len(model.requests) == 3
    assert (first.origin, first.tool_calls) == (again.origin, again.tool_calls)


async def test_a_loop_that_broke_off_goes_on_where_it_was():
    store = MemoryStore()
    with serving(steps(SEARCH, [("look_at", {"number": 1})], Reply(status=500))) as model:
        with pytest.raises(RequestFailed):
            await select(model, store=store)
        before = len(model.requests)
        model.script = steps(SEARCH, [("look_at", {"number": 1})], USE)
        assert (await select(model, store=store)).origin.id == "red"
        assert len(model.requests) == before + 1


async def test_a_source_without_a_tool_is_left_to_the_program():
    with serving(steps(USE)) as model:
        assert (await select(model, target(kind=SourceKind.POOL, source="pool:fish"))).origin.id == "by program"
        assert model.requests == []
