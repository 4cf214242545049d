"""Who takes part in a generation: sources and agents, as the spec names them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dpe_api.artifacts import InputRef, Quota
from dpe_api.generation_spec import Source, SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_jobs.endpoints.texts import digest
from dpe_jobs.generation.agents.supplies import LookedUpPool, ModelEdits
from dpe_jobs.generation.candidates import Team
from dpe_jobs.generation.edit import load_edits
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.planner import RulePlanner
from dpe_jobs.generation.pool import published
from dpe_jobs.generation.pool.search import Pool
from dpe_jobs.generation.pool.uses import count
from dpe_jobs.generation.pooled import PoolSupply
from dpe_jobs.generation.quality.inspector import Inspector, Refuses
from dpe_jobs.generation.render import load_programs, load_reader
from dpe_jobs.generation.schedule import NO_SOURCE, warmups
from dpe_jobs.generation.search.supply import SearchSupply, names
from dpe_jobs.generation.shards import Shard
from dpe_jobs.generation.sources import BySource, EditSupply, RenderSupply, Supply, limits
from dpe_jobs.generation.validator import RuleValidator
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.generation.writer import RuleWriter
from dpe_jobs.runtime import BadConfig
from dpe_jobs.seeds import derive
from dpe_jobs.store import AlreadyPublished, Store, join

log = logging.getLogger(__name__)


def supplies_of(sources: Sequence[Source], workbench: Workbench, refuses: Refuses = lambda _: None) -> list[Supply]:
    """The sources, pools and searches not yet opened; `refuses` says which pictures may not be edited.

    BadConfig: a program is not installed, or an edit has no use.
    """
    programs, edits = iter(load_programs(sources)), iter(load_edits(sources))
    bases: list[RenderSupply | PoolSupply] = []
    for place, source in enumerate(sources):
        if source.kind is SourceKind.RENDER:
            bases.append(RenderSupply(next(programs), source.share, workbench))
        elif source.kind is SourceKind.POOL and source.uri and source.program:
            bases.append(PoolSupply(source.uri, load_reader(place, source), source.share, workbench))
    unread: list[SearchSupply | LookedUpPool] = []
    called = names(sources)
    for place, source in enumerate(sources):
        if source.kind is SourceKind.SEARCH:
            unread.append(SearchSupply(place, source, called[place]))
        elif source.kind is SourceKind.POOL and source.uri and not source.program:
            unread.append(LookedUpPool(source.uri, source.share, source.embedder))
    found: list[Supply] = [*bases, *unread]
    for place, source in enumerate(sources):
        if source.kind is SourceKind.EDIT and source.program is not None:
            if not bases:
                raise _nothing_to_edit(place, "render, or pool with a program")
            found.append(EditSupply(next(edits), bases, source.share, workbench, refuses))
        elif source.kind is SourceKind.EDIT and source.endpoint is not None:
            # a selector says what to edit, and has no tool for a pool that only a program reads
            reached = [*(base for base in bases if isinstance(base, RenderSupply)), *unread]
            if not reached:
                raise _nothing_to_edit(place, "render, search, or pool without a program")
            found.append(ModelEdits(source.endpoint, source.share, reached))
    return found


def _nothing_to_edit(place: int, kinds: str) -> BadConfig:
    return BadConfig(
        "NothingToEdit",
        f"spec.generation.sources[{place}] is an edit, and no other source has pictures to be edited: add one of kind "
        f"{kinds}",
    )


def pinned(store: Store, output: str, pool: str) -> str:
    """The version of a pool's index that a stage reads: the newest one when it began, whatever came since.

    BadConfig: the pool has none.
    """
    address = join(output, "pools", f"{digest(pool)}.txt")
    known = store.find(address)
    if known is None:
        folder, _ = published.version(store, pool)
        try:
            store.create(address, folder.encode())
        except AlreadyPublished:
            log.info("another shard was first to choose a version of %s", pool)
        known = store.get(address)
    return known.decode()


def open_pools(
    launch: GenerationLaunch,
    store: Store,
    supplies: Sequence[Supply],
    quotas: Sequence[Quota],
    seed: int,
    shard: Shard,
    beat: Callable[[], None],
) -> list[InputRef]:
    """Open the pools, and tell them who will ask for how much; returns what is read."""
    part = shard.index, shard.count
    most = {source.uri: source.max_uses or 1 for source in launch.generation.sources}
    refs = []
    for supply in (s for s in supplies if isinstance(s, PoolSupply | LookedUpPool)):
        folder = pinned(store, launch.output, supply.uri)
        uses = count(store, launch.model.uri, supply.uri)
        pool = Pool(store, supply.uri, uses=uses, max_uses=most[supply.uri], folder=folder)
        if isinstance(supply, PoolSupply):
            supply.open(pool, seed, part, beat)
        else:
            supply.open(pool, seed, part)
        refs.append(pool.ref)
    for quota in quotas:
        among = [supply for supply in supplies if supply.supplies(quota.name)]
        whole = sum(s.share for s in among)
        for asking in among:
            if isinstance(asking, PoolSupply | EditSupply):
                asking.need(quota.name, quota.quota * asking.share / whole)
    return refs


def known_limits(sources: Sequence[Source], categories: Sequence[str]) -> dict[str, int | None] | None:
    """Most samples of each category that the sources can bring; None: nothing is known, for models look for images."""
    if any(source.program is None for source in sources):
        return None
    with Workbench() as workbench:
        return limits(supplies_of(sources, workbench), categories)


def check_supply(supplies: Sequence[Supply], quotas: Sequence[Quota]) -> list[str]:
    """The categories that some source has. BadConfig: there is none."""
    wanted = [quota.name for quota in quotas if quota.quota > 0 or quota.supply == 0 or not quota.reachable]
    supplied = [name for name in wanted if any(supply.supplies(name) for supply in supplies)]
    if wanted and not supplied:
        raise BadConfig(
            NO_SOURCE,
            f"spec.generation.sources: {', '.join(s.name for s in supplies)} can supply none of the probe's categories "
            f"{', '.join(wanted)}: add a source for them, or use their names",
        )
    return supplied


@contextmanager
def hire(
    launch: GenerationLaunch,
    store: Store,
    findings: Findings,
    seed: int,
    shard: Shard,
    inspector: Inspector,
    beat: Callable[[], None],
) -> Iterator[tuple[Team, list[Supply], list[InputRef]]]:
    """The agents of a run, for as long as it takes; the sources, and what is read of them.

    It beats while pools are looked through.
    """
    with Workbench() as workbench:
        supplies = supplies_of(launch.generation.sources, workbench, inspector.original)
        # shards draw by the same seed, so that each image is in one shard's part
        pool_seed = derive(launch.seed, launch.round, "pool")
        beside = warmups(findings.quotas, launch.warmup)
        asked = [q.model_copy(update={"quota": q.quota + beside.get(q.name, 0)}) for q in findings.quotas]
        refs = open_pools(launch, store, supplies, shard.quotas(asked), pool_seed, shard, beat)
        programs = {supply.name: supply.program for supply in supplies if supply.program is not None}
        team = Team(
            planner=RulePlanner(findings, supplies, seed),
            selector=BySource(supplies),
            writer=RuleWriter(programs, workbench),
            validator=RuleValidator(programs, workbench),
            workbench=workbench,
            inspector=inspector,
            max_pixels=launch.max_pixels,
        )
        yield team, supplies, refs
