"""HTTP whose connections go to checked addresses only, whatever a name resolves to and however often it changes.

A check before the request would be for nothing: the name is resolved again for the connection, and a hostile DNS server
answers differently then (DNS rebinding). So the name is resolved once for each connection, the answers are checked, and
the connection is made to a checked address; TLS still verifies the name. Built on what httpcore and httpx document for
this: a network backend and a transport.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import httpcore
import httpx

from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""IP addresses of a host, in the order in which to try them; OSError when it has none."""

MAX_TRIED = 4  # addresses of one name


async def system_resolver(host: str, port: int) -> list[str]:
    """By the operating system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to permitted addresses."""

    def __init__(self, allowed: Allowed, resolver: Resolver) -> None:
        self._allowed, self._resolver, self._plain = allowed, resolver, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first permitted address that answers. NotFetched when none is permitted."""
        end = None if timeout is None else time.monotonic() + timeout
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolver(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in {timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} was not resolved: {error}") from error
        for address in self._permitted(host, port, found)[:MAX_TRIED]:
            left = None if end is None else max(end - time.monotonic(), 0.001)
            try:
                return await self._plain.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        raise trouble or httpcore.ConnectError(f"{host} has no address")

    def _permitted(self, host: str, port: int, found: Iterable[str]) -> list[str]:
        troubles = {a: self._allowed.trouble(host, ipaddress.ip_address(a.partition("%")[0]), port) for a in found}
        permitted = [address for address, trouble in troubles.items() if trouble is None]
        if troubles and not permitted:
            raise NotFetched(Reason.BLOCKED_ADDRESS, next(iter(filter(None, troubles.values()))))
        return permitted


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(f"{type(error).__name__} {error}".strip()) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.TransportError(f"{type(error).__name__}: {error}") from error


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._response.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's transport over such connections."""

    def __init__(self, allowed: Allowed, resolver: Resolver, connections: int) -> None:
        """At most `connections` are open. Certificates are verified as httpx does, SSL_CERT_FILE included."""
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=15.0,
            network_backend=_GuardedBackend(allowed, resolver),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request without a body. NotFetched when no address is permitted."""
        url = request.url
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = await self._pool.handle_async_request(asked)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
