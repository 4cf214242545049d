"""A search as a source: which result a target gets, and what a model that selects is shown."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from tests.fakes.image_files import file, photo
from tests.fakes.image_searches import PATHS, PROVIDERS, Catalogue, source
from tests.fakes.memory_store import MemoryStore
from tests.fakes.web import Answer, Site, site
from tests.unit.generation import world

from dpe_api.endpoints import source_key_variable
from dpe_api.generation_spec import Provider, Source, SourceKind
from dpe_api.launch import Downloads, GenerationLaunch
from dpe_api.names import DRAFT
from dpe_api.quality_spec import Quality
from dpe_jobs.generation.candidates import Team, make
from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.fetching.manners import Manners
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.images import NoImage
from dpe_jobs.generation.planner import RulePlanner
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.roles import Aim, Rejection, Target
from dpe_jobs.generation.search.images import ImageSearch
from dpe_jobs.generation.search.supply import SearchSupply, names, open_searches
from dpe_jobs.generation.sources import BySource, Supply
from dpe_jobs.generation.team import supplies_of
from dpe_jobs.generation.validator import RuleValidator
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.generation.writer import RuleWriter
from dpe_jobs.runtime import BadConfig

PROVIDER = Provider.OPENVERSE
IMAGES = {f"/img/{n}.jpg": Answer(file(photo(seed=n))) for n in range(45) if n != 7}


def target(ordinal: int = 0, query: str = "", **knobs: str) -> Target:
    return Target(
        "everyday_object", 3, SourceKind.SEARCH, "search:openverse", knobs, Aim(""), 1, query=query, ordinals=(ordinal,)
    )


@asynccontextmanager
async def supply(api: Site, found: int = 45, images: Mapping[str, Answer] = IMAGES) -> AsyncIterator[SearchSupply]:
    with site(images, host="127.0.0.3") as web:
        api.pages[PATHS[PROVIDER]] = PROVIDERS[PROVIDER](Catalogue(web.url, found))
        manners = Manners(at_once=8, interval_s=0.0)
        async with (
            Downloader("dpe-test/1", allowed=Allowed.of(["127.0.0.3"]), manners=manners) as fetched,
            ImageSearch(source(PROVIDER, api), 1, Downloads(), fetched, MemoryStore(), "s3://dpe/cache") as search,
        ):
            it = SearchSupply(1, source(PROVIDER, api, share=2), "search:openverse")
            it.open(search)
            yield it


@pytest.fixture
def api():
    with site() as it:
        yield it


async def test_targets_that_look_for_the_same_get_different_pictures_and_each_always_its_own(api):
    async with supply(api) as it:
        as_source: Supply = it
        assert (as_source.name, as_source.share, as_source.program) == ("search:openverse", 2.0, None)
        pictures = [await it.select(target(n, "red car")) for n in (0, 1, 25)]
        again = await it.select(target(25, "red car"))
    places = [(picture.origin.image_url or "").rpartition("/")[2] for picture in pictures]
    assert places == ["0.jpg", "1.jpg", "25.jpg"]
    assert again.origin == pictures[2].origin
    assert pictures[2].tool_calls[0]["arguments"] == {"query": "red car", "page": 2}
    assert pictures[2].tool_calls[1]["arguments"] == {"number": 6}


async def test_a_target_without_a_query_is_searched_for_by_its_category_and_knobs(api):
    async with supply(api) as it:
        await it.select(target(color="red", kind="car"))
    assert api.visits[0].query["q"] == "everyday object red car"


async def test_what_is_not_there_or_cannot_be_had_is_no_image(api):
    async with supply(api) as it:
        with pytest.raises(NoImage, match=r"search:openverse: 'red car' has 45 results, and number 46 is wanted"):
            await it.select(target(45, "red car"))
        with pytest.raises(NoImage, match="NotFound"):
            await it.select(target(7, "red car"))


async def test_a_model_leafs_through_all_results_ten_at_a_time(api):
    async with supply(api) as it:
        pages = [await it.find("red car", page) for page in range(1, 7)]
        assert [len(page) for page in pages] == [10, 10, 10, 10, 5, 0]
        assert pages[0][0].words == "Picture 0, by A. Uthor, CC-BY-SA-2.0"
        picture = await pages[3][2].load()
        assert (picture.origin.image_url or "").endswith("/32.jpg")
        with pytest.raises(NoImage, match="NotFound"):
            await pages[0][7].load()


async def test_a_host_that_does_not_even_say_its_robots_txt_has_failed_and_says_nothing_about_the_source(api):
    in_trouble = {**IMAGES, "/robots.txt": Answer(status=503)}
    wanted = target(0, "red car")
    async with supply(api, images=in_trouble) as it:
        for remembered in (False, True):
            with pytest.raises(NoImage, match="HostInTrouble") as caught:
                await it.select(wanted)
            assert (caught.value.outage, "(remembered)" in str(caught.value)) == (True, remembered)
        with Workbench() as workbench, Reserved() as reserved:
            inspector = Inspector(Quality(), reserved, answer_tokens=4, max_pixels=1_003_520)
            planner = RulePlanner(Findings([], {}, {}), [it], 1)
            writer, validator = RuleWriter({}, workbench), RuleValidator({}, workbench)
            team = Team(planner, BySource([it]), writer, validator, workbench, inspector, 1_003_520)
            made = await make(team, wanted, "r0")
    assert isinstance(made, Rejection)
    assert made.reason == "SourceFailed"


def launched(sources: list[Source], **changes: object) -> GenerationLaunch:
    return world.launch("http://model:8000", generation={"sources": sources}, **changes)


@pytest.mark.parametrize("draft", ["", f"/{DRAFT}"], ids=["samples", "a draft to be reviewed"])
async def test_the_searches_of_a_launch_are_opened_with_the_platforms_downloads_and_one_cache_for_the_namespace(
    api, draft
):
    store = MemoryStore()
    downloads = Downloads(user_agent="dpe-test/1", allow=["127.0.0.3"])
    sources = [Source(kind=SourceKind.RENDER, program="shapes"), source(PROVIDER, api, share=3)]
    launch = launched(sources, downloads=downloads, output=f"{world.OUT}{draft}")
    with site(IMAGES, host="127.0.0.3") as web:
        api.pages[PATHS[PROVIDER]] = PROVIDERS[PROVIDER](Catalogue(web.url, 3))
        it = SearchSupply(1, sources[1], names(sources)[1])
        assert (it.name, it.share) == ("search:openverse", 3)
        async with open_searches(launch, store, [it]):
            assert (await it.select(target(0, "red car"))).image.size == (120, 80)
        assert {visit.headers["User-Agent"] for visit in [*api.visits, *web.visits]} == {"dpe-test/1"}
    namespace = world.OUT.rsplit("/", 2)[0]
    assert store.objects
    assert all(uri.startswith(f"{namespace}/cache/") for uri in store.objects)


async def test_a_launch_without_searches_opens_nothing_and_one_without_its_key_says_so(api, monkeypatch):
    render = Source(kind=SourceKind.RENDER, program="shapes")
    async with open_searches(launched([render]), MemoryStore(), ["another supply"]):
        pass
    monkeypatch.delenv(source_key_variable(1))
    serper = source(Provider.SERPER, api)
    keyless = open_searches(launched([render, serper]), MemoryStore(), [SearchSupply(1, serper, "search:serper")])
    with pytest.raises(BadConfig, match=r"spec.generation.sources\[1\]: its API key"):
        await keyless.__aenter__()


async def test_a_search_that_failed_is_told_as_such(api):
    async with supply(api) as it:
        api.pages[PATHS[PROVIDER]] = Answer(status=400)
        for asked in (it.find("red car", 1), it.select(target(0, "red car"))):
            with pytest.raises(NoImage, match="Refused") as caught:
                await asked
            assert not caught.value.outage, "it answers, and will answer the same"
        api.pages[PATHS[PROVIDER]] = Answer(status=503)
        with pytest.raises(NoImage, match="Unavailable") as caught:
            await it.find("blue car", 1)
        assert caught.value.outage


def test_searches_are_named_by_provider_and_by_address_where_several_ask_the_same_one():
    urls = ["https://one.example/search", "https://two.example"]
    mine = [Source(kind=SourceKind.SEARCH, provider=Provider.SEARXNG, url=url) for url in urls]
    wikimedia = Source(kind=SourceKind.SEARCH, provider=Provider.WIKIMEDIA)
    assert names([mine[0], wikimedia]) == {0: "search:searxng", 1: "search:wikimedia"}
    assert names([*mine, wikimedia]) == {
        0: "search:searxng:https://one.example/search",
        1: "search:searxng:https://two.example",
        2: "search:wikimedia",
    }
    with Workbench() as workbench:
        assert len({supply.name for supply in supplies_of([*mine, wikimedia], workbench)}) == 3


async def test_a_picture_of_a_search_names_the_search_as_the_plan_does(api):
    sources = [Source(kind=SourceKind.SEARCH, provider=PROVIDER), source(PROVIDER, api)]
    with site(IMAGES, host="127.0.0.3") as web:
        api.pages[PATHS[PROVIDER]] = PROVIDERS[PROVIDER](Catalogue(web.url, 3))
        it = SearchSupply(1, sources[1], names(sources)[1])
        launch = launched(sources, downloads=Downloads(user_agent="dpe-test/1", allow=["127.0.0.3"]))
        async with open_searches(launch, MemoryStore(), [it]):
            found = await it.select(target(0, "red car"))
    assert found.origin.source == it.name == f"search:openverse:{sources[1].url}"
