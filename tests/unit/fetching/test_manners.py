import asyncio
import threading
import time
from collections import Counter

import pytest
from tests.fakes.image_files import file
from tests.fakes.web import Answer, Visit, redirect, site

from dpe_jobs.generation.fetching import manners as module
from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.fetching.manners import Hosts, Manners
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

LISTED = Allowed.of(["127.0.0.2", "127.0.0.3"])
PHOTO = file()


def downloader(manners: Manners | None = None, agent: str = "dpe/1 (+https://lab.example.org)") -> Downloader:
    return Downloader(agent, allowed=LISTED, manners=manners or Manners(at_once=4, interval_s=0.0))


def robots(text: str) -> dict[str, Answer]:
    return {"/robots.txt": Answer(text.encode()), "/a.jpg": Answer(PHOTO), "/private/a.jpg": Answer(PHOTO)}


async def test_what_robots_txt_disallows_is_not_asked_for_and_the_rest_is():
    with site(robots("User-agent: *\nDisallow: /private/")) as web:
        async with downloader() as it:
            assert (await it.get(f"{web.url}/a.jpg")).data == PHOTO
            with pytest.raises(NotFetched, match="disallows it for dpe") as refused:
                await it.get(f"{web.url}/private/a.jpg")
        assert refused.value.reason is Reason.ROBOTS
        assert web.paths() == ["/robots.txt", "/a.jpg"], "robots.txt is read once"


async def test_the_first_word_of_the_user_agent_is_looked_for_in_robots_txt():
    with site(robots("User-agent: dpe\nDisallow: /\n\nUser-agent: *\nDisallow:")) as web:
        async with downloader() as it:
            with pytest.raises(NotFetched):
                await it.get(f"{web.url}/a.jpg")
        async with downloader(agent="lab-images/2 (+https://lab.example.org)") as it:
            assert (await it.get(f"{web.url}/a.jpg")).data == PHOTO


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (403, True), (500, False), (503, False), (429, False)])
async def test_without_robots_txt_all_is_allowed_and_while_the_host_is_in_trouble_nothing(status, allowed):
    with site({"/robots.txt": Answer(status=status), "/a.jpg": Answer(PHOTO)}) as web:
        async with downloader() as it:
            if allowed:
                assert (await it.get(f"{web.url}/a.jpg")).data == PHOTO
            else:
                with pytest.raises(NotFetched, match=r"HostInTrouble: .*left alone for a while") as caught:
                    await it.get(f"{web.url}/a.jpg")
                assert caught.value.outage
                assert "/a.jpg" not in web.paths()


async def test_a_robots_txt_that_leads_nowhere_is_an_answer_and_no_outage():
    with site({"/robots.txt": redirect("/robots.txt"), "/a.jpg": Answer(PHOTO)}) as web:
        async with downloader() as it:
            with pytest.raises(NotFetched, match=r"Robots: .*left alone for a while") as caught:
                await it.get(f"{web.url}/a.jpg")
        assert not caught.value.outage


async def test_a_redirect_is_judged_by_the_robots_txt_of_where_it_leads():
    with site(robots("User-agent: *\nDisallow: /"), host="127.0.0.3") as other:
        with site({"/a": redirect(f"{other.url}/a.jpg")}) as web:
            async with downloader() as it:
                with pytest.raises(NotFetched, match=r"robots.txt of 127.0.0.3 disallows"):
                    await it.get(f"{web.url}/a")
        assert other.paths() == ["/robots.txt"]


async def test_a_robots_txt_without_end_is_read_as_far_as_it_must_be():
    def endless():
        yield b"User-agent: *\nDisallow: /private/\n"
        while True:
            yield b"# and so on\n" * 1000

    with site(robots("") | {"/robots.txt": Answer(endless)}) as web:
        async with downloader() as it:
            assert (await it.get(f"{web.url}/a.jpg")).data == PHOTO
            with pytest.raises(NotFetched, match="disallows"):
                await it.get(f"{web.url}/private/a.jpg")


async def test_a_robots_txt_whose_rules_would_fill_the_memory_is_not_parsed_and_the_host_left_alone():
    agents = "".join(f"User-agent: {n}\n" for n in range(1001))
    text = agents + "".join(f"Disallow: /{n}\n" for n in range(1001))
    with site(robots(text)) as web:
        async with downloader() as it:
            with pytest.raises(NotFetched, match=r"Robots: .*left alone for a while") as caught:
                await it.get(f"{web.url}/a.jpg")
        assert not caught.value.outage, "it has answered"
        assert web.paths() == ["/robots.txt"]


