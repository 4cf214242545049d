import asyncio
import json

import pytest
from tests.fakes.image_files import file, png_bomb
from tests.fakes.memory_store import MemoryStore
from tests.fakes.web import Answer, Site, site

from dpe_jobs.generation.fetching import cache as module
from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.cache import ImageCache, WebImage
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.fetching.manners import Manners
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

FOLDER = "s3://dpe/lab/cache"
PHOTO = file()


async def picture(store: MemoryStore, address: str) -> WebImage:
    """As a run that has just started gets it."""
    allowed = Allowed.of(["127.0.0.2"])
    async with Downloader("dpe-test/1", allowed=allowed, manners=Manners(interval_s=0.0)) as downloader:
        return await ImageCache(store, FOLDER, downloader).picture(address, {"licence": "CC0-1.0"})


def only_record(store: MemoryStore) -> dict[str, object]:
    (found,) = [json.loads(data) for uri, data in store.objects.items() if uri.endswith(".json")]
    return found


async def test_a_second_run_downloads_nothing():
    store = MemoryStore()
    with site({"/a.jpg": Answer(PHOTO)}) as web:
        first = await picture(store, f"{web.url}/a.jpg")
        seen = len(web.visits)
        second = await picture(store, f"{web.url}/a.jpg")
        assert len(web.visits) == seen
    assert (first.cached, second.cached) == (False, True)
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.sha256, first.url) == (second.sha256, second.url)
    record = only_record(store)
    assert (record["reason"], record["known"], record["bytes"]) == (None, {"licence": "CC0-1.0"}, len(PHOTO))


async def test_the_same_address_at_the_same_time_is_downloaded_once():
    store = MemoryStore()
    with site({"/a.jpg": Answer(PHOTO)}) as web:
        async with Downloader("dpe-test/1", allowed=Allowed.of(["127.0.0.2"])) as downloader:
            images = ImageCache(store, FOLDER, downloader)
            came = await asyncio.gather(*(images.picture(f"{web.url}/a.jpg") for _ in range(8)))
        assert web.paths() == ["/robots.txt", "/a.jpg"]
    assert sorted(image.cached for image in came) == [False] + [True] * 7


@pytest.mark.parametrize(
    ("answer", "named", "seconds"),
    [
        (Answer(status=404), Reason.NOT_FOUND, module.LASTING_S),
        (Answer(status=500), Reason.SERVER_ERROR, module.PASSING_S),
        (Answer(PHOTO[: len(PHOTO) // 2]), Reason.BROKEN, module.LASTING_S),
        (Answer(png_bomb(6_500)), Reason.TOO_MANY_PIXELS, module.LASTING_S),
        (Answer(b"<html>" + bytes(100)), Reason.NOT_AN_IMAGE, module.LASTING_S),
    ],
)
async def test_a_failure_is_remembered_for_a_while(answer, named, seconds, monkeypatch):
    monkeypatch.setattr("dpe_jobs.generation.fetching.download.ATTEMPTS", 1)
    store = MemoryStore()
    now = 1_000_000.0
    monkeypatch.setattr(module.time, "time", lambda: now)

    async def reason(web: Site) -> tuple[Reason, bool]:
        with pytest.raises(NotFetched) as refused:
            await picture(store, f"{web.url}/a.jpg")
        return refused.value.reason, "(remembered)" in str(refused.value)

    with site({"/a.jpg": answer}) as web:
        assert await reason(web) == (named, False)
        now += seconds - 1
        assert await reason(web) == (named, True)
        web.pages["/a.jpg"] = Answer(PHOTO)
        now += 2
        assert not (await picture(store, f"{web.url}/a.jpg")).cached


async def test_a_blocked_address_is_not_remembered_because_the_list_may_change():
    store = MemoryStore()
    with pytest.raises(NotFetched, match="BlockedAddress"):
        await picture(store, "http://10.0.0.1/a.jpg")
    assert store.objects == {}


async def test_a_file_that_was_tampered_with_or_is_gone_is_downloaded_again():
    store = MemoryStore()
    with site({"/a.jpg": Answer(PHOTO)}) as web:
        await picture(store, f"{web.url}/a.jpg")
        (uri,) = [uri for uri in store.objects if uri.endswith(".bin")]
        store.objects[uri] = file(kind="PNG")
        assert not (await picture(store, f"{web.url}/a.jpg")).cached
        del store.objects[uri]
        assert not (await picture(store, f"{web.url}/a.jpg")).cached
        assert store.objects[uri] == PHOTO


async def test_the_file_is_there_before_the_record_that_speaks_of_it():
    store = MemoryStore()
    with site({"/a.jpg": Answer(PHOTO)}) as web:
        await picture(store, f"{web.url}/a.jpg")
    assert [uri.rpartition(".")[2] for uri in store.puts] == ["bin", "json"]
