"""Sources that no program can read, with agents by endpoint: a search, a pool, edits by a model, over real HTTP."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageOps
from tests.fakes import openai_images, worlds
from tests.fakes.endpoints import endpoint
from tests.fakes.image_searches import PATHS, PROVIDERS, Catalogue
from tests.fakes.image_searches import source as search_source
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, FakeModel, Reply, calling, serving
from tests.fakes.web import Answer, site
from tests.unit.generation import world
from tests.unit.generation.agents.given import ANSWER, QUESTION, Cast, role, target
from tests.unit.generation.pool.pools import COLORS, POOL, encoded, picture, put_parquet, row
from tests.unit.generation.quality.test_pictures import QWEN25

from dpe_api.endpoints import Endpoint
from dpe_api.generation_spec import Provider
from dpe_api.launch import Downloads, GenerationLaunch
from dpe_jobs import asking
from dpe_jobs.generation.agents.supplies import LookedUpPool
from dpe_jobs.generation.images import NoImage
from dpe_jobs.generation.pool import Pool
from dpe_jobs.generation.pool.build import Options, index_pool
from dpe_jobs.generation.pool.embed import Embedder
from dpe_jobs.generation.pool.shards import Columns
from dpe_jobs.generation.run import run
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import BadConfig, BadData

AGENTS = {name: {"endpoint": "teacher"} for name in ("planner", "selector", "writer", "validator")}
ASKS = "What is the mean brightness of the picture?"
QUOTA = 4


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    world.fill(store, {"shape": QUOTA})
    return store


def brightness(image: bytes) -> str:
    """Of an image that was sent: what everybody is asked about."""
    with Image.open(io.BytesIO(image)) as opened:
        grey = opened.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return str(grey)


def teacher(select: Any) -> Cast:
    return Cast(
        plan=lambda asked: {"targets": [{"aim": 1, "query": "disc", "source": _first_source(asked)}] * 99},
        select=select,
        write=lambda asked: QUESTION | {"question": ASKS, "answer": brightness(asked.image), "answer_type": "number"},
        answer=lambda asked: ANSWER | {"answer": brightness(asked.image)},
    )


def _first_source(asked: Asked) -> str:
    schema = asked.body["response_format"]["json_schema"]["schema"]
    sources = schema["$defs"]["Target"]["properties"]["source"]
    return str(sources.get("const") or sources["enum"][0])


def half_right(asked: Asked) -> list[str]:
    return [brightness(asked.image) if n % 2 else "-1" for n in range(asked.n)]


def run_with(store: MemoryStore, cast: Cast, sources: list[Any], *others: Any, most: int = 60, **changes: Any) -> None:
    with serving(cast) as model, serving(half_right) as solver:
        told = world.launch(
            solver.url,
            generation={"target_samples": QUOTA, "max_candidates": most, "sources": sources, **AGENTS},
            endpoints=[endpoint(model), *others],
            **changes,
        )
        run(told, store)
        asked = [schema for request in model.requests for schema in schemas(request)]
    assert {where for schema in asked for where in without_end(schema)} == set(), "a weak model would write for ever"


def schemas(asked: Asked) -> list[Any]:
    """Of the replies, and of the tools' arguments, that a request allows."""
    tools = [tool["function"]["parameters"] for tool in asked.body.get("tools", ())]
    form = asked.body.get("response_format", {}).get("json_schema", {}).get("schema")
    return tools if form is None else [*tools, form]


def without_end(schema: Any, where: str = "") -> Iterator[str]:
    """Places in a JSON schema where a reply may go on for ever."""
    if isinstance(schema, list):
        for entry in schema:
            yield from without_end(entry, where)
    if not isinstance(schema, dict) or schema.keys() & {"enum", "const"}:
        return
    bound = {"string": "maxLength", "array": "maxItems", "integer": "maximum", "number": "maximum"}
    kind = schema.get("type")
    if kind in bound and bound[kind] not in schema:
        yield f"{where}: {kind} without {bound[kind]}"
    if kind == "object" and schema.get("additionalProperties", True) is not False:
        yield f"{where}: object without additionalProperties: false"
    for name, inner in [*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()]:
        yield from without_end(inner, f"{where}.{name}")
    for name in ("items", "anyOf"):
        yield from without_end(schema.get(name), f"{where}.{name}")


def steps(*calls: tuple[str, dict[str, Any]]) -> Any:
    """One call after the other; `number: 0` counts what was tried already."""

    def script(asked: Asked) -> Reply:
        turn = sum(m["role"] == "assistant" for m in asked.body["messages"])
        name, arguments = calls[min(turn, len(calls) - 1)]
        if "number" in arguments:
            arguments = arguments | {"number": arguments["number"] + max(0, turn - len(calls) + 1)}
        return calling((name, arguments))

    return script


