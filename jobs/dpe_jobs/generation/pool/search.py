"""Find images of an indexed pool and read them: always the same ones for the same query and seed.

Up to three lists are made of a query: texts that match its words (BM25), texts whose vectors are near that of its text
(where the index has vectors), and pictures that look like a given one. Several lists are joined by reciprocal ranks
(Cormack, Clarke and Buettcher 2009). What scores the same is put in an order drawn by the seed.
"""

import asyncio
import hashlib
import logging
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from dpe_api.artifacts import InputRef
from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.fetching.cache import DECODERS
from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.pool import describe, published
from dpe_jobs.generation.pool.build import IndexReport
from dpe_jobs.generation.pool.embed import QueryEmbedder
from dpe_jobs.generation.pool.shards import Columns, Reader, list_shards, reader
from dpe_jobs.questions import MAX_PIXELS, read_facets
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import Store, StoreError

log = logging.getLogger(__name__)

DEPTHS = (256, 1024, 4096, 16384)
"""How many of each list are looked at, then how many more: an image beyond the last is never found by that query."""
_RRF = 60  # Cormack's constant
_RANKINGS = 16  # queries whose order is remembered
_READERS = 16  # shards that are kept open
_PROBES = 16  # partitions of a vector index that are searched
_MOST_PARTS = 64  # as many as there are shards: of what is cut finer, less may be found
_BRIEF = ["id", "look", "seen", "facts"]
_WHOLE = ["id", "look", "shard", "place", "size", "caption", "title", "author", "licence", "source", "seen", "facts"]


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. Nothing at all: any image."""

    text: str = ""
    facets: Mapping[str, str] = field(default_factory=dict)
    """Their values are looked for as words; an image whose known facts say otherwise is left out."""
    like: Image.Image | None = None
    """A picture that it should look like."""

    def words(self) -> str:
        """What is searched for in the texts."""
        return " ".join([self.text, *(self.facets[name] for name in sorted(self.facets))]).strip()

    def key(self) -> str:
        """Equal queries have equal keys."""
        looks = "" if self.like is None else pixel_digest(self.like)
        return repr((self.text, sorted(self.facets.items()), looks))


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found. Its texts are other people's words: data, never instructions."""

    id: str
    """Of its pixels: the same picture has the same id in every version of the index."""
    shard: str
    place: int
    size: int  # bytes
    caption: str
    title: str
    author: str
    licence: str
    source: str
    seen: str
    """What it looks like, in words."""
    facts: Mapping[str, str]