async def test_a_long_robots_txt_as_large_sites_have_it_is_read():
    groups = "\n".join(f"User-agent: bot{n}\n" + "Disallow: /private/\n" * 20 for n in range(200))
    with site(robots(f"{groups}\nUser-agent: *\nDisallow: /private/")) as web:
        async with downloader() as it:
            assert (await it.get(f"{web.url}/a.jpg")).data == PHOTO
            with pytest.raises(NotFetched, match="disallows it for dpe"):
                await it.get(f"{web.url}/private/a.jpg")


async def test_requests_to_one_host_keep_their_distance_and_number():
    pages = {f"/{n}.jpg": Answer(PHOTO) for n in range(6)}
    with site(pages) as web:
        async with downloader(Manners(at_once=2, interval_s=0.1)) as it:
            began = time.monotonic()
            await asyncio.gather(*(it.get(f"{web.url}/{n}.jpg") for n in range(6)))
        assert web.visits[-1].at - began > 0.59, "six images after robots.txt, a tenth of a second apart"
        assert web.most_at_once <= 2


async def test_another_host_does_not_wait():
    def slow_photo(visit: Visit) -> Answer:
        released.wait(10)
        return Answer(PHOTO)

    released = threading.Event()
    with site({"/a.jpg": slow_photo}) as slow, site({"/a.jpg": Answer(PHOTO)}, host="127.0.0.3") as other:
        async with downloader(Manners(at_once=1, interval_s=0.0)) as it:
            waiting = [asyncio.create_task(it.get(f"{slow.url}/a.jpg")) for _ in range(20)]
            await slow.asked_for("/a.jpg")
            assert (await it.get(f"{other.url}/a.jpg")).data == PHOTO
            released.set()
            assert [came.data for came in await asyncio.gather(*waiting)] == [PHOTO] * 20


async def test_a_crawl_delay_is_kept_and_one_without_end_means_no():
    with site(robots("User-agent: *\nCrawl-delay: 0.3")) as web:
        async with downloader() as it:
            began = time.monotonic()
            await it.get(f"{web.url}/a.jpg")
            await it.get(f"{web.url}/private/a.jpg")
        assert web.visits[-1].at - began > 0.29
    with site(robots("User-agent: *\nCrawl-delay: 3600")) as web:
        async with downloader() as it:
            with pytest.raises(NotFetched, match="asks for 3600 s between two requests"):
                await it.get(f"{web.url}/a.jpg")


def busy_at_first(times: int, headers: dict[str, str], status: int = 429):
    seen: Counter[str] = Counter()

    def answer(visit: Visit) -> Answer:
        seen[visit.path] += 1
        return Answer(status=status, headers=headers) if seen[visit.path] <= times else Answer(PHOTO)

    return answer


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_waited_out_by_every_request_to_the_host(status):
    with site({"/a.jpg": busy_at_first(1, {"Retry-After": "1"}, status), "/b.jpg": Answer(PHOTO)}) as web:
        async with downloader(Manners(at_once=1, interval_s=0.0)) as it:  # the second has its turn after the answer
            first = asyncio.create_task(it.get(f"{web.url}/a.jpg"))
            await web.asked_for("/a.jpg")
            await it.get(f"{web.url}/b.jpg")
            assert (await first).data == PHOTO
        told, *later = [visit.at for visit in web.visits if visit.path != "/robots.txt"]
        assert len(later) == 2
        assert min(later) - told > 0.99


async def test_a_host_that_wants_more_patience_than_there_is_is_left_alone():
    with site({"/a.jpg": busy_at_first(1, {"Retry-After": "7200"}), "/b.jpg": Answer(PHOTO)}) as web:
        async with downloader() as it:
            for page in ("a", "b", "b"):
                with pytest.raises(NotFetched, match=r"RateLimited: 127.0.0.2 wants no request for 7\d\d\d s"):
                    await it.get(f"{web.url}/{page}.jpg")
        assert web.paths() == ["/robots.txt", "/a.jpg"]


async def test_hosts_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(module, "MAX_HOSTS", 3)
    hosts = Hosts(Manners(interval_s=0.0))
    for n in range(10):
        async with hosts.turn(f"{n}.example"):
            pass
    assert list(hosts._hosts) == ["7.example", "8.example", "9.example"]