def test_samples_are_made_of_a_search_with_their_pages_licences_and_calls(store):
    images = {f"/img/{n}.jpg": Answer(encoded(picture(n), "JPEG")) for n in range(40)}
    cast = teacher(None)

    def select(asked: Asked) -> Reply:
        if not asked.results:
            return calling(("search_images", {"query": "disc", "page": 1 + asked.body["seed"] % 3}))
        return calling(("use_image", {"number": 1 + asked.body["seed"] % 9}))

    cast.select = select
    with site(images, host="127.0.0.3") as web, site() as api:
        api.pages[PATHS[Provider.OPENVERSE]] = PROVIDERS[Provider.OPENVERSE](Catalogue(web.url, 40))
        sources = [search_source(Provider.OPENVERSE, api)]
        run_with(store, cast, sources, downloads=Downloads(user_agent="dpe-test/1", allow=["127.0.0.3"]))
        downloaded = [v.path for v in web.visits if v.path != "/robots.txt"]
    assert len(downloaded) == len(set(downloaded)), "the cache has what was downloaded"
    said, kept = world.summary(store), world.samples(store)
    assert (said.kept, said.sources) == (QUOTA, {"search:openverse": QUOTA})
    for sample in kept:
        (origin,) = sample["provenance"]["origins"]
        assert origin["source"] == "search:openverse"
        assert sample["licence"] == origin["licence"]
        assert sample["answer"] == brightness(sample["image"]["bytes"])
        assert sample["provenance"]["source_url"]


@pytest.fixture
def indexed(store: MemoryStore) -> MemoryStore:
    put_parquet(store, "a.parquet", [row(n) for n in range(60)])
    index_pool(Options(POOL), store)
    return store


def test_samples_are_made_of_a_pool_and_no_image_is_used_twice(indexed):
    wanted = steps(("pool_search", {"query": "disc painted", "page": 1}), ("use_image", {"number": 1}))
    run_with(indexed, teacher(wanted), [{"kind": "pool", "uri": POOL}])
    said, kept = world.summary(indexed), world.samples(indexed)
    assert (said.kept, said.sources) == (QUOTA, {f"pool:{POOL}": QUOTA})
    used = [sample["provenance"]["origins"][0]["id"] for sample in kept]
    assert len(set(used)) == QUOTA, "every selector wanted the first one"


def looking_for_discs() -> Cast:
    """Models that plan, ask and check; nobody selects."""
    wanted = {"aim": 1, "source": f"pool:{POOL}", "query": "disc", "facets": []}
    cast = teacher(None)
    cast.plan = {"targets": [wanted | {"question_type": "number", "difficulty": "same"}] * 99}
    return cast


def without_selector(model: FakeModel, solver: FakeModel, **changes: Any) -> GenerationLaunch:
    """A launch in which a program takes the pictures of a pool, and models ask about them."""
    agents = {name: AGENTS[name] for name in ("planner", "writer", "validator")}
    generation = {"target_samples": QUOTA, "max_candidates": 12, "sources": [{"kind": "pool", "uri": POOL}], **agents}
    generation |= changes.pop("generation", {})
    return world.launch(solver.url, generation=generation, endpoints=[endpoint(model)], **changes)


def test_a_large_picture_is_asked_about_and_kept_as_a_diagnosis_would_send_it(store):
    large = [encoded(picture(n).resize((2000, 2000))) for n in range(6)]
    put_parquet(store, "a.parquet", [row(n, image={"bytes": file, "path": None}) for n, file in enumerate(large)])
    index_pool(Options(POOL), store)
    store.put(f"{worlds.BASE_URI}/preprocessor_config.json", json.dumps(QWEN25).encode())
    store.put(f"{worlds.BASE_URI}/config.json", json.dumps({"max_position_embeddings": 32768}).encode())
    with serving(looking_for_discs()) as model, serving(half_right) as solver:
        run(without_selector(model, solver, context_tokens=2048), store)
        sent = {asked.image for asked in solver.requests}
    as_asked = {asking.fit(file, 1_003_520) for file in large}
    assert sent
    assert sent <= as_asked
    assert {sample["image"]["bytes"] for sample in world.samples(store)} <= as_asked
    assert "TooLong" not in world.summary(store).rejected


def test_nobody_is_paid_for_a_question_about_a_picture_whose_licence_is_not_allowed(indexed):
    with serving(looking_for_discs()) as model, serving(half_right) as solver:
        with pytest.raises(BadData, match=r"\d+ Licence"):
            run(without_selector(model, solver, generation={"quality": {"licences": ["MIT"]}}), indexed)
        assert {role(asked) for asked in model.requests} == {"plan"}
        assert solver.requests == []


