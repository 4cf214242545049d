"""Downloads over real HTTP from sites on 127.0.0.2, which the platform lists here; 127.0.0.1 is what is private."""

import asyncio
import ssl
import time
from collections.abc import Iterator

import pytest
from tests.fakes import tls
from tests.fakes.image_files import file
from tests.fakes.web import Answer, Site, redirect, site

from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.download import Downloaded, Downloader, Limits
from dpe_jobs.generation.fetching.manners import Manners
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason
from dpe_jobs.generation.fetching.transport import system_resolver

LISTED = Allowed.of(["127.0.0.2", "::1"])
PHOTO = file()
QUICK = Manners(at_once=4, interval_s=0.0, patience_s=5.0)


def downloader(**changes: object) -> Downloader:
    return Downloader("dpe-test/1 (+mailto:t@example.org)", **{"allowed": LISTED, "manners": QUICK, **changes})


async def get(address: str, **changes: object) -> Downloaded:
    async with downloader(**changes) as it:
        return await it.get(address)


async def reason(address: str, **changes: object) -> tuple[Reason, str]:
    with pytest.raises(NotFetched) as refused:
        await get(address, **changes)
    return refused.value.reason, refused.value.message


async def test_an_image_comes_as_it_is_and_the_host_learns_who_asks():
    with site({"/a.jpg": Answer(PHOTO)}) as web:
        came = await get(f"{web.url}/a.jpg")
        assert (came.data, came.url) == (PHOTO, f"{web.url}/a.jpg")
        assert web.paths() == ["/robots.txt", "/a.jpg"]
        assert {v.headers["User-Agent"] for v in web.visits} == {"dpe-test/1 (+mailto:t@example.org)"}
        assert {v.headers["Accept-Encoding"] for v in web.visits} == {"identity"}


async def test_one_connection_serves_several_images():
    with site({"/robots.txt": Answer(b"")} | {f"/{n}.jpg": Answer(PHOTO) for n in range(5)}) as web:
        async with downloader() as it:
            for n in range(5):
                await it.get(f"{web.url}/{n}.jpg")
        assert web.connections == 1


# --- where it goes


async def test_a_redirect_is_followed_and_its_end_is_told():
    with site({"/a": redirect("/b"), "/b": redirect("c.jpg", 301), "/c.jpg": Answer(PHOTO)}) as web:
        assert (await get(f"{web.url}/a")).url == f"{web.url}/c.jpg"


async def test_a_redirect_into_the_private_network_goes_nowhere():
    with site({"/secret": Answer(PHOTO)}, host="127.0.0.1") as private:
        targets = {
            "/number": f"http://127.0.0.1:{private.port}/secret",
            "/name": f"http://localhost:{private.port}/secret",
            "/decimal": f"http://2130706433:{private.port}/secret",
            "/mapped": f"http://[::ffff:127.0.0.1]:{private.port}/secret",
            "/file": "file:///etc/passwd",
            "/metadata": "http://169.254.169.254/latest/meta-data/",
            "/user": f"http://u:p@127.0.0.1:{private.port}/secret",
            "/undecodable": f"http://xn--i-7iq.ws:{private.port}/secret",
        }
        with site({path: redirect(target) for path, target in targets.items()}) as web:
            found = {path: (await reason(f"{web.url}{path}"))[0] for path in targets}
        blocked, bad = Reason.BLOCKED_ADDRESS, Reason.BAD_ADDRESS
        assert found == {
            "/number": blocked,
            "/name": blocked,
            "/decimal": bad,
            "/mapped": blocked,
            "/file": bad,
            "/metadata": blocked,
            "/user": bad,
            "/undecodable": bad,
        }
        assert private.visits == []


async def test_robots_txt_cannot_lead_into_the_private_network_either():
    with site({"/admin": Answer(b"User-agent: *\nAllow: /")}, host="127.0.0.1") as private:
        with site({"/robots.txt": redirect(f"{private.url}/admin"), "/a.jpg": Answer(PHOTO)}) as web:
            assert (await reason(f"{web.url}/a.jpg"))[0] is Reason.BLOCKED_ADDRESS
        assert private.connections == 0


