"""Each provider over real HTTP, against a server that speaks its protocol."""

import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression
from prometheus_client import generate_latest
from tests.fakes.image_searches import KEY, PATHS, PROVIDERS, Catalogue, answer, source
from tests.fakes.web import Answer, Script, Site, Visit, redirect, site

from dpe_api.endpoints import source_key_variable
from dpe_api.generation_spec import Provider
from dpe_jobs.generation.search import api, licences
from dpe_jobs.generation.search.api import BREAK_AFTER, SearchApi
from dpe_jobs.generation.search.results import LONGEST_WORDS, Complained, Page, Result, SearchFailed, web_address
from dpe_jobs.runtime import BadConfig, Transient

ALL = list(Provider)
WEB = "http://127.0.0.2:1"


def serve(provider: Provider, found: int = 50) -> dict[str, Script]:
    return {PATHS[provider]: PROVIDERS[provider](Catalogue(WEB, found))}


async def search(provider: Provider, web: Site, query: str = "red car", page: int = 1, **changes: object) -> Page:
    async with SearchApi(source(provider, web, **changes), 1, "dpe-test/1") as it:
        return await it.search(query, page)


async def failure(provider: Provider, page: Answer | Script, **changes: object) -> Exception:
    with site({PATHS[provider]: page}) as web, pytest.raises((SearchFailed, BadConfig)) as failed:
        await search(provider, web, **changes)
    return failed.value


@pytest.mark.parametrize(
    ("provider", "first", "second"),
    [
        (
            Provider.SEARXNG,
            Result(f"{WEB}/img/0.jpg", "https://pages.example/0", "Picture 0", width=640, height=480),
            Result(f"{WEB}/img/1.jpg", "https://pages.example/1", "Picture 1", width=640, height=480),
        ),
        (
            Provider.SERPER,
            Result(f"{WEB}/img/0.jpg", "https://pages.example/0", "Picture 0", "Pages", width=640, height=480),
            Result(f"{WEB}/img/1.jpg", "https://pages.example/1", "Picture 1", "Pages", width=640, height=480),
        ),
        (
            Provider.OPENVERSE,
            Result(f"{WEB}/img/0.jpg", "https://pages.example/0", "Picture 0", "A. Uthor", "CC-BY-SA-2.0", 640),
            Result(f"{WEB}/img/1.jpg", "https://pages.example/1", "Picture 1", "A. Uthor", "CC0-1.0", 640),
        ),
        (
            Provider.WIKIMEDIA,
            Result(
                f"{WEB}/img/0.jpg",
                "https://commons.wikimedia.org/wiki/File:Picture_0.jpg",
                "Picture 0",
                "A. Uthor",
                "CC-BY-SA-4.0",
                640,
                480,
            ),
            Result(
                f"{WEB}/img/1.jpg",  # a thumbnail, for the original is large
                "https://commons.wikimedia.org/wiki/File:Picture_1.jpg",
                "Picture 1",
                "A. Uthor",
                "LicenseRef-Public-Domain",
                1280,
                960,
            ),
        ),
    ],
)
async def test_a_result_carries_what_the_provider_tells(provider, first, second):
    with site(serve(provider)) as web:
        found = await search(provider, web)
    assert found.results[:2] == (first, second)
    assert len(found.results) == 20


@pytest.mark.parametrize("provider", ALL)
async def test_pages_follow_each_other_to_the_end(provider):
    with site(serve(provider, found=50)) as web:
        async with SearchApi(source(provider, web), 1, "dpe-test/1") as it:
            pages, number = [await it.search("red car")], 1
            while pages[-1].more:
                number += 1
                pages.append(await it.search("red car", number))
    images = [result.image_url for page in pages for result in page.results]
    assert images == [f"{WEB}/img/{n}.jpg" for n in range(50)]
    assert number <= 4


@pytest.mark.parametrize("provider", ALL)
async def test_however_much_there_is_pages_end(provider):
    with site(serve(provider, found=10_000)) as web:
        async with SearchApi(source(provider, web), 1, "dpe-test/1") as it:
            last = 1
            while (await it.search("red car", last)).more:
                last += 1
            asked = len(web.visits)
            assert await it.search("red car", last + 1) == Page((), more=False)
    assert last <= 12
    assert len(web.visits) == asked, "a page that does not exist is not asked for"


@pytest.mark.parametrize("provider", ALL)
async def test_nothing_found_is_no_error(provider):
    with site(serve(provider, found=0)) as web:
        assert await search(provider, web) == Page((), more=False)
        assert await search(provider, web, query="  \n ") == Page((), more=False)
        assert len(web.visits) == 1, "an empty query is not sent"


