"""Downloads of single images: bounded in bytes, time, redirects and attempts; polite; to permitted addresses only."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx
from prometheus_client import Counter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from dpe_jobs import tracing
from dpe_jobs.chat import retry_after_s
from dpe_jobs.generation.fetching.addresses import Allowed, check
from dpe_jobs.generation.fetching.decoding import HEAD, sniff
from dpe_jobs.generation.fetching.manners import ROBOTS_BYTES, Hosts, Manners, NotNow, RobotsRules
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason
from dpe_jobs.generation.fetching.transport import GuardedTransport, Resolver, system_resolver

log = logging.getLogger(__name__)

ATTEMPTS = 3
CONNECT_S = 10.0
SILENCE_S = 10.0  # between two pieces of a body
CONNECTIONS = 32
LONGEST_PUT_OFF_S = 24 * 3600.0
_REDIRECTS = (301, 302, 303, 307, 308)
_WORTH_REPEATING = (Reason.TIMEOUT, Reason.CONNECTION, Reason.SERVER_ERROR, Reason.RATE_LIMITED)

DOWNLOADS = Counter("dpe_image_downloads_total", "Images from the web by what became of them", ["outcome"])
BYTES = Counter("dpe_image_download_bytes_total", "Bytes of images and robots.txt received from the web")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one image."""

    bytes: int = 20 * 1024 * 1024
    pixels: int = 40_000_000
    seconds: float = 30.0
    """For one request with its answer; waiting for one's turn is not counted."""
    redirects: int = 5
    total_s: float = 180.0
    """For everything: redirects, robots.txt, attempts, waiting."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """An image file as it came."""

    data: bytes = field(repr=False)
    url: str
    """Where it was at last, after redirects."""


class _PutOff(NotFetched):
    """The host asked for patience, which its next turn grants."""


def _repeat(error: BaseException) -> bool:
    return isinstance(error, NotFetched) and not isinstance(error, NotNow) and error.reason in _WORTH_REPEATING


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return 0.0 if isinstance(error, _PutOff) else wait_random_exponential(multiplier=0.5, max=10)(state)


class Downloader:
    """Use as an async context manager. At most `at_once` images, of at most `limits.bytes`, come in at a time."""

    def __init__(
        self,
        user_agent: str,
        *,
        allowed: Allowed | None = None,
        limits: Limits | None = None,
        manners: Manners | None = None,
        resolver: Resolver = system_resolver,
        at_once: int = 16,
    ) -> None:
        """`user_agent` names the project and says how to reach whoever runs it; its first word is looked for in
        robots.txt. `allowed` may be reached beside the Internet.
        """
        self._allowed, self._limits = allowed or Allowed(), limits or Limits()
        self._gate = asyncio.Semaphore(at_once)
        self._hosts = Hosts(manners or Manners())
        self._robots = RobotsRules(self._read_robots, self._hosts, user_agent)
        self._http = httpx.AsyncClient(
            transport=GuardedTransport(self._allowed, resolver, CONNECTIONS),
            # what unpacks without bound is not asked for
            headers={"User-Agent": user_agent, "Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S, pool=None),
            trust_env=False,  # a proxy would resolve names unchecked
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, address: str) -> Downloaded:
        """An image file, told by its first bytes and not yet decoded. NotFetched names what is wrong."""
        try:
            async with asyncio.timeout(self._limits.total_s):
                found: Downloaded = await self._retrying()(self._image, address)
        except TimeoutError as error:
            DOWNLOADS.labels(Reason.TIMEOUT).inc()
            raise NotFetched(Reason.TIMEOUT, f"no image after {self._limits.total_s:g} s in all") from error
        except NotFetched as error:
            DOWNLOADS.labels(error.reason).inc()
            raise
        DOWNLOADS.labels("Downloaded").inc()
        return found

    @staticmethod
    def _retrying() -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(_repeat), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )

    async def _image(self, address: str) -> Downloaded:
        url, data = await self._follow(check(address, self._allowed), self._limits.bytes, self._robots.check, sniff)
        return Downloaded(data, str(url))

    async def _read_robots(self, url: httpx.URL) -> bytes:
        _, data = await self._follow(url, ROBOTS_BYTES, None, None, cut=True)
        return data

    async def _follow(
        self,
        url: httpx.URL,
        most: int,
        permit: Callable[[httpx.URL], object] | None,
        look: Callable[[bytes], object] | None,
        *,
        cut: bool = False,
    ) -> tuple[httpx.URL, bytes]:
        """The last address and the body behind redirects. Each hop is checked like the first address.

        `permit` is awaited before each hop; `look` raises at the first bytes that will not do.
        """
        for _ in range(self._limits.redirects + 1):
            if permit is not None:
                await permit(url)  # type: ignore[misc]
            async with self._hosts.turn(url.host), self._gate, self._answer(url) as response:
                if response.status_code not in _REDIRECTS:
                    self._check_status(url, response)
                    return url, await self._body(response, most, look, cut=cut)
                url = self._next(url, response)
        raise NotFetched(Reason.TOO_MANY_REDIRECTS, f"more than {self._limits.redirects}, the last one to {url.host}")

    @asynccontextmanager
    async def _answer(self, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        """A response, whatever its status; its body is still to come. Covers what the body may raise."""
        try:
            with tracing.request("image download", "GET", str(url)) as span:
                async with asyncio.timeout(self._limits.seconds), self._http.stream("GET", url) as response:
                    tracing.answered(span, response.status_code)
                    yield response
        except (TimeoutError, httpx.TimeoutException) as error:
            raise NotFetched(
                Reason.TIMEOUT, f"{url.host}: {str(error) or f'not finished in {self._limits.seconds:g} s'}"
            ) from error
        except UnicodeError as error:  # httpx reads the host of a redirect that nobody has checked yet
            raise NotFetched(Reason.BAD_ADDRESS, f"{url.host} redirects to no address: {error}") from error
        except httpx.HTTPError as error:
            raise NotFetched(Reason.CONNECTION, f"{url.host}: {error}") from error

    def _next(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        try:
            target = url.join(response.headers.get("location", ""))
        except (httpx.InvalidURL, ValueError) as error:
            raise NotFetched(Reason.BAD_ADDRESS, f"{url.host} redirects to no address: {error}") from error
        if not response.headers.get("location"):
            raise NotFetched(Reason.BAD_ADDRESS, f"{url.host} redirects to nowhere (HTTP {response.status_code})")
        return check(target, self._allowed)

    def _check_status(self, url: httpx.URL, response: httpx.Response) -> None:
        status, said = response.status_code, f"{url.host}: HTTP {response.status_code}"
        if status == 200:
            return
        if status in (429, 503):
            asked_s = retry_after_s(response.headers, most=LONGEST_PUT_OFF_S)
            if asked_s is not None:
                self._hosts.put_off(url.host, asked_s)
                raise _PutOff(Reason.RATE_LIMITED, f"{said}, Retry-After {asked_s:g} s")
            raise NotFetched(Reason.RATE_LIMITED if status == 429 else Reason.SERVER_ERROR, said)
        if status in (404, 410):
            raise NotFetched(Reason.NOT_FOUND, said)
        if status >= 500:
            raise NotFetched(Reason.SERVER_ERROR, said)
        raise NotFetched(Reason.REFUSED, said)

    async def _body(
        self, response: httpx.Response, most: int, look: Callable[[bytes], object] | None, *, cut: bool
    ) -> bytes:
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", ""):
            raise NotFetched(Reason.ENCODED, f"content-encoding {coding[:40]!r}, which was not asked for")
        promised = response.headers.get("content-length", "")
        if promised.isascii() and promised.isdigit() and int(promised) > most and not cut:
            raise NotFetched(Reason.TOO_LARGE, f"{promised[:20]} bytes, more than {most}")
        data = bytearray()
        async for part in response.aiter_raw():
            BYTES.inc(len(part))
            data += part
            if look is not None and len(data) >= HEAD:
                look(bytes(data[:HEAD]))
                look = None
            if len(data) > most:
                if cut:
                    return bytes(data[:most])
                raise NotFetched(Reason.TOO_LARGE, f"more than {most} bytes")
        if look is not None:
            look(bytes(data))
        return bytes(data)