async def test_a_name_whose_address_changes_between_check_and_connection_stays_blocked():
    """DNS rebinding: a name is public when it is looked at, and private when it is connected to."""
    pages = {"/robots.txt": Answer(b""), "/a.jpg": Answer(PHOTO)}
    with site(pages) as web, site(pages, host="127.0.0.1") as private:
        asked: list[str] = []

        async def rebinding(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

        async with downloader(resolver=rebinding) as it:
            assert (await it.get(f"http://evil.example:{web.port}/a.jpg")).data == PHOTO
            assert asked == ["evil.example"], "robots.txt and image went over the one connection that was checked"
            with pytest.raises(NotFetched, match=r"BlockedAddress: evil.example is at 127.0.0.1"):
                await it.get(f"http://evil.example:{private.port}/a.jpg")
        assert private.connections == 0


async def test_of_several_addresses_only_permitted_ones_are_connected_to():
    with site({"/a.jpg": Answer(PHOTO)}) as web, site(host="127.0.0.1") as private:

        async def both(host: str, port: int) -> list[str]:
            return ["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.1", "127.0.0.2"]

        assert (await get(f"http://both.example:{web.port}/a.jpg", resolver=both)).data == PHOTO
        assert private.connections == 0


async def test_the_next_address_is_tried_when_the_first_does_not_answer():
    with site({"/a.jpg": Answer(PHOTO)}) as web:

        async def half_dead(host: str, port: int) -> list[str]:
            return ["::1", "127.0.0.2"]  # nobody listens at the first

        assert (await get(f"http://half.example:{web.port}/a.jpg", resolver=half_dead)).data == PHOTO


async def test_a_public_name_may_not_be_asked_at_odd_ports():
    async def public(host: str, port: int) -> list[str]:
        return ["8.8.8.8"]

    found, said = await reason("http://example.org:6379/a.jpg", resolver=public)
    assert (found, said) == (Reason.BLOCKED_ADDRESS, "port 6379 of example.org is none of 80, 443")


async def test_ipv6_is_spoken_where_it_is_listed_and_blocked_elsewhere():
    with site({"/a.jpg": Answer(PHOTO)}, host="::1") as web:
        assert (await get(f"{web.url}/a.jpg")).data == PHOTO
        assert (await reason(f"{web.url}/a.jpg", allowed=Allowed()))[0] is Reason.BLOCKED_ADDRESS


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    with site({"/a.jpg": Answer(PHOTO)}) as web, site(host="127.0.0.1") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert (await get(f"{web.url}/a.jpg")).data == PHOTO
        assert proxy.connections == 0


async def test_a_name_that_nobody_knows_is_a_connection_that_failed():
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    found, said = await reason("http://nowhere.example/a.jpg", resolver=unknown)
    assert found is Reason.HOST_IN_TROUBLE
    assert "robots.txt of nowhere.example cannot be read" in said
    assert await system_resolver("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """Certificate of pictures.example, and its key, in one file; it is its own authority."""
    return tls.certificate(tmp_path_factory.mktemp("tls") / "both.pem", "pictures.example", "127.0.0.9")


@pytest.fixture
def tls_site(certificate) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    it = Site({"/a.jpg": Answer(PHOTO)})
    it.speak_tls(context)
    it.start()
    yield it
    it.close()


async def test_tls_verifies_the_name_although_the_connection_goes_to_a_number(tls_site, certificate, monkeypatch):
    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.2"]

    untrusted = await reason(f"https://pictures.example:{tls_site.port}/a.jpg", resolver=here)
    assert untrusted[0] is Reason.HOST_IN_TROUBLE
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert (await get(f"https://pictures.example:{tls_site.port}/a.jpg", resolver=here)).data == PHOTO
    other = await reason(f"https://other.example:{tls_site.port}/a.jpg", resolver=here)
    assert other[0] is Reason.HOST_IN_TROUBLE
    assert tls_site.paths() == ["/robots.txt", "/a.jpg"]


# --- how much, and how long


async def test_redirects_end_somewhere():
    with site({"/a": redirect("/a"), "/b": redirect(""), "/c": redirect("http://[")}) as web:
        assert (await reason(f"{web.url}/a"))[0] is Reason.TOO_MANY_REDIRECTS
        assert web.paths().count("/a") == Limits().redirects + 1
        assert (await reason(f"{web.url}/b"))[0] is Reason.BAD_ADDRESS
        assert (await reason(f"{web.url}/c"))[0] is Reason.BAD_ADDRESS


def endless() -> Iterator[bytes]:
    yield PHOTO
    while True:
        yield bytes(65536)


async def test_a_body_without_end_is_cut_off_at_the_limit():
    with site({"/a.jpg": Answer(endless)}) as web:
        found, said = await reason(f"{web.url}/a.jpg", limits=Limits(bytes=1_000_000))
        assert (found, said) == (Reason.TOO_LARGE, "more than 1000000 bytes")


async def test_a_body_that_announces_too_much_is_not_read():
    with site({"/a.jpg": Answer(PHOTO, length=10**12)}) as web:
        assert await reason(f"{web.url}/a.jpg") == (Reason.TOO_LARGE, "1000000000000 bytes, more than 20971520")


def dripping() -> Iterator[bytes]:
    for byte in PHOTO:
        yield bytes([byte])
        time.sleep(0.02)


async def test_a_body_that_drips_is_given_up_in_time():
    with site({"/a.jpg": Answer(dripping)}) as web:
        started = time.monotonic()
        found, said = await reason(f"{web.url}/a.jpg", limits=Limits(seconds=0.3))
        assert (found, said) == (Reason.TIMEOUT, "127.0.0.2: not finished in 0.3 s")
        assert time.monotonic() - started < 5
        assert web.paths().count("/a.jpg") == 3, "tried again, as a passing trouble is"


async def test_everything_together_is_given_up_in_time():
    with site({"/robots.txt": Answer(dripping), "/a.jpg": Answer(PHOTO)}) as web:
        found, said = await reason(f"{web.url}/a.jpg", limits=Limits(total_s=0.3))
        assert (found, said) == (Reason.TIMEOUT, "no image after 0.3 s in all")


async def test_a_body_that_breaks_off_is_no_image():
    with site({"/a.jpg": Answer(PHOTO[:1000], length=len(PHOTO))}) as web:
        assert (await reason(f"{web.url}/a.jpg"))[0] is Reason.CONNECTION


async def test_a_page_that_says_it_is_an_image_is_none_and_is_not_read_to_its_end():
    def page() -> Iterator[bytes]:
        yield b"<!DOCTYPE html><html><body>Sign in to see this image"
        yield from endless()

    with site({"/a.jpg": Answer(page, headers={"Content-Type": "image/jpeg"})}) as web:
        found, said = await reason(f"{web.url}/a.jpg")
        assert found is Reason.NOT_AN_IMAGE
        assert "those of HTML, SVG or XML" in said


async def test_an_image_that_says_it_is_a_page_is_an_image():
    with site({"/a": Answer(PHOTO, headers={"Content-Type": "text/html"})}) as web:
        assert (await get(f"{web.url}/a")).data == PHOTO


@pytest.mark.parametrize("body", [b"", b"\xff", b"GIF8", b"%PDF-1.7 and so on, and so on", b"MZ" + bytes(100)])
async def test_bytes_of_nothing_known_are_no_image(body):
    with site({"/a.jpg": Answer(body, headers={"Content-Type": "image/jpeg"})}) as web:
        assert (await reason(f"{web.url}/a.jpg"))[0] is Reason.NOT_AN_IMAGE


async def test_what_unpacks_without_bound_is_not_unpacked():
    with site({"/a.jpg": Answer(PHOTO, headers={"Content-Encoding": "gzip"})}) as web:
        assert (await reason(f"{web.url}/a.jpg"))[0] is Reason.ENCODED


@pytest.mark.parametrize(
    ("status", "named", "times"),
    [
        (404, Reason.NOT_FOUND, 1),
        (410, Reason.NOT_FOUND, 1),
        (403, Reason.REFUSED, 1),
        (451, Reason.REFUSED, 1),
        (204, Reason.REFUSED, 1),
        (500, Reason.SERVER_ERROR, 3),
        (502, Reason.SERVER_ERROR, 3),
        (429, Reason.RATE_LIMITED, 3),
    ],
)
async def test_a_status_is_a_reason_and_passing_ones_are_tried_again(status, named, times):
    with site({"/a.jpg": Answer(PHOTO if status != 204 else b"", status=status)}) as web:
        assert (await reason(f"{web.url}/a.jpg"))[0] is named
        assert web.paths().count("/a.jpg") == times


async def test_no_http_at_all_is_a_connection_that_failed():
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await reason(f"http://127.0.0.2:{port}/a.jpg"))[0] is Reason.HOST_IN_TROUBLE
    server.close()


async def test_headers_without_end_are_given_up():
    async def header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"robots" in request:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(100_000):
                writer.write(b"X-%d: and so on and so on\r\n" % n)
                if writer.transport.is_closing():
                    return
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(header, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await reason(f"http://127.0.0.2:{port}/a.jpg"))[0] is Reason.CONNECTION
    server.close()


async def test_a_caller_that_goes_away_leaves_no_connection_behind():
    with site({"/a.jpg": Answer(dripping), "/b.jpg": Answer(PHOTO)}) as web:
        async with downloader(at_once=1) as it:
            task = asyncio.create_task(it.get(f"{web.url}/a.jpg"))
            await web.asked_for("/a.jpg")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await it.get(f"{web.url}/b.jpg")).data == PHOTO