def test_nobody_is_paid_for_an_edit_of_a_picture_that_the_probe_has(indexed):
    rows = [replace(world.reserved_question(n), id=f"p-{n}", image=encoded(picture(n))) for n in range(60)]
    worlds.upload(indexed, worlds.PROBE_URI, rows)
    edit = ("edit_image", {"number": 1, "instruction": "invert the colours"})
    select = steps(("pool_search", {"query": "disc", "page": 1}), edit)
    with openai_images.serving(lambda asked: ImageOps.invert(asked.image)) as editor:
        sources = [{"kind": "edit", "endpoint": "editor", "share": 1000}, {"kind": "pool", "uri": POOL, "share": 0.01}]
        with pytest.raises(BadData, match=r"\d+ NoImage"):
            run_with(indexed, teacher(select), sources, endpoint(f"{editor.url}/v1", name="editor"), most=4)
        assert editor.edits == []


def test_what_is_known_of_a_picture_stands_though_the_plan_says_something_else(store):
    put_parquet(store, "a.parquet", [row(n) for n in range(60)])
    index_pool(Options(POOL, Columns(facts={"color": "hue"})), store)
    cast = teacher(steps(("pool_search", {"query": "disc", "page": 1}), ("use_image", {"number": 1})))
    planned = [{"name": "color", "value": "purple"}, {"name": "mood", "value": "happy"}]
    wanted = {"aim": 1, "source": f"pool:{POOL}", "query": "disc", "facets": planned}
    cast.plan = {"targets": [wanted | {"question_type": "number", "difficulty": "same"}] * 99}
    run_with(store, cast, [{"kind": "pool", "uri": POOL}])
    known = [{one["key"]: one["value"] for one in sample["facets"]} for sample in world.samples(store)]
    assert [facets["mood"] for facets in known] == ["happy"] * QUOTA
    assert {facets["color"] for facets in known} <= set(COLORS), "the pool says which"


def test_a_pool_is_searched_by_vectors_of_its_embedder_which_is_paid_for_each_query_once(store):
    put_parquet(store, "a.parquet", [row(n) for n in range(60)])
    wanted = steps(("pool_search", {"query": "disc painted", "page": 1}), ("use_image", {"number": 1}))
    with openai_images.serving(lambda asked: asked.image) as server:
        chosen = Endpoint(name="vectors", url=f"{server.url}/v1", model="words-32")
        index_pool(Options(POOL, embedder=Embedder(chosen)), store)
        server.texts.clear()
        run_with(store, teacher(wanted), [{"kind": "pool", "uri": POOL, "embedder": "vectors"}], chosen)
    said = world.summary(store)
    assert said.kept == QUOTA
    assert server.texts == [["disc painted"]], "all selectors asked the same"
    spent = {s.endpoint: s for s in said.spending}
    assert (spent["vectors"].calls, spent["vectors"].tokens.prompt) == (1, 5)


def test_a_pool_of_another_embedder_stops_the_stage_and_says_which(indexed):
    with openai_images.serving(lambda asked: asked.image) as server:
        chosen = Endpoint(name="vectors", url=f"{server.url}/v1", model="words-32")
        with pytest.raises(BadConfig, match="was indexed without an embedding model, asked is 'words-32'"):
            run_with(indexed, teacher(None), [{"kind": "pool", "uri": POOL, "embedder": "vectors"}], chosen)


def test_samples_are_made_of_edits_by_a_model_and_checked_on_the_edited_picture(indexed):
    def select(asked: Asked) -> Reply:
        """The first picture, and the next one where it is used already."""
        used = sum("used already" in text for text in asked.results)
        if not asked.results:
            return calling(("pool_search", {"query": "disc", "page": 1}))
        if "Picture 11" in asked.results[-1]:
            return calling(("use_image", {"number": 11}))
        return calling(
            ("edit_image", {"number": 1 + (asked.body["seed"] + used) % 10, "instruction": "invert the colours"})
        )

    with openai_images.serving(lambda asked: ImageOps.invert(asked.image)) as editor:
        others = [endpoint(f"{editor.url}/v1", name="editor")]
        sources = [{"kind": "edit", "endpoint": "editor", "share": 1000}, {"kind": "pool", "uri": POOL, "share": 0.01}]
        run_with(indexed, teacher(select), sources, *others)
        edits = len(editor.edits)
    said = world.summary(indexed)
    assert said.sources == {"edit:editor": QUOTA}
    for sample in world.samples(indexed):
        assert sample["answer"] == brightness(sample["image"]["bytes"])
        assert [o["source"] for o in sample["provenance"]["origins"]] == ["edit:editor", f"pool:{POOL}"]
    spent = {s.endpoint: s for s in said.spending}
    assert spent["editor"].tokens.completion == 200 * edits