async def test_engines_that_did_not_answer_are_not_an_empty_result():
    silent = {"results": [], "unresponsive_engines": [["bing images", "timeout"], ["google images", "CAPTCHA"]]}
    failed = await failure(Provider.SEARXNG, answer(silent))
    assert "Unavailable: spec.generation.sources[1] (searxng)" in str(failed)
    assert "bing images timeout, google images CAPTCHA" in str(failed)


async def test_a_query_stays_a_query_whatever_stands_in_it():
    with site(serve(Provider.WIKIMEDIA)) as web:
        await search(Provider.WIKIMEDIA, web, query="cats&gsrlimit=500&action=delete#\r\nX: y" + 500 * "z")
        (visit,) = web.visits
    assert (visit.query["action"], visit.query["gsrlimit"]) == ("query", "20")
    assert visit.query["gsrsearch"].startswith("filetype:bitmap cats&gsrlimit=500&action=delete# X: yzz")
    assert len(visit.query["gsrsearch"]) == 200 + len("filetype:bitmap ")


# --- keys


async def test_a_key_goes_to_the_provider_in_its_own_way():
    headers = {Provider.SERPER: ("X-API-KEY", KEY)}
    for provider in ALL:
        with site(serve(provider)) as web:
            await search(provider, web, keyed=True)
            name, value = headers.get(provider, ("Authorization", f"Bearer {KEY}"))
            assert web.visits[0].headers[name] == value
            assert web.visits[0].headers["User-Agent"] == "dpe-test/1"


@pytest.mark.parametrize("value", [None, "", " \n", "two\nlines", "smörgås"])
async def test_a_key_that_is_missing_or_no_header_names_its_variable_and_secret(value, monkeypatch):
    variable = source_key_variable(1)
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(
        BadConfig, match=rf"sources\[1\]: its API key \(environment variable {variable}\).*correct"
    ) as e:
        SearchApi(source(Provider.OPENVERSE, WEB, keyed=True), 1, "dpe-test/1")
    assert value is None or not value.strip() or value not in str(e.value)


async def test_serper_without_a_reference_to_a_key_says_which_field_to_write():
    with pytest.raises(BadConfig, match=r"spec.generation.sources\[1\]: provider serper needs apiKeySecretRef"):
        SearchApi(source(Provider.SERPER, WEB, keyed=False), 1, "dpe-test/1")


@pytest.mark.parametrize(
    ("provider", "refusal"),
    [
        (Provider.SERPER, answer({"message": f"Unauthorized: {KEY}", "statusCode": 403}, 403)),
        (Provider.OPENVERSE, answer({"detail": f"Invalid token {KEY}"}, 401)),
        (Provider.WIKIMEDIA, answer({"error": {"code": "mwoauth-invalid-authorization", "info": KEY}})),
        (Provider.SEARXNG, answer({"error": KEY}, 401)),
    ],
)
async def test_a_refused_key_ends_the_stage_and_is_repeated_nowhere(provider, refusal, caplog):
    caplog.set_level(logging.DEBUG)
    with site({PATHS[provider]: refusal}) as web:
        with pytest.raises(BadConfig, match=r"spec.generation.sources\[1\].*KeyRefused: .*(token|Secret)") as failed:
            await search(provider, web, keyed=True)
        assert len(web.visits) == 1
    told = str(failed.value) + caplog.text + generate_latest().decode()
    assert KEY not in told


# --- trouble


async def test_an_empty_account_ends_the_stage():
    spent = answer({"message": "Not enough credits", "statusCode": 400}, 400)
    assert "QuotaSpent: the account has no credits left" in str(await failure(Provider.SERPER, spent))
    assert "QuotaSpent" in str(await failure(Provider.OPENVERSE, answer({}, 402)))


async def test_a_bad_request_is_no_empty_account():
    failed = await failure(Provider.SERPER, answer({"message": "Query is wrong", "statusCode": 400}, 400))
    assert isinstance(failed, SearchFailed)
    assert failed.reason == "Refused"


async def test_a_format_that_is_switched_off_says_what_to_write_where():
    failed = await failure(Provider.SEARXNG, Answer(b"<h1>Forbidden</h1>", 403))
    assert isinstance(failed, BadConfig)
    assert "add json to search.formats in the instance's settings.yml" in str(failed)


