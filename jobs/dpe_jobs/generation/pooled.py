"""Pictures of a pool of which a program can tell what is in them.

The images that may be used are cut, by their ids, into one part for each category and source that asks, as large as
what it needs; of each part the facts are read image by image in an order drawn by the seed, as far as somebody asks.
So who gets which image does not depend on who asks first, and no image is given to two.
"""

import asyncio
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.pool.search import Hit, Pool, Query
from dpe_jobs.generation.render import PoolProgram
from dpe_jobs.generation.roles import Target
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.seeds import derive

MOST_LOOKED_AT = 8192  # images of a pool whose facts one shard reads
_BATCH = 64  # images that are looked at before it is asked again whether one suits


@dataclass(frozen=True, slots=True)
class _Seen:
    hit: Hit
    facts: Mapping[str, str]
    """Empty: the program cannot tell what it is."""


def _name(category: str, who: str = "") -> str:
    return f"{category} by {who}" if who else category


class PoolSupply:
    """Pictures that are there already, and whose facts a program reads from their pixels."""

    kind = SourceKind.POOL
    endless = False

    def __init__(self, uri: str, program: PoolProgram, share: float, workbench: Workbench) -> None:
        self.name, self.share, self.program, self.uri = f"pool:{uri.rstrip('/')}", share, program, uri
        self._reads, self._workbench = program, workbench
        self._pool: Pool | None = None
        self._seed, self._part = 0, (0, 1)
        self._beat: Callable[[], None] = lambda: None
        self._demand: dict[str, float] = {}
        self._hits: list[Hit] | None = None
        self._looked_at = 0
        self._seen: dict[str, list[_Seen]] = {}
        self._turn = asyncio.Lock()

    def open(self, pool: Pool, seed: int, part: tuple[int, int], beat: Callable[[], None]) -> None:
        """Before anybody asks. `part`: which shard of how many this is. It beats while it looks through the pool."""
        self._pool, self._seed, self._part, self._beat = pool, seed, part, beat

    @property
    def _opened(self) -> Pool:
        if self._pool is None:
            raise ValueError(f"{self.name} is not open")
        return self._pool

    def supplies(self, category: str) -> bool:
        """Whether the program asks in this category."""
        return category in self._reads.categories()

    def limit(self, category: str) -> int | None:
        """None is known before all images were looked at."""
        return None

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """As the program says."""
        return self._reads.knobs(category)

    def _facts(self, knobs: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in knobs.items() if name in self._reads.vocabulary}

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """The facts among the knobs."""
        return (repr(sorted(self._facts(knobs).items())),)

    def need(self, category: str, weight: float, who: str = "") -> None:
        """Somebody will ask, for about so much. Before anybody does."""
        name = _name(category, who)
        self._demand[name] = self._demand.get(name, 0.0) + weight

    async def select(self, target: Target) -> Picture:
        """The image that the target's facts and ordinal name."""
        return await self.take(_name(target.category), self._facts(target.knobs), target.ordinal)

    async def original(self, category: str, facts: Mapping[str, str], seed: int, ordinal: int, who: str) -> Picture:
        """An image to be edited."""
        return await self.take(_name(category, who), facts, ordinal)

    async def take(self, who: str, facts: Mapping[str, str], ordinal: int) -> Picture:
        """The `ordinal`th image with these facts of all that `who` may have. NoImage: there are not so many."""
        async with self._turn:
            while (found := self._find(who, facts, ordinal)) is None:
                if not await self._look_further():
                    raise NoImage(
                        f"{self.name}: {self._count(who, facts)} of {self._looked_at} images are for {who} and show "
                        f"{dict(facts) or 'anything'} (maxUses {self._opened.max_uses}), and {ordinal + 1} are wanted"
                    )
        picture = await self._opened.load(found.hit)
        return replace(picture, facts=dict(found.facts))

    def _matching(self, who: str, facts: Mapping[str, str]) -> list[_Seen]:
        return [seen for seen in self._seen.get(who, ()) if facts.items() <= seen.facts.items()]

    def _count(self, who: str, facts: Mapping[str, str]) -> int:
        return len(self._matching(who, facts))

    def _find(self, who: str, facts: Mapping[str, str], ordinal: int) -> _Seen | None:
        """First each image once; only when all were looked at, those that may be used again."""
        matching = self._matching(who, facts)
        if ordinal < len(matching):
            return matching[ordinal]
        if self._hits is None or self._looked_at < len(self._hits):
            return None
        for times in range(1, self._opened.max_uses):
            ordinal -= len(matching)
            matching = [seen for seen in matching if self._opened.left(seen.hit.id) > times]
            if ordinal < len(matching):
                return matching[ordinal]
        return None

    async def _look_further(self) -> bool:
        """Read the facts of some more images; False when all were looked at."""
        if self._hits is None:
            self._hits = await self._opened.search(Query(), MOST_LOOKED_AT, seed=self._seed, part=self._part)
        batch = self._hits[self._looked_at : self._looked_at + _BATCH]
        for hit in batch:
            await asyncio.to_thread(self._beat)
            try:
                picture = await self._opened.load(hit)
            except NoImage:
                continue  # it was there when the pool was indexed
            facts = await self._workbench.do(self._read, picture)
            self._seen.setdefault(self._whose(hit), []).append(_Seen(hit, facts))
        self._looked_at += len(batch)
        return bool(batch)

    def _read(self, picture: Picture) -> Mapping[str, str]:
        try:
            return self._reads.read(picture.image)
        except ValueError:
            return {}

    def _whose(self, hit: Hit) -> str:
        """Who may have an image, drawn by its id."""
        names, ends = list(self._demand), list(accumulate(self._demand.values()))
        return names[bisect(ends, ends[-1] * derive(self._seed, "whose", hit.id) / 2**31)]
