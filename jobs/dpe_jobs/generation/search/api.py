"""Asks a provider's API: key, retries, Retry-After, and an end for providers that are dead or say no for good.

The rules are those of endpoints (docs/endpoints.md). A refused key, an empty account or a wrong address is a
`BadConfig`, which ends the stage at once; so many searches in a row without an answer are `Transient`; one search
without an answer is a `SearchFailed`. What a provider says in its own words is never repeated: it may quote the key.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import httpx
from prometheus_client import Counter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dpe_api.endpoints import source_key_variable
from dpe_api.generation_spec import Provider as ProviderName
from dpe_api.generation_spec import Source
from dpe_jobs import tracing
from dpe_jobs.chat import retry_after_s
from dpe_jobs.generation.search import openverse, serper, wikimedia
from dpe_jobs.generation.search.openverse import Openverse
from dpe_jobs.generation.search.results import (
    ApiRequest,
    Complained,
    Complaint,
    Page,
    Provider,
    SearchFailed,
    mapping,
    words,
)
from dpe_jobs.generation.search.searxng import SearXNG
from dpe_jobs.generation.search.serper import Serper
from dpe_jobs.generation.search.wikimedia import Wikimedia
from dpe_jobs.runtime import BadConfig, Transient

log = logging.getLogger(__name__)

CONNECT_S = 5.0
ANSWER_S = 30.0
ATTEMPTS = 5
BREAK_AFTER = 8  # searches in a row without an answer, each after its retries
MAX_BYTES = 4 * 1024 * 1024  # of an answer
LONGEST_QUERY = 200  # characters: Openverse reads no more
PATIENCE_S = 90.0  # longest Retry-After that is waited out
_AT_ONCE = {ProviderName.WIKIMEDIA: 1}  # its etiquette: one after the other
_LASTING = ("KeyRefused", "QuotaSpent", "WrongAddress")

PROVIDERS: Mapping[ProviderName, Callable[[str, str | None], Provider]] = {
    ProviderName.SEARXNG: SearXNG,
    ProviderName.SERPER: Serper,
    ProviderName.OPENVERSE: Openverse,
    ProviderName.WIKIMEDIA: Wikimedia,
}
_PUBLIC = {
    ProviderName.SEARXNG: "",  # everybody has an own one: the contract demands its address
    ProviderName.SERPER: serper.URL,
    ProviderName.OPENVERSE: openverse.URL,
    ProviderName.WIKIMEDIA: wikimedia.URL,
}

SEARCHES = Counter(
    "dpe_image_searches_total", "Pages of image searches by what became of them", ["provider", "outcome"]
)


class _TryAgain(Exception):
    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    put_off = isinstance(error, _TryAgain) and error.retry_after is not None
    return 0.0 if put_off else wait_random_exponential(multiplier=0.5, max=15)(state)


def provider_of(source: Source, number: int) -> Provider:
    """The provider that a source names, with its key. BadConfig when the key or the address is no good.

    `number` is the source's place in spec.generation.sources.
    """
    key = _key(source, number)
    assert source.provider is not None
    if source.provider is ProviderName.SERPER and key is None:
        raise BadConfig(
            "SearchKey", f"spec.generation.sources[{number}]: provider serper needs apiKeySecretRef: add it"
        )
    return PROVIDERS[source.provider](source.url or _PUBLIC[source.provider], key)


def _key(source: Source, number: int) -> str | None:
    if source.api_key_secret_ref is None:
        return None
    variable = source_key_variable(number)
    key = os.environ.get(variable, "").strip()  # a Secret made from a file ends with a newline
    if not key or not (key.isascii() and key.isprintable()):
        trouble = "is not one line of printable ASCII" if key else "is missing or empty"
        raise BadConfig(
            "SearchKey",
            f"spec.generation.sources[{number}]: its API key (environment variable {variable}) {trouble}: correct the "
            "Secret that its apiKeySecretRef names",
        )
    return key


class SearchApi:
    """One provider. Use as an async context manager."""

    def __init__(self, source: Source, number: int, user_agent: str) -> None:
        """`number` is the source's place in spec.generation.sources. BadConfig when it cannot be asked at all."""
        assert source.provider is not None
        self.provider = provider_of(source, number)
        self.where = f"spec.generation.sources[{number}] ({source.provider})"
        self.address = source.url or ""
        self._gate = asyncio.Semaphore(_AT_ONCE.get(source.provider, 4))
        self._http = httpx.AsyncClient(
            headers={"User-Agent": user_agent, "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S, pool=None),
            trust_env=True,  # outside, the environment may name a proxy, or certificates
        )
        self._has_answered, self._failed_in_row = False, 0
        self._not_before = 0.0  # time.monotonic() before which the provider wants no request

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def search(self, query: str, page: int = 1) -> Page:
        """A page of results, from 1; none, and no more, beyond the last. SearchFailed when there is no answer.

        BadConfig when there never will be one, Transient after too many in a row.
        """
        asked = " ".join(query.split())[:LONGEST_QUERY]
        request = self.provider.request(asked, page) if asked else None
        if request is None:
            return Page((), more=False)
        if self._failed_in_row >= BREAK_AFTER:
            raise self._dead(None)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        try:
            async with self._gate:
                found: Page = await retrying(self._once, request, page)
        except _TryAgain as error:
            self._failed_in_row += 1
            SEARCHES.labels(self.provider.name, error.reason).inc()
            if self._failed_in_row >= BREAK_AFTER:
                raise self._dead(error) from error
            raise SearchFailed(error.reason, f"{self.where}: {error}") from error
        except SearchFailed as error:
            self._failed_in_row = 0
            SEARCHES.labels(self.provider.name, error.reason).inc()
            raise
        self._has_answered, self._failed_in_row = True, 0
        SEARCHES.labels(self.provider.name, "Found" if found.results else "Nothing").inc()
        return found

    def _dead(self, error: Exception | None) -> Transient:
        said = f"; the last one: {error}" if error else ""
        return Transient("SearchDown", f"{self.where} left {self._failed_in_row} searches without an answer{said}")

    async def _once(self, request: ApiRequest, page: int) -> Page:
        wait_s = self._not_before - time.monotonic()
        if wait_s > PATIENCE_S:
            raise SearchFailed("RateLimited", f"{self.where} wants no request for {wait_s:.0f} s")
        if wait_s > 0:
            await asyncio.sleep(wait_s + random.uniform(0, min(wait_s, 1.0)))
        status, headers, data = await self._send(request)
        body: Any = None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            if status == 200:
                raise _TryAgain("Malformed", f"the answer is no JSON: {type(error).__name__}") from error
        asked_s = retry_after_s(headers, most=24 * 3600.0)
        if status != 200:
            raise self._refused(status, body, asked_s)
        try:
            return self.provider.read(body, page)
        except Complained as error:
            raise self._complained(error.complaint, error.retry, asked_s) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _TryAgain("Malformed", f"the answer has another form than documented: {error}") from error

    async def _send(self, request: ApiRequest) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of at most MAX_BYTES."""
        try:
            with tracing.request(f"image search {self.provider.name}", request.method, request.url) as span:
                async with asyncio.timeout(ANSWER_S), self._open(request) as response:
                    tracing.answered(span, response.status_code)
                    data = bytearray()
                    async for part in response.aiter_bytes():
                        data += part
                        if len(data) > MAX_BYTES:
                            raise _TryAgain("Malformed", f"the answer has more than {MAX_BYTES} bytes")
                    return response.status_code, response.headers, bytes(data)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _TryAgain("Unavailable", f"no answer in time ({type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise BadConfig("SearchAddress", f"{self.where}: its url is no address: {error}") from error
        except httpx.HTTPError as error:
            raise _TryAgain("Unavailable", f"no connection ({type(error).__name__})") from error

    def _open(self, request: ApiRequest) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(
            request.method,
            request.url,
            params=dict(request.parameters) or None,
            json=request.json,
            headers=dict(request.headers),
        )

    def _refused(self, status: int, body: Any, asked_s: float | None) -> Exception:
        """What a status other than 200 means."""
        said = words(mapping(body).get("message")).lower()
        complaint = next((c for (s, word), c in self.provider.complaints.items() if s == status and word in said), None)
        if complaint is None and status == 401:
            complaint = Complaint("KeyRefused", "correct the key in its Secret, or name one by apiKeySecretRef")
        if complaint is None and status == 402:
            complaint = Complaint("QuotaSpent", "the account has no credit")
        if complaint is None and not self._has_answered and (status == 404 or 300 <= status < 400):
            complaint = Complaint("WrongAddress", "correct its url")
        if complaint is not None:
            return self._complained(complaint, False, asked_s, f"HTTP {status}: ")
        if status in (408, 425, 429) or status >= 500:
            return self._put_off("RateLimited" if status == 429 else "Unavailable", f"HTTP {status}", asked_s)
        return SearchFailed("Refused", f"{self.where}: HTTP {status}")

    def _complained(self, complaint: Complaint, retry: bool, asked_s: float | None, before: str = "") -> Exception:
        if complaint.kind in _LASTING:
            return BadConfig("SearchRefused", f"{self.where}: {before}{complaint.kind}: {complaint.mend}")
        if retry:
            return self._put_off(complaint.kind, complaint.mend, asked_s)
        return SearchFailed(complaint.kind, f"{self.where}: {before}{complaint.mend}")

    def _put_off(self, reason: str, message: str, asked_s: float | None) -> _TryAgain:
        """One request was told to wait: that holds for all."""
        if asked_s is not None:
            self._not_before = max(self._not_before, time.monotonic() + asked_s)
        return _TryAgain(reason, message, asked_s)
