"""How a host is treated: what its robots.txt allows, how often and how many at once, patience when it asks for it.

robots.txt by RFC 9309: read once a day for each origin, at most five redirects, at most 500 KiB; without one (4xx)
everything is allowed, while the host is in trouble (5xx, no answer) nothing is, nor when reading it would take all
memory.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from protego import Protego

from dpe_jobs.generation.fetching.reasons import OUTAGES, NotFetched, Reason

log = logging.getLogger(__name__)

ROBOTS_BYTES = 500 * 1024  # RFC 9309, 2.5: parsers read this much at least
ROBOTS_S = 24 * 3600.0  # RFC 9309, 2.4: not kept longer
MOST_RULES = 1_000_000  # of all agents together, 80 bytes each once they are read
TROUBLE_S = 600.0  # a host in trouble is left alone as long
MAX_HOSTS = 512  # remembered; the one not asked longest is forgotten
LONGEST_DELAY_S = 30.0  # between two requests; whoever asks for more is left alone


class NotNow(NotFetched):
    """The host asked for more patience than there is; asking again would be rude."""


@dataclass(frozen=True, slots=True)
class Manners:
    """Requests to one host."""

    at_once: int = 2
    interval_s: float = 0.5
    """Between the starts of two requests; a Crawl-delay of robots.txt counts when it is longer."""
    patience_s: float = 60.0
    """Longest wait for one's turn and for a Retry-After."""


@dataclass(slots=True)
class _Host:
    gate: asyncio.Semaphore
    next_start: float = 0.0  # time.monotonic()
    interval_s: float = 0.0


@dataclass(slots=True)
class _Robots:
    until: float  # time.monotonic()
    rules: Protego | None
    """None: nobody may."""
    why_none: Reason = Reason.ROBOTS
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Hosts:
    """Whose turn it is, by host name."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def _of(self, host: str) -> _Host:
        if host not in self._hosts:
            self._hosts[host] = _Host(asyncio.Semaphore(self._manners.at_once), interval_s=self._manners.interval_s)
            if len(self._hosts) > MAX_HOSTS:
                self._hosts.popitem(last=False)
        self._hosts.move_to_end(host)
        return self._hosts[host]

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for one's turn. NotFetched when that would take longer than there is patience for."""
        state = self._of(host)
        async with state.gate:
            now = time.monotonic()
            start = max(now, state.next_start)
            if start - now > self._manners.patience_s:
                raise NotNow(Reason.RATE_LIMITED, f"{host} wants no request for {start - now:.0f} s")
            state.next_start = start + state.interval_s
            await asyncio.sleep(start - now)
            yield

    def put_off(self, host: str, seconds: float) -> None:
        """The host asked for patience: that holds for every request to it."""
        state = self._of(host)
        state.next_start = max(state.next_start, time.monotonic() + seconds)

    def slow_down(self, host: str, interval_s: float) -> None:
        """The host's robots.txt asks for longer intervals."""
        state = self._of(host)
        state.interval_s = max(state.interval_s, interval_s)


class RobotsRules:
    """What robots.txt allows."""

    def __init__(self, read: Callable[[httpx.URL], Awaitable[bytes]], hosts: Hosts, user_agent: str) -> None:
        """`read` gets at most ROBOTS_BYTES of a file, or raises NotFetched."""
        self._read, self._hosts = read, hosts
        self._name = user_agent.split("/")[0].strip() or user_agent
        self._known: OrderedDict[str, _Robots] = OrderedDict()

    async def check(self, url: httpx.URL) -> None:
        """NotFetched when the host does not want this address to be asked."""
        origin = str(url.copy_with(raw_path=b"/"))
        robots = self._known.setdefault(origin, _Robots(until=0.0, rules=None))
        self._known.move_to_end(origin)
        if len(self._known) > MAX_HOSTS:
            self._known.popitem(last=False)
        async with robots.lock:
            if time.monotonic() >= robots.until:
                await self._learn(robots, url)
        if robots.rules is None:
            raise NotFetched(robots.why_none, f"robots.txt of {url.host} cannot be read: it is left alone for a while")
        if not robots.rules.can_fetch(str(url), self._name):
            raise NotFetched(Reason.ROBOTS, f"robots.txt of {url.host} disallows it for {self._name}")
        delay_s = robots.rules.crawl_delay(self._name) or 0.0
        if delay_s > LONGEST_DELAY_S:
            raise NotFetched(Reason.ROBOTS, f"robots.txt of {url.host} asks for {delay_s:g} s between two requests")
        self._hosts.slow_down(url.host, delay_s)

    async def _learn(self, robots: _Robots, url: httpx.URL) -> None:
        try:
            text = await self._read(url.copy_with(raw_path=b"/robots.txt"))
        except NotFetched as error:
            if error.reason in (Reason.BLOCKED_ADDRESS, Reason.BAD_ADDRESS):
                raise  # the address itself will not do
            if error.reason not in (Reason.NOT_FOUND, Reason.REFUSED):
                log.info("robots.txt of %s: %s", url.host, error)
                robots.rules, robots.until = None, time.monotonic() + TROUBLE_S
                robots.why_none = Reason.HOST_IN_TROUBLE if error.reason in OUTAGES else Reason.ROBOTS
                return
            text = b""
        robots.rules = await asyncio.to_thread(_parsed, text.decode(errors="replace"))
        if robots.rules is None:
            robots.why_none = Reason.ROBOTS
            log.info("robots.txt of %s has more than %d rules for its agents", url.host, MOST_RULES)
        robots.until = time.monotonic() + (TROUBLE_S if robots.rules is None else ROBOTS_S)


def _parsed(text: str) -> Protego | None:
    """The rules; None: there may be too many, for Protego keeps each of a group once for every agent of the group.

    How lines are grouped is for Protego to say: here all rules may be for all agents.
    """
    lines = [line.strip().lower() for line in text.splitlines()]
    agents = sum(line.startswith("user") for line in lines)
    others = sum(bool(line) and not line.startswith(("user", "#")) for line in lines)
    return None if agents * others > MOST_RULES else Protego.parse(text)