async def test_an_image_that_a_target_has_stays_its_own_over_restarts(indexed):
    ledger = Ledger(indexed, "s3://b/claims")

    def opened() -> LookedUpPool:
        pool = LookedUpPool(POOL, 1.0)
        pool.open(Pool(indexed, POOL, max_uses=2), 3, (0, 1))
        pool.remember(ledger)
        return pool

    first = opened()
    assert [await first.claim(target(n), "an image") for n in (0, 1, 0)] == [None] * 3
    assert await first.claim(target(2), "an image") == "it is used already"
    again = opened()
    assert await again.claim(target(2), "an image") == "it is used already"
    assert await again.claim(target(1), "an image") is None


async def test_a_store_that_is_away_holds_up_the_claim_of_an_image_and_nothing_else(indexed, monkeypatch):
    monkeypatch.setattr("dpe_jobs.ledger.FLUSH_ITEMS", 1)
    back = threading.Event()

    class Away(MemoryStore):
        def put(self, uri: str, data: bytes) -> None:
            assert back.wait(10), "the loop stands still"
            super().put(uri, data)

    pool = LookedUpPool(POOL, 1.0)
    pool.open(Pool(indexed, POOL), 3, (0, 1))
    pool.remember(Ledger(Away(), "s3://b/claims"))
    claims = [asyncio.create_task(pool.claim(target(n), "an image")) for n in (0, 1)]
    await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    assert [claim.done() for claim in claims] == [False, True], "the first one is being written down"
    assert claims[1].result() == "it is used already"
    back.set()
    assert await claims[0] is None


async def test_without_a_selector_a_target_takes_the_image_of_its_ordinal(indexed):
    pool = LookedUpPool(POOL, 1.0)
    pool.open(Pool(indexed, POOL), 3, (0, 1))
    wanted = [target(n, query="disc", ordinals=(n,)) for n in (0, 1)]
    found = [(await pool.select(one)).origin.id for one in (*wanted, wanted[0])]
    assert found[0] == found[2] != found[1]


async def test_without_a_selector_targets_of_different_queries_do_not_get_the_same_image(indexed):
    ledger = Ledger(indexed, "s3://b/claims")
    pool = LookedUpPool(POOL, 1.0)
    pool.open(Pool(indexed, POOL), 3, (0, 1))
    pool.remember(ledger)
    first = await pool.select(target(0, query="disc"))
    others = [target(n + 1, query="disc painted", ordinals=(n,)) for n in (0, 1)]
    next_ones = [(await pool.select(other)).origin for other in others]
    assert len({origin.id for origin in (first.origin, *next_ones)}) == 3
    again = LookedUpPool(POOL, 1.0)
    again.open(Pool(indexed, POOL), 3, (0, 1))
    again.remember(ledger)
    assert (await again.select(target(0, query="disc"))).origin == first.origin, "after a restart it is still its own"
    assert [(await again.select(other)).origin for other in others] == next_ones


async def test_a_query_whose_best_images_others_have_finds_none_after_so_many(indexed, monkeypatch):
    monkeypatch.setattr("dpe_jobs.generation.agents.supplies.MOST_PASSED", 2)
    pool = LookedUpPool(POOL, 1.0)
    pool.open(Pool(indexed, POOL), 3, (0, 1))
    for number in (0, 1):
        await pool.select(target(number, query="disc", ordinals=(number,)))
    with pytest.raises(NoImage, match="other targets have numbers 1 to 2 for 'disc' already"):
        await pool.select(target(2, query="disc"))


async def test_targets_of_a_shard_see_parts_of_its_part_of_a_large_pool(indexed, monkeypatch):
    monkeypatch.setattr("dpe_jobs.generation.agents.supplies.SMALLEST_PART", 20)
    seen = []
    for shard in (0, 1):
        pool = LookedUpPool(POOL, 1.0)
        pool.open(Pool(indexed, POOL), 3, (shard, 2))
        for number in range(3):
            pages = [await pool.of(target(number)).find("disc", page) for page in (1, 2, 3)]
            seen.append([hit.words for page in pages for hit in page])
    assert all(seen), "each target sees some"
    together = [words for part in seen for words in part]
    assert len(together) == len(set(together)) == 60, "no two of different parts see the same, and nothing is left out"
    assert [w for w in seen[0] if w in {x for part in seen[3:] for x in part}] == []