class _Ranking:
    """The ids that a query finds, best first, as deep as anybody has asked."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.depth = 0
        """How many of DEPTHS were looked at."""
        self.looks: set[str] = set()
        self.known: set[str] = set()
        self.hits: dict[str, Hit] = {}
        """Of the first depth, which is all that most ask for: they need no second query."""


class Pool:
    """One version of a pool's index, open for reading."""

    def __init__(
        self,
        store: Store,
        uri: str,
        *,
        uses: Mapping[str, int] | None = None,
        max_uses: int = 1,
        folder: str | None = None,
    ) -> None:
        """The newest version, or the one in `folder`. BadConfig: there is none.

        `uses`: how often earlier rounds used an image, by its id (`uses.count`). Texts are compared as words alone
        until `embed_by` says who embeds queries. Connects and reads a little: some hundredths of a second.
        """
        self.uri, self.uses, self.max_uses = uri.rstrip("/"), uses or {}, max_uses
        self._store = store
        self._embedder: QueryEmbedder | None = None
        self.folder, manifest = published.version(store, self.uri, folder)
        self.report = IndexReport.model_validate(manifest.summary)
        self.ref: InputRef = store.input_ref(self.folder)
        """For the manifest of who reads it."""
        import lancedb  # seconds, that a stage without pools has no use for

        address, options = store.native(self.folder)
        self._table = lancedb.connect(address, storage_options=options).open_table(published.TABLE)
        self._indexed = {index.columns[0] for index in self._table.list_indices()}
        self._columns = Columns(self.report.columns, self.report.facts)
        self._shards = {shard.name: shard for shard in list_shards(store, self.uri)}
        self._rankings: OrderedDict[tuple[str, int, tuple[int, int]], _Ranking] = OrderedDict()
        self._readers: OrderedDict[str, tuple[Reader, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()
        self._ranking = asyncio.Lock()
        self._decoders = asyncio.Semaphore(DECODERS)

    def embed_by(self, embedder: QueryEmbedder) -> None:
        """From now on compare vectors too. BadConfig: the index was made with another model, or with none."""
        if embedder.model != self.report.embedding_model:
            raise self._other_embedder(repr(embedder.model))
        self._embedder = embedder
        self._rankings.clear()

    def _other_embedder(self, asked: str) -> BadConfig:
        model, dimensions = self.report.embedding_model, self.report.embedding_dimensions
        made = f"with embedding model {model!r} of {dimensions} dimensions" if model else "without an embedding model"
        return BadConfig(
            "OtherEmbedder",
            f"pool {self.uri} was indexed {made}, asked is {asked}: name the same one, or index it anew with "
            "--embed-url and --embed-model",
        )

    def left(self, image_id: str) -> int:
        """How many more samples may be made of an image in this round."""
        return max(0, self.max_uses - self.uses.get(image_id, 0))

    async def search(self, query: Query, limit: int, *, seed: int = 0, part: tuple[int, int] = (0, 1)) -> list[Hit]:
        """The best images for a query, fewer than `limit` when there are no more; none that is used up.

        `part` (which, of how many): those who ask for different parts of a pool never get the same image.
        """
        vector = await self._vector(query)
        async with self._ranking:
            ranking = await asyncio.to_thread(self._ranked, query, vector, seed, part, limit)
            ids = ranking.ids[:limit]
        return await asyncio.to_thread(self._hits, ids, ranking.hits)

    async def pick(self, query: Query, ordinal: int, *, seed: int = 0, part: tuple[int, int] = (0, 1)) -> Hit:
        """The image for the `ordinal`th (from 0) of those who ask the same. NoImage: there are not so many.

        An image that may be used twice more is the image of two of them.
        """
        vector, wanted = await self._vector(query), ordinal + 1
        async with self._ranking:
            ranking = await asyncio.to_thread(self._ranked, query, vector, seed, part, wanted)
            ids = list(ranking.ids)
        slots = 0
        for image_id in ids:
            slots += self.left(image_id)
            if slots >= wanted:
                return (await asyncio.to_thread(self._hits, [image_id], ranking.hits))[0]
        raise NoImage(
            f"pool {self.uri}: {query.words()!r} finds {len(ids)} images with {slots} uses left "
            f"(maxUses {self.max_uses}), and {wanted} are wanted"
        )

    async def load(self, hit: Hit, query: Query | None = None) -> Picture:
        """The picture itself, read from its shard alone. NoImage: it is not there any more."""
        async with self._decoders:
            return await asyncio.to_thread(self._load, hit, query)

    async def _vector(self, query: Query) -> list[float] | None:
        if self._embedder is None or not query.words():
            return None
        vector = await self._embedder.embed(query.words())
        if len(vector) != self.report.embedding_dimensions:
            raise self._other_embedder(f"{self._embedder.model!r} of {len(vector)} dimensions")
        return vector

    def _ranked(
        self, query: Query, vector: Sequence[float] | None, seed: int, part: tuple[int, int], wanted: int
    ) -> _Ranking:
        """The order, so deep that `wanted` uses are left in it where there are."""
        key = (query.key(), seed, part)
        ranking = self._rankings.setdefault(key, _Ranking())
        self._rankings.move_to_end(key)
        while len(self._rankings) > _RANKINGS:
            self._rankings.popitem(last=False)
        left = sum(self.left(image_id) for image_id in ranking.ids)
        while left < wanted and ranking.depth < len(DEPTHS):
            new = self._deeper(ranking, query, vector, seed, part)
            left += sum(self.left(image_id) for image_id in new)
        return ranking

    def _deeper(
        self, ranking: _Ranking, query: Query, vector: Sequence[float] | None, seed: int, part: tuple[int, int]
    ) -> list[str]:
        """Look further down; what was found before keeps its place."""
        depth, columns = DEPTHS[ranking.depth], _BRIEF if ranking.depth else _WHOLE
        ranking.depth = len(DEPTHS) if depth >= self.report.images else ranking.depth + 1
        lists = list(self._lists(query, vector, seed, part, depth, columns))
        scores: dict[str, float] = {}
        rows: dict[str, Mapping[str, Any]] = {}
        for found in lists:
            for rank, (row, score) in enumerate(found):
                gain = score if len(lists) == 1 else 1 / (_RRF + rank)
                scores[row["id"]] = scores.get(row["id"], 0.0) + gain
                rows[row["id"]] = row
        new = []
        for image_id in sorted(scores, key=lambda name: (-round(scores[name], 6), _draw(seed, name))):
            if image_id in ranking.known:
                continue
            ranking.known.add(image_id)
            row, look = rows[image_id], f"{rows[image_id]['look']} {rows[image_id]['seen']}"
            if self.left(image_id) and _in_part(image_id, part) and _agrees(row, query) and look not in ranking.looks:
                ranking.looks.add(look)
                new.append(image_id)
                if columns is _WHOLE:
                    ranking.hits[image_id] = _hit(row)
        ranking.ids += new
        return new

    def _lists(
        self,
        query: Query,
        vector: Sequence[float] | None,
        seed: int,
        part: tuple[int, int],
        depth: int,
        columns: list[str],
    ) -> Iterator[list[tuple[Mapping[str, Any], float]]]:
        """Rows with a score, more being better, one list for each way to look."""
        from lancedb.query import MatchQuery

        if query.words():
            match = MatchQuery(query.words(), "words")  # type: ignore[call-arg]  # its defaults are not seen
            search = self._table.search(match, query_type="fts")
            found = search.select([*columns, "_score"]).limit(depth).to_arrow().to_pylist()
            yield [(row, row["_score"]) for row in found]
        nearest = {"vector": vector, "visual": None if query.like is None else describe.vector(query.like)}
        for column, wanted in nearest.items():
            if wanted is not None:
                yield self._nearest(column, wanted, depth, columns)
        if not query.words() and query.like is None:
            yield [(row, 0.0) for row in islice(self._drawn(seed, part, depth, columns), depth)]

    def _drawn(self, seed: int, part: tuple[int, int], depth: int, columns: list[str]) -> Iterator[Mapping[str, Any]]:
        """Rows of a part in the order of the seed, some at a time: `depth` of them are enough."""
        offsets = _scattered(self.report.images, seed)
        for _ in range(_MOST_PARTS):  # fewer where enough of them were in the part
            some = list(islice(offsets, depth))
            if not some:
                return
            found = self._table.take_offsets(some).select(columns).to_arrow()
            yield from (row for row in found.to_pylist() if _in_part(row["id"], part))

    def _nearest(
        self, column: str, wanted: Any, depth: int, columns: list[str]
    ) -> list[tuple[Mapping[str, Any], float]]:
        from lancedb.query import LanceVectorQueryBuilder

        search = self._table.search(np.asarray(wanted, dtype=np.float32), vector_column_name=column)
        assert isinstance(search, LanceVectorQueryBuilder), "a vector is asked for"
        search = search.distance_type("cosine")
        if column in self._indexed:
            search = search.nprobes(_PROBES)
        found = search.select([*columns, "_distance"]).limit(depth).to_arrow().to_pylist()
        return [(row, -row["_distance"]) for row in found]

    def _hits(self, ids: Sequence[str], known: Mapping[str, Hit]) -> list[Hit]:
        found = {image_id: known[image_id] for image_id in ids if image_id in known}
        missing = [image_id for image_id in ids if image_id not in found]
        if missing:
            names = ", ".join(f"'{image_id}'" for image_id in missing)  # hexadecimal
            rows = self._table.search().where(f"id IN ({names})").select(_WHOLE).limit(len(missing)).to_arrow()
            found |= {row["id"]: _hit(row) for row in rows.to_pylist()}
        return [found[image_id] for image_id in ids]

    def _load(self, hit: Hit, query: Query | None) -> Picture:
        again = f"it was replaced since the pool was indexed: run python -m dpe_jobs index {self.uri}"
        if hit.shard not in self._shards:
            raise NoImage(f"{self.uri}/{hit.shard} is gone: run python -m dpe_jobs index {self.uri}")
        try:
            image = decode(self._read(hit), MAX_PIXELS)
        except (OSError, ValueError, StoreError) as error:
            raise NoImage(f"{self.uri}/{hit.shard}, image {hit.id}: {error}; {again}") from error
        if pixel_digest(image)[: len(hit.id)] != hit.id:
            raise NoImage(f"{self.uri}/{hit.shard}, image {hit.id}: {again}")
        is_page = hit.source.startswith(("http://", "https://"))
        origin = Origin(
            kind=SourceKind.POOL,
            source=f"pool:{self.uri}",
            id=hit.id,
            licence=hit.licence,
            page_url=hit.source if is_page else None,
            title=hit.title or hit.caption,
            author=hit.author,
        )
        arguments = {} if query is None else {"text": query.text, "facets": dict(query.facets)}
        call = {"tool": origin.source, "arguments": arguments, "result": hit.id}
        return Picture(image=image, origin=origin, facts=hit.facts, tool_calls=(call,))

    def _read(self, hit: Hit) -> bytes:
        with self._lock:
            if hit.shard not in self._readers:
                opened = reader(self._store, self.uri, self._shards[hit.shard], self._columns)
                self._readers[hit.shard] = opened, threading.Lock()
            self._readers.move_to_end(hit.shard)
            while len(self._readers) > _READERS:
                self._readers.popitem(last=False)
            found, lock = self._readers[hit.shard]
        with lock:  # a Parquet file has one position
            return found.image(hit.place, hit.size)


def _hit(row: Mapping[str, Any]) -> Hit:
    known = {name: row[name] for name in _WHOLE if name not in ("look", "facts")}
    return Hit(**known, facts=read_facets(row["facts"]))


def _draw(seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{image_id}".encode()).hexdigest()


def _in_part(image_id: str, part: tuple[int, int]) -> bool:
    which, count = part
    return int(image_id[:12], 16) % count == which


def _agrees(row: Mapping[str, Any], query: Query) -> bool:
    """Whether nothing that is known of an image contradicts the query."""
    facts = read_facets(row["facts"])
    return all(facts.get(name, value) == value for name, value in query.facets.items())


def _scattered(count: int, seed: int) -> Iterator[int]:
    """All numbers below `count` in an order drawn by the seed, without a list of them."""
    rng = random.Random(seed)
    start, step = rng.randrange(count), rng.randrange(1, count) if count > 1 else 1
    while math.gcd(step, count) != 1:
        step += 1
    for number in range(count):
        yield (start + number * step) % count
