"""Pictures by searching: results of one provider, and the images behind them, each as `Picture` with its `Origin`.

What a search brought and what an address held is kept in the object store, so that a restart or a second run asks and
downloads nothing again; results for a week, see `fetching.cache` for images.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from dpe_api.generation_spec import Source, SourceKind
from dpe_api.launch import Downloads
from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.cache import ImageCache
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.fetching.reasons import NotFetched
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.search.api import SearchApi
from dpe_jobs.generation.search.results import Page, Result
from dpe_jobs.runtime import BadConfig, package_versions
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

RESULTS_S = 7 * 24 * 3600.0
MOST_PAGES = 3  # that `first` looks through
MOST_TRIED = 12  # images that `first` tries


def user_agent(downloads: Downloads) -> str:
    """How this project introduces itself to servers of others."""
    if downloads.user_agent:
        return downloads.user_agent
    version = package_versions("dpe").get("dpe")  # none where it is run from a checkout
    return f"dpe/{version}" if version else "dpe"


def downloader(downloads: Downloads) -> Downloader:
    """A downloader as the platform configures it. BadConfig names an entry that is no host, address or network."""
    try:
        allowed = Allowed.of(downloads.allow)
    except ValueError as error:
        raise BadConfig("DownloadsAllow", f"Helm value downloads.allow: {error}: correct it") from error
    return Downloader(user_agent(downloads), allowed=allowed)


class ImageSearch:
    """One search source. Use as an async context manager; several may share a downloader, which outlives them."""

    def __init__(
        self,
        source: Source,
        number: int,
        downloads: Downloads,
        fetched: Downloader,
        store: Store,
        folder: str,
        *,
        name: str | None = None,
    ) -> None:
        """`number` is the source's place in spec.generation.sources; `folder` the cache's, an s3:// address.

        `name` of the source; left out: by its provider. BadConfig when the provider's key is missing.
        """
        self._provider = f"search:{source.provider}"
        self.name = name or self._provider
        self._api = SearchApi(source, number, user_agent(downloads))
        self._store, self._folder = store, join(folder, "searches")
        self._images = ImageCache(store, folder, fetched)
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # who waits holds it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.__aexit__(kind, error, trace)

    async def search(self, query: str, page: int = 1) -> Page:
        """A page of results, from 1. SearchFailed (a NoImage) when the provider gave no answer.

        BadConfig when it never will, Transient when it has long been silent.
        """
        asked = json.dumps([self._provider, self._api.address, " ".join(query.split()), page])
        uri = join(self._folder, f"{hashlib.sha256(asked.encode(errors='surrogatepass')).hexdigest()}.json")
        lock = self._busy.setdefault(uri, asyncio.Lock())
        async with lock:  # many targets look for the same, and some providers sell each page
            return await self._kept(uri) or await self._asked(uri, asked, query, page)

    async def _kept(self, uri: str) -> Page | None:
        known = await asyncio.to_thread(self._store.find, uri)
        entry = None if known is None else json.loads(known)
        if entry is None or time.time() >= entry["until"]:
            return None
        return Page(tuple(Result(**row) for row in entry["results"]), entry["more"])

    async def _asked(self, uri: str, asked: str, query: str, page: int) -> Page:
        found = await self._api.search(query, page)
        entry = {
            "asked": asked,
            "until": time.time() + RESULTS_S,
            "more": found.more,
            "results": [asdict(result) for result in found.results],
        }
        await asyncio.to_thread(self._store.put, uri, json.dumps(entry).encode())
        return found

    async def picture(self, result: Result, tool_calls: tuple[dict[str, Any], ...] = ()) -> Picture:
        """The picture behind a result. NotFetched (a NoImage) names what is wrong with it."""
        known = {"licence": result.licence, "page": result.page_url}
        came = await self._images.picture(result.image_url, known)
        origin = Origin(
            kind=SourceKind.SEARCH,
            source=self.name,
            id=came.sha256,
            licence=result.licence,
            page_url=result.page_url or None,
            image_url=result.image_url,
            title=result.title,
            author=result.author,
        )
        return Picture(came.image, origin, tool_calls=tool_calls)

    async def first(self, query: str, wanted: Callable[[Result], bool] | None = None) -> Picture:
        """The first picture that can be had of the results that are `wanted`, in their order.

        NoImage with the reasons of all that were tried.
        """
        reasons: Counter[str] = Counter()
        for page in range(1, MOST_PAGES + 1):
            found = await self.search(query, page)
            for place, result in enumerate(found.results):
                if wanted is not None and not wanted(result):
                    reasons["NotWanted"] += 1
                    continue
                try:
                    return await self.picture(result, self._calls(query, page, len(found.results), place))
                except NotFetched as error:
                    log.info("%s: %s", result.image_url, error)
                    reasons[error.reason] += 1
                tried = sum(reasons.values()) - reasons["NotWanted"]
                if tried >= MOST_TRIED:
                    raise NoImage(f"{self.name}: none of {tried} images for {query!r}: {_listed(reasons)}")
            if not found.more:
                break
        raise NoImage(f"{self.name}: nothing for {query!r}{f': {_listed(reasons)}' if reasons else ''}")

    def _calls(self, query: str, page: int, count: int, place: int) -> tuple[dict[str, Any], ...]:
        asked = {"tool": "search_images", "arguments": {"query": query, "page": page}, "result": f"{count} images"}
        return asked, {"tool": "use_image", "arguments": {"number": place + 1}, "result": self.name}


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