@pytest.mark.parametrize("page", [Answer(status=404), redirect("https://elsewhere.example/")])
async def test_a_wrong_address_ends_the_stage(page):
    for provider in ALL:
        failed = await failure(provider, page)
        assert isinstance(failed, BadConfig)
        assert "WrongAddress: correct its url" in str(failed)


async def test_an_address_that_nothing_can_be_sent_to_ends_the_stage():
    with pytest.raises(BadConfig, match=r"sources\[1\] \(searxng\): its url is no address") as failed:
        await search(Provider.SEARXNG, "https://[searx.example.org]")
    assert failed.value.reason == "SearchAddress"


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Malformed"),
        (b"<html>", "Malformed"),
        (b"{}", "Malformed"),
        (b"[]", "Malformed"),
        (b"null", "Malformed"),
        (b'{"results": 5, "images": 5, "query": {"pages": 5}}', "Malformed"),
        (b"[" * 100_000, "Malformed"),
        (b'{"results": [], "images": []}' + b" " * (5 << 20), "Malformed"),
    ],
)
async def test_an_answer_of_another_form_is_an_error_of_the_service(provider, body, reason, monkeypatch):
    monkeypatch.setattr(api, "ATTEMPTS", 1)
    failed = await failure(provider, Answer(body))
    assert isinstance(failed, SearchFailed)
    assert failed.reason == reason


@pytest.mark.parametrize("provider", ALL)
async def test_rows_of_another_form_are_passed_over_and_the_rest_is_read(provider):
    odd = [None, 5, "x", [], {}, {"url": 5, "img_src": 7, "imageUrl": None, "imageinfo": [5]}, {"imageinfo": []}]
    good = {"url": f"{WEB}/a.jpg", "img_src": f"{WEB}/a.jpg", "imageUrl": f"{WEB}/a.jpg"}
    long = {"title": "t" * 5000 + "\0", "creator": {"a": 1}, "resolution": "9" * 99, "width": -5, "imageWidth": 1e9}
    row = {**good, **long, "imageinfo": [{**good, "extmetadata": 5, "width": True}], "index": "x"}
    rows = [*odd, row]
    found = {"results": rows, "images": rows, "query": {"pages": rows}, "page_count": "many"}
    with site({PATHS[provider]: answer(found)}) as web:
        page = await search(provider, web)
    (result,) = page.results
    assert result.image_url == f"{WEB}/a.jpg"
    assert len(result.title) <= LONGEST_WORDS
    assert (result.author, result.licence, result.width, result.height) == ("", "", 0, 0)


def test_an_address_that_no_sample_could_hold_is_none():
    assert web_address("https://pages.example/\U0001f600") != ""
    assert web_address("https://pages.example/\ud83d") == "", "half a surrogate pair"


NAMES = """results images query pages error code continue gsroffset batchcomplete unresponsive_engines page_count url
img_src imageUrl title author creator license license_version resolution width imageWidth imageinfo extmetadata value
Artist License ObjectName thumburl index mature link"""
KEYS = st.sampled_from(NAMES.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(f"{WEB}/a.jpg")
JSON = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS, v, max_size=6), max_leaves=30)


@pytest.mark.parametrize("provider", ALL)
@settings(max_examples=60)
@given(body=st.dictionaries(KEYS, JSON, max_size=6) | JSON)
def test_any_json_is_results_or_a_complaint_and_results_hold_web_addresses_and_short_words(provider, body):
    reader = api.PROVIDERS[provider](WEB, "key")
    try:
        page = reader.read(body, 1)
    except (ValueError, TypeError, KeyError, Complained):
        return
    for result in page.results:
        assert result.image_url.startswith("http")
        assert result.page_url == "" or result.page_url.startswith("http")
        assert all("\n" not in told and len(told) <= LONGEST_WORDS for told in (result.title, result.author))
        assert result.width >= 0
        assert result.licence == "" or " " not in result.licence


def flaky(script: Script, times: int, trouble: Answer) -> Script:
    left = times

    def page(visit: Visit) -> Answer:
        nonlocal left
        left -= 1
        return trouble if left >= 0 else script(visit)

    return page


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("trouble", [Answer(status=500), Answer(status=429), Answer(b"<html>"), Answer(length=5)])
async def test_passing_trouble_is_waited_out(provider, trouble):
    pages = {path: flaky(script, 3, trouble) for path, script in serve(provider).items()}
    with site(pages) as web:
        assert len((await search(provider, web)).results) == 20
        assert len(web.visits) == 4


