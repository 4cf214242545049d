"""Sources whose pictures no program can read: pools without one, and edits by a model. Endpoints write about them.

The search of images is another one (`search.supply`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dpe_api.generation_spec import SourceKind
from dpe_jobs.endpoints.texts import digest
from dpe_jobs.generation.agents.words import MOST_HITS
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.pool.embed import QueryEmbedder
from dpe_jobs.generation.pool.search import Hit as PoolHit
from dpe_jobs.generation.pool.search import Pool, Query
from dpe_jobs.generation.roles import Target
from dpe_jobs.ledger import Ledger

MOST_PARTS = 64
MOST_PASSED = 64  # results that other queries' targets have; what comes after so many has little to do with a query
SMALLEST_PART = 500  # images: enough for any query to find some


@dataclass(frozen=True, slots=True)
class FoundInPool:
    """An image that a search of a pool found."""

    words: str
    """Title, caption, what it looks like, licence: other people's words."""
    load: Callable[[], Awaitable[Picture]]
    """NoImage: it cannot be read."""


class _Unread:
    """What these sources have in common: any category, nothing to turn, no program."""

    program = None

    def supplies(self, category: str) -> bool:
        """Nobody knows before somebody looks."""
        return True

    def limit(self, category: str) -> int | None:
        """None is known."""
        return None

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """None: planners say in words what is wanted."""
        return {}

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """The words that are looked for when a target brings no query of its own."""
        return (" ".join([category.replace("_", " "), *knobs.values()]),)


class LookedUpPool(_Unread):
    """Pictures of a pool, found by words, and by their vectors where an endpoint embeds."""

    kind = SourceKind.POOL

    def __init__(self, uri: str, share: float, embedder: str | None = None) -> None:
        """`embedder`: name of the endpoint that embeds queries."""
        self.name, self.share, self.uri, self.embedder = f"pool:{uri.rstrip('/')}", share, uri, embedder
        self._pool: Pool | None = None
        self._seed, self._part = 0, (0, 1)
        self._claimed: dict[str, set[int]] = {}
        self._ledger: Ledger | None = None

    def open(self, pool: Pool, seed: int, part: tuple[int, int]) -> None:
        """Before anybody asks. `part`: which shard of how many this is."""
        self._pool, self._seed, self._part = pool, seed, part

    def remember(self, ledger: Ledger) -> None:
        """Which target has which image: what earlier attempts gave stays given."""
        self._ledger = ledger
        for row in ledger:
            if row.get("pool") == self.name:
                self._claimed.setdefault(row["image"], set()).add(row["claim"])

    def embed_by(self, embedder: QueryEmbedder) -> None:
        """Compare vectors too. BadConfig: the pool was indexed with another model."""
        self._opened.embed_by(embedder)

    @property
    def _opened(self) -> Pool:
        if self._pool is None:
            raise ValueError(f"{self.name} is not open")
        return self._pool

    async def select(self, target: Target) -> Picture:
        """The image after as many as earlier targets with this query had, or the next one that nobody has.

        NoImage: there is none among the next MOST_PASSED.
        """
        query = Query(target.query or self.looks_for(target.category, target.knobs)[0])
        first = target.ordinal
        for number in range(first, first + MOST_PASSED):
            hit = await self._opened.pick(query, number, seed=self._seed, part=self._part)
            if await self.claim(target, hit.id) is None:
                return await self._opened.load(hit, query)
        raise NoImage(
            f"{self.name}: other targets have numbers {first + 1} to {first + MOST_PASSED} for {query.text!r} already"
        )

    def of(self, target: Target) -> "SeenByTarget":
        """What a target gets to see of a large pool: a part that others see less of, by its number alone."""
        parts = max(1, min(MOST_PARTS, self._opened.report.images // SMALLEST_PART))
        index, count = self._part
        return SeenByTarget(self, (index + count * (target.number % parts), count * parts))

    async def find(self, query: str, page: int, part: tuple[int, int]) -> Sequence[FoundInPool]:
        """A page of what is found in a part. Images that earlier rounds used up are left out."""
        asked = Query(query)
        hits = await self._opened.search(asked, page * MOST_HITS, seed=self._seed, part=part)
        return [self._hit(hit, asked) for hit in hits[(page - 1) * MOST_HITS :]]

    def _hit(self, hit: PoolHit, query: Query) -> FoundInPool:
        words = "; ".join(word for word in (hit.title, hit.caption, hit.seen) if word)
        return FoundInPool(
            f"{words or 'without a caption'} ({hit.licence or 'licence unknown'})",
            partial(self._opened.load, hit, query),
        )

    async def claim(self, target: Target, image: str) -> str | None:
        """Give an image to a target, for good; or why not: it has been used as often as maxUses allows."""
        mine = int(digest(target.category, str(target.number))[:12], 16)
        owners = self._claimed.setdefault(image, set())
        if mine in owners:
            return None
        if len(owners) >= self._opened.left(image):
            return "it is used already"
        owners.add(mine)  # before anything is awaited: nobody else gets it meanwhile
        if self._ledger is not None:
            row = {"id": digest(self.name, image, str(mine)), "pool": self.name, "image": image, "claim": mine}
            row |= {"prompt_tokens": 0, "completion_tokens": 0, "calls": 0}
            await asyncio.to_thread(self._ledger.append, row)  # may flush, for as long as the store is away
        return None


@dataclass(frozen=True, slots=True)
class SeenByTarget:
    """A part of a pool; implements `tools.Finder`."""

    pool: LookedUpPool
    part: tuple[int, int]

    async def find(self, query: str, page: int) -> Sequence[FoundInPool]:
        """A page of what is found."""
        return await self.pool.find(query, page, self.part)


class Original(Protocol):
    """A source whose pictures a model may change."""

    def supplies(self, category: str) -> bool:
        """Whether it has pictures for a category."""


class ModelEdits(_Unread):
    """Pictures of other sources, changed by a model behind images/edits as a selector tells it."""

    kind = SourceKind.EDIT

    def __init__(self, endpoint: str, share: float, originals: Sequence[Original]) -> None:
        """`originals`: the sources whose pictures it may change."""
        self.name, self.share, self.endpoint = f"edit:{endpoint}", share, endpoint
        self._originals = originals

    def supplies(self, category: str) -> bool:
        """Whether there is anything to change."""
        return any(source.supplies(category) for source in self._originals)

    async def select(self, target: Target) -> Picture:
        """None: what to change is a selector's to say, and admission asks for its endpoint."""
        raise NoImage(f"{self.name}: nobody says what to change: name an endpoint in spec.generation.selector")
