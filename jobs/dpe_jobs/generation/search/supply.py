"""An image search as a source of generation: what a program selects, and what a model that selects leafs through.

Nobody knows what is in such a picture, so only endpoints can ask about it. Which picture a program takes depends on the
target alone: the result at the place of the target's ordinal, of what the store has kept of the search.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from dpe_api.generation_spec import Source, SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_api.names import DRAFT
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.roles import Target
from dpe_jobs.generation.search.images import ImageSearch, downloader
from dpe_jobs.generation.search.results import Result
from dpe_jobs.store import Store, join

SHOWN = 10  # results that a model is shown at a time
_PAGES = 12  # of a provider at most: the place of an ordinal is not looked for any further


def names(sources: Sequence[Source]) -> dict[int, str]:
    """What the searches among the sources are called, by their places: by the provider, and the address of each where
    several ask the same provider.
    """
    searches = {place: source for place, source in enumerate(sources) if source.kind is SourceKind.SEARCH}
    asked = Counter(source.provider for source in searches.values())
    found = {}
    for place, source in searches.items():
        address = f":{source.url}" if source.url and asked[source.provider] > 1 else ""
        found[place] = f"search:{source.provider}{address}"
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """A result, in words, and the way to its picture."""

    words: str
    """Title, author, licence, size: other people's words."""
    load: Callable[[], Awaitable[Picture]]
    """NoImage: it cannot be had."""


def in_words(result: Result) -> str:
    """What a result is, on one line."""
    size = f"{result.width} x {result.height}" if result.width and result.height else ""
    author = f"by {result.author}" if result.author else ""
    return ", ".join(part for part in (result.title or "untitled", author, result.licence, size) if part)


class SearchSupply:
    """Implements `sources.Supply`, and finds as `agents.tools.Finder` does."""

    kind = SourceKind.SEARCH
    program = None

    def __init__(self, place: int, source: Source, name: str) -> None:
        """`place` of the source in spec.generation.sources, and what it is called among them."""
        self.place, self.source = place, source
        self.name, self.share = name, source.share
        self._search: ImageSearch | None = None

    def open(self, search: ImageSearch) -> None:
        """Before anybody asks."""
        self._search = search

    @property
    def _opened(self) -> ImageSearch:
        if self._search is None:
            raise ValueError(f"{self.name} is not open")
        return self._search

    def supplies(self, category: str) -> bool:  # noqa: ARG002 - the web has pictures for every category
        """Always."""
        return True

    def limit(self, category: str) -> int | None:  # noqa: ARG002
        """None is known."""
        return None

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:  # noqa: ARG002
        """None: what is wanted is said in words."""
        return {}

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """The words that are searched for when a target brings no query of its own."""
        return (" ".join([category.replace("_", " "), *(knobs[name] for name in sorted(knobs))]),)

    async def select(self, target: Target) -> Picture:
        """The result at the place of the target's ordinal. NoImage: there are fewer, or it cannot be had."""
        query = target.query or self.looks_for(target.category, target.knobs)[0]
        place = target.ordinal
        for page in range(1, _PAGES + 1):
            found = await self._opened.search(query, page)
            if place < len(found.results):
                asked = {"query": query, "page": page}
                return await self._opened.picture(
                    found.results[place],
                    (
                        {"tool": "search_images", "arguments": asked, "result": f"{len(found.results)} images"},
                        {"tool": "use_image", "arguments": {"number": place + 1}, "result": self.name},
                    ),
                )
            place -= len(found.results)
            if not found.more:
                break
        raise NoImage(
            f"{self.name}: {query!r} has {target.ordinal - place} results, and number {target.ordinal + 1} is wanted"
        )

    async def find(self, query: str, page: int) -> Sequence[Found]:
        """SHOWN results at a time, from page 1; nothing beyond the last. NoImage: the search failed."""
        place = (page - 1) * SHOWN
        for number in range(1, _PAGES + 1):
            found = await self._opened.search(query, number)
            if place < len(found.results):
                shown = found.results[place : place + SHOWN]
                return [Found(in_words(result), partial(self._opened.picture, result)) for result in shown]
            place -= len(found.results)
            if not found.more:
                break
        return []


def cache_folder(launch: GenerationLaunch) -> str:
    """Where searches and images are kept: beside the iterations of the namespace, which share them."""
    stage = launch.output.removesuffix(f"/{DRAFT}")  # of a generation that is reviewed the output is a folder deeper
    return join(stage.rsplit("/", 2)[0], "cache")


@asynccontextmanager
async def open_searches(launch: GenerationLaunch, store: Store, supplies: Sequence[object]) -> AsyncIterator[None]:
    """Open the searches among the sources, for as long as it takes; they share one downloader and one cache.

    BadConfig: the key of one is missing, or the platform's list of allowed hosts has an entry that is none.
    """
    searches = [supply for supply in supplies if isinstance(supply, SearchSupply)]
    async with AsyncExitStack() as stack:
        if searches:
            fetched = await stack.enter_async_context(downloader(launch.downloads))
            for it in searches:
                folder = cache_folder(launch)
                search = ImageSearch(it.source, it.place, launch.downloads, fetched, store, folder, name=it.name)
                it.open(await stack.enter_async_context(search))
        yield