async def test_lag_and_limits_of_wikimedia_come_with_status_200_and_are_waited_out():
    for code in ("maxlag", "ratelimited", "readonly"):
        lag = answer({"error": {"code": code, "info": "Waiting for a database server"}}, headers={"Retry-After": "0"})
        pages = {path: flaky(script, 2, lag) for path, script in serve(Provider.WIKIMEDIA).items()}
        with site(pages) as web:
            assert len((await search(Provider.WIKIMEDIA, web)).results) == 20
    failed = await failure(Provider.WIKIMEDIA, answer({"error": {"code": "badvalue", "info": "x"}}))
    assert isinstance(failed, SearchFailed)
    assert failed.reason == "Refused"


async def test_retry_after_is_honoured():
    pages = {
        path: flaky(script, 1, Answer(status=429, headers={"Retry-After": "1"}))
        for path, script in serve(Provider.OPENVERSE).items()
    }
    with site(pages) as web:
        started = time.monotonic()
        await search(Provider.OPENVERSE, web)
        assert time.monotonic() - started >= 1


async def test_a_provider_that_wants_more_patience_than_there_is_is_not_asked_meanwhile():
    with site({PATHS[Provider.OPENVERSE]: Answer(status=429, headers={"Retry-After": "80000"})}) as web:
        async with SearchApi(source(Provider.OPENVERSE, web), 1, "dpe-test/1") as it:
            for _ in range(3):
                with pytest.raises(SearchFailed, match=r"RateLimited: .*wants no request for \d+ s"):
                    await it.search("red car")
        assert len(web.visits) == 1


async def test_a_provider_that_is_dead_ends_the_attempt(monkeypatch):
    monkeypatch.setattr(api, "ATTEMPTS", 2)
    with site({PATHS[Provider.SEARXNG]: Answer(status=500)}) as web:
        async with SearchApi(source(Provider.SEARXNG, web), 1, "dpe-test/1") as it:
            for _ in range(BREAK_AFTER - 1):
                with pytest.raises(SearchFailed, match="Unavailable"):
                    await it.search("red car")
            with pytest.raises(Transient, match=r"8 searches without an answer; the last one: HTTP 500"):
                await it.search("red car")
            asked = len(web.visits)
            with pytest.raises(Transient):
                await it.search("red car")
            assert len(web.visits) == asked


async def test_nobody_there_is_an_error_of_the_service():
    with site() as web:
        pass
    with pytest.raises(SearchFailed, match=r"Unavailable: .*no connection"):
        await search(Provider.SEARXNG, web)


# --- licences


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("CC BY 2.0", "CC-BY-2.0"),
        ("cc-by-sa-3.0-de", "CC-BY-SA-3.0-DE"),
        ("CC BY-SA 2.1 jp", "CC-BY-SA-2.1-JP"),
        ("cc-by-sa-2.5-es", ""),
        ("cc-by-sa-9.0", ""),
        ("cc-by-nc-sa-2.0", "CC-BY-NC-SA-2.0"),
        ("by-nc-nd 4.0", "CC-BY-NC-ND-4.0"),
        ("cc0", "CC0-1.0"),
        ("CC0", "CC0-1.0"),
        ("pd", licences.PUBLIC_DOMAIN),
        ("pd-old-100", licences.PUBLIC_DOMAIN),
        ("Public domain", licences.PUBLIC_DOMAIN),
        ("public domain, but not here", ""),
        ("GFDL", ""),
        ("gfdl-1.2", "GFDL-1.2-or-later"),
        ("All rights reserved", ""),
        ("cc-by-sa-4.0 or whatever", ""),
        ("", ""),
    ],
)
def test_a_licence_is_its_spdx_identifier_or_unknown(name, identifier):
    assert licences.spdx(name) == identifier


@pytest.mark.parametrize(
    ("licence", "version", "identifier"),
    [
        ("by", "2.0", "CC-BY-2.0"),
        ("by-nc-sa", "4.0", "CC-BY-NC-SA-4.0"),
        ("cc0", "1.0", "CC0-1.0"),
        ("pdm", "1.0", "CC-PDM-1.0"),
        ("by", "", ""),
        ("sampling+", "1.0", ""),
        ("pdm", "", "CC-PDM-1.0"),
    ],
)
def test_openverses_codes_are_spdx_identifiers(licence, version, identifier):
    assert licences.openverse(licence, version) == identifier


def test_every_identifier_is_in_the_spdx_list():
    every = {*licences.CREATIVE_COMMONS, *licences._OTHERS.values()}
    assert len(every) > 40
    for identifier in every:
        assert canonicalize_license_expression(identifier) == identifier
