"""A pool of drawn shapes whose facts a program reads from their pixels, and the stage that makes samples of it."""

import asyncio
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from PIL import Image
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import serving
from tests.unit.generation import world
from tests.unit.generation.pool.pools import POOL, put_parquet, row

from dpe_api.artifacts import AttributionReport, InputRef, Manifest
from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.edit.several import Compose
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.planner import RulePlanner
from dpe_jobs.generation.pool import Pool
from dpe_jobs.generation.pool.build import Options, index_pool
from dpe_jobs.generation.pool.uses import count
from dpe_jobs.generation.pooled import PoolSupply
from dpe_jobs.generation.render.shapes import COLORS, SHAPES, Shapes
from dpe_jobs.generation.roles import Feedback, Order, Target
from dpe_jobs.generation.run import run
from dpe_jobs.generation.sources import EditSupply
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.runtime import BadConfig

IMAGES = 240
RENDER = {"kind": "render", "program": "shapes", "share": 1}
RECOLOUR = {"kind": "edit", "program": "recolour", "share": 1}
IN_POOL = {"kind": "pool", "uri": POOL, "program": "shapes", "share": 1}


def drawn(number: int) -> bytes:
    """Every colour and shape in turn; the last ones show nothing that the program knows."""
    if number >= IMAGES - 10:
        return world.png(Image.new("RGB", (64, 64), (240, 240, 240 - number % 10)))
    knobs = {"color": list(COLORS)[number % 8], "shape": SHAPES[number // 8 % 3]}
    return world.png(Shapes().draw(knobs, random.Random(f"pool {number}")).image)


def put_pool(store: MemoryStore, count: int = IMAGES) -> None:
    put_parquet(store, "a.parquet", [row(n, image={"bytes": drawn(n), "path": None}, caption="") for n in range(count)])
    index_pool(Options(POOL), store)


@pytest.fixture(scope="module")
def indexed() -> MemoryStore:
    store = MemoryStore()
    put_pool(store)
    return store


@pytest.fixture
def copied(store: MemoryStore, indexed: MemoryStore) -> MemoryStore:
    store.objects |= indexed.objects
    return store


def supply(
    store: MemoryStore,
    workbench: Workbench,
    part: tuple[int, int] = (0, 1),
    max_uses: int = 1,
    beat: Callable[[], None] = lambda: None,
) -> PoolSupply:
    made = PoolSupply(POOL, Shapes(), 1.0, workbench)
    made.open(Pool(store, POOL, max_uses=max_uses), 3, part, beat)
    made.need("shape", 2.0)
    made.need("color", 1.0)
    made.need("shape", 1.0, "edit:recolour")
    return made


def taken(
    store: MemoryStore, asked: list[tuple[str, dict[str, str], int]], **how: object
) -> dict[tuple[str, str, int], Picture | str]:
    """What comes of several requests that are made at the same time."""

    async def all_at_once(source: PoolSupply) -> list[Picture | str]:
        async def one(who: str, facts: dict[str, str], ordinal: int) -> Picture | str:
            try:
                return await source.take(who, facts, ordinal)
            except NoImage as error:
                return str(error)

        return await asyncio.gather(*(one(*request) for request in asked))

    with Workbench() as workbench:
        found = asyncio.run(all_at_once(supply(store, workbench, **how)))
    return {(who, repr(facts), n): got for (who, facts, n), got in zip(asked, found, strict=True)}


def ids(found: dict[tuple[str, str, int], Picture | str]) -> dict[tuple[str, str, int], str]:
    return {key: got.origin.id for key, got in found.items() if isinstance(got, Picture)}


REQUESTS = [
    (who, facts, n)
    for who in ("shape", "color", "shape by edit:recolour")
    for facts in ({"color": "teal"}, {"color": "red", "shape": "circle"})
    for n in range(4)
]


def test_who_gets_which_image_does_not_depend_on_who_asks_first_and_nobody_gets_anothers(indexed):
    one = ids(taken(indexed, REQUESTS))
    assert one == ids(taken(indexed, REQUESTS[::-1]))
    assert len(set(one.values())) == len(one) >= 16


def test_pictures_show_what_was_asked_for_and_say_so(indexed):
    for (_, facts, _), got in taken(indexed, REQUESTS).items():
        if isinstance(got, Picture):
            assert got.facts == Shapes().read(got.image)
            assert eval(facts).items() <= got.facts.items()
            assert (got.origin.source, got.origin.licence) == (f"pool:{POOL}", "CC0-1.0")


def test_looking_through_a_pool_beats_though_nothing_is_finished(indexed):
    beats: list[None] = []
    taken(indexed, [("shape", {"color": "none of them"}, 0)], beat=lambda: beats.append(None))
    assert len(beats) > IMAGES / 2


def test_shards_have_parts_of_their_own(indexed):
    asked = [("shape", {}, n) for n in range(20)]
    each = [set(ids(taken(indexed, asked, part=(i, 3))).values()) for i in range(3)]
    assert all(each)
    assert not each[0] & each[1]
    assert not each[1] & each[2]
    assert not each[0] & each[2]


def test_an_edit_of_two_pictures_takes_no_image_twice(indexed):
    async def parents(edit: EditSupply, wanted: list[Target]) -> list[str]:
        found = []
        for target in wanted:
            with suppress(NoImage):
                found += [origin.id for origin in (await edit.select(target)).origin.parents]
        return found

    with Workbench() as workbench:
        edit = EditSupply(Compose(), [source := supply(indexed, workbench)], 1.0, workbench, lambda _: None)
        source.need("color_where", 40.0, edit.name)
        findings = Findings(world.quotas({"color_where": 30}), {}, {}, AttributionReport(slices=[], weaknesses=[]))
        wanted = asyncio.run(RulePlanner(findings, [edit], 1).plan(Order("color_where", 0, 30, Feedback())))
        used = Counter(asyncio.run(parents(edit, wanted)))
    assert set(used.values()) == {1}
    assert len(used) > 40


@pytest.mark.parametrize("max_uses", [1, 2])
def test_an_image_is_used_as_often_as_is_allowed_and_then_there_is_none(indexed, max_uses):
    asked = [("shape", {"color": "teal", "shape": "circle"}, n) for n in range(40)]
    found = taken(indexed, asked, max_uses=max_uses)
    times = Counter(ids(found).values())
    assert set(times.values()) == {max_uses}
    trouble = found["shape", repr(asked[0][1]), 39]
    assert f"(maxUses {max_uses}), and 40 are wanted" in trouble


def published(store: MemoryStore, sources: list[dict[str, object]], change: Callable[[MemoryStore], None]) -> None:
    change(store)
    with serving(world.solves(0.5)) as model:
        generation = {"sources": sources, "max_candidates": 400}
        run(world.launch(model.url, generation=generation), store)


def test_samples_come_from_all_three_sources_by_their_shares_with_right_answers(copied):
    published(copied, [RENDER, RECOLOUR, IN_POOL], lambda store: None)
    said = world.summary(copied)
    assert (said.kept, said.shortfall) == (22, 0)
    assert set(said.sources) == {"render:shapes", "edit:recolour", f"pool:{POOL}"}
    pool_ids = []
    for sample in world.samples(copied):
        with Image.open(io.BytesIO(sample["image"]["bytes"])) as image:
            assert Shapes().answer(image, sample["question"]) == sample["answer"]
        first, *parents = sample["provenance"]["origins"]
        assert bool(parents) == (first["source"] == "edit:recolour")
        pool_ids += [o["id"] for o in (first, *parents) if o["source"].startswith("pool:")]
        calls = [json.loads(call) for call in sample["provenance"]["tool_calls"]]
        assert calls[-1]["tool"].split(":")[0] in ("render", "edit", "pool")
    assert len(pool_ids) == len(set(pool_ids)) >= 3


def test_images_that_an_earlier_round_used_are_not_used_again(copied):
    published(copied, [IN_POOL], lambda store: None)
    now = world.samples(copied)
    manifest = copied.manifest(world.OUT)
    assert manifest is not None
    inputs = [InputRef(uri=uri, sha256="") for uri in (worlds.BASE_URI, world.OUT)]
    copied.publish(worlds.CANDIDATE_URI, Manifest(stage="model", created_at=manifest.created_at, inputs=inputs))
    uses = count(copied, worlds.CANDIDATE_URI, POOL)
    assert uses == Counter(sample["provenance"]["origins"][0]["id"] for sample in now)
    assert set(uses.values()) == {1}


def test_a_pool_that_is_indexed_anew_while_a_stage_is_interrupted_changes_nothing(copied):
    def anew(store: MemoryStore) -> None:
        before = dict(store.objects)
        with serving(world.solves(0.5)) as model:
            run(world.launch(model.url, generation={"sources": [IN_POOL]}), store)
        first = [sample["id"] for sample in world.samples(store)]
        pins = {uri: data for uri, data in store.objects.items() if "/pools/" in uri}
        store.objects = before | pins
        put_parquet(store, "b.parquet", [row(n) for n in range(5)])
        index_pool(Options(POOL), store)
        store.expected = first  # type: ignore[attr-defined]

    published(copied, [IN_POOL], anew)
    assert [sample["id"] for sample in world.samples(copied)] == copied.expected  # type: ignore[attr-defined]


def test_a_category_that_the_pool_cannot_fill_is_filled_by_the_others(store):
    put_pool(store, 24)  # one of each
    published(store, [RENDER, IN_POOL], lambda store: None)
    said = world.summary(store)
    assert (said.kept, said.shortfall) == (22, 0)
    assert said.rejected["NoImage"] > 0


def test_a_pool_without_an_index_is_a_bad_configuration(store):
    put_parquet(store, "a.parquet", [row(1)])
    with pytest.raises(BadConfig, match="python -m dpe_jobs index"):
        published(store, [IN_POOL], lambda store: None)


def test_a_program_that_reads_no_pictures_cannot_serve_a_pool(copied):
    source = Source(kind=SourceKind.POOL, uri=POOL, program="tables")
    with pytest.raises(
        BadConfig, match=r"sources\[0\]\.program: .*Tables reads no pictures of a pool: it needs .*read"
    ):
        published(copied, [source], lambda store: None)
