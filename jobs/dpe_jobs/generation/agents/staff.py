"""Puts models in the places for which the spec names endpoints; programs keep the others."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dpe_api.artifacts import EndpointSpending
from dpe_api.endpoints import Endpoint
from dpe_api.generation_spec import SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_jobs.client import ModelClient
from dpe_jobs.generation.agents.clients import open_clients, spending
from dpe_jobs.generation.agents.examples import Examples, read_examples
from dpe_jobs.generation.agents.planner import EndpointPlanner
from dpe_jobs.generation.agents.safety import EndpointSafety
from dpe_jobs.generation.agents.supplies import LookedUpPool, ModelEdits
from dpe_jobs.generation.agents.validator import EndpointValidator
from dpe_jobs.generation.agents.writer import EndpointWriter
from dpe_jobs.generation.candidates import Team
from dpe_jobs.generation.edit.endpoint import Editor
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.pool.embed import QueryEmbedder
from dpe_jobs.generation.roles import Aim, Target
from dpe_jobs.generation.search.images import downloader
from dpe_jobs.generation.search.supply import SearchSupply, open_searches
from dpe_jobs.generation.sources import RenderSupply, Supply
from dpe_jobs.ledger import Ledger
from dpe_jobs.store import Store, join

if TYPE_CHECKING:
    from dpe_jobs.generation.agents.selector import Sources
    from dpe_jobs.generation.agents.tools import Refuses

MOST_AHEAD = 256  # candidates with a picture in memory that agents are at work on


def aims_of(findings: Findings, category: str) -> list[Aim]:
    """What a planner may aim at: the category's weaknesses in words, then its weak slices."""
    known = [w for w in findings.attribution.weaknesses if w.category == category]
    measured = findings.measured.get(category, "never asked")
    in_words = [Aim(f"{measured}; {w.text}", {}, tuple(w.examples)) for w in known]
    return in_words + [findings.aim_at(weak, category, {}) for weak in findings.slices(category)]


def agents_endpoints(launch: GenerationLaunch) -> list[Endpoint]:
    """Those that agents, edits, searches of pools and the safety check use, in the order of the launch."""
    agents = launch.generation
    named = {agent.endpoint for agent in (agents.planner, agents.selector, agents.writer, agents.validator) if agent}
    if agents.validator is not None and agents.validator.blind_endpoint is not None:
        named.add(agents.validator.blind_endpoint)
    if agents.quality.safety is not None:
        named.add(agents.quality.safety.endpoint)
    named.update(name for source in agents.sources for name in (source.endpoint, source.embedder) if name is not None)
    return [endpoint for endpoint in launch.endpoints if endpoint.name in named]


@dataclass(slots=True)
class Staff:
    """The models of a run."""

    launch: GenerationLaunch
    store: Store
    findings: Findings
    supplies: Sequence[Supply]
    seed: int
    """Of this round's generation, and of the shard."""
    ledger: Ledger
    """Of what endpoints answered."""
    share: float = 1.0
    """Of the endpoints' budgets."""
    spent: list[EndpointSpending] = field(default_factory=list)
    """By all attempts; filled in when the run is over."""

    @asynccontextmanager
    async def join(self, programs: Team) -> AsyncIterator[Team]:
        """The team with models in it. BadConfig: a key or an address of an endpoint is no good."""
        used = agents_endpoints(self.launch)
        async with (
            open_clients(used, self.ledger, share=self.share) as clients,
            downloader(self.launch.downloads) as fetched,
            open_searches(self.launch, self.store, self.supplies),
        ):
            for supply in self.supplies:
                if isinstance(supply, LookedUpPool):
                    supply.remember(self.ledger)
                    if supply.embedder is not None:
                        supply.embed_by(QueryEmbedder(supply.embedder, clients[supply.embedder], self.ledger))
            try:
                examples = await asyncio.to_thread(self._examples)
                ahead = min(sum(endpoint.max_concurrency for endpoint in used), MOST_AHEAD)
                team = replace(programs, ahead=max(programs.ahead, ahead))
                known = {endpoint.name: endpoint for endpoint in used}
                yield self._placed(team, clients, known, examples, fetched)
            finally:
                self.spent = spending(clients)

    def _examples(self) -> Examples:
        planner, writer = self.launch.generation.planner, self.launch.generation.writer
        if planner is None and writer is None:
            return Examples()
        preferred = {
            quota.name: [name for aim in aims_of(self.findings, quota.name) for name in aim.examples]
            for quota in self.findings.quotas
        }
        return read_examples(
            self.store,
            self.launch.diagnosis_artifact,
            self.launch.probe,
            preferred,
            images=planner.examples if planner else 0,
        )

    def _placed(
        self,
        team: Team,
        clients: Mapping[str, ModelClient],
        known: Mapping[str, Endpoint],
        examples: Examples,
        fetched: Downloader,
    ) -> Team:
        agents = self.launch.generation
        if (planner := agents.planner) is not None:
            aims = {quota.name: aims_of(self.findings, quota.name) for quota in self.findings.quotas}
            client, endpoint = clients[planner.endpoint], known[planner.endpoint]
            team = replace(
                team,
                planner=EndpointPlanner(
                    team.planner, client, endpoint, planner, self.supplies, aims, examples, self.seed
                ),
            )
        if (selector := agents.selector) is not None:
            from dpe_jobs.generation.agents.selector import EndpointSelector  # its library of agents takes seconds

            client, endpoint = clients[selector.endpoint], known[selector.endpoint]
            sources = self._sources(clients, fetched)
            finds = EndpointSelector(client, endpoint, selector, sources, team.selector, self._refusing(team))
            team = replace(team, selector=finds)
        if (writer := agents.writer) is not None:
            client, endpoint = clients[writer.endpoint], known[writer.endpoint]
            team = replace(team, writer=EndpointWriter(client, endpoint, writer, examples))
        if (validator := agents.validator) is not None:
            blind = validator.blind_endpoint or validator.endpoint
            checks = EndpointValidator(
                clients[validator.endpoint], known[validator.endpoint], clients[blind], known[blind]
            )
            team = replace(team, validator=checks)
        if (safety := agents.quality.safety) is not None:
            harmless = () if safety.drawings else self._harmless()
            looks = EndpointSafety(clients[safety.endpoint], known[safety.endpoint], harmless)
            team = replace(team, safety=looks)
        return team

    def _harmless(self) -> set[str]:
        """Names of sources whose pictures, and changes to pictures, programs make."""
        made = [supply for supply in self.supplies if supply.kind in (SourceKind.RENDER, SourceKind.EDIT)]
        by_models = {supply.name for supply in made if supply.program is None}
        return {supply.name for supply in made} - by_models

    def _sources(self, clients: Mapping[str, ModelClient], fetched: Downloader) -> "Sources":
        from dpe_jobs.generation.agents.selector import Sources

        async def fetch(address: str) -> bytes:
            return (await fetched.get(address)).data

        edits = join(self.launch.output, "edits")
        return Sources(
            searches={s.name: s for s in self.supplies if isinstance(s, SearchSupply)},
            pools={s.name: s for s in self.supplies if isinstance(s, LookedUpPool)},
            drawers={s.name: s for s in self.supplies if isinstance(s, RenderSupply)},
            editors={
                s.name: Editor(s.endpoint, clients[s.endpoint], self.store, edits, fetch, self.ledger)
                for s in self.supplies
                if isinstance(s, ModelEdits)
            },
        )

    def _refusing(self, team: Team) -> "Refuses":
        """Says why a picture may not be used, before anybody is paid for an edit of it or a question about it."""
        pools = {s.name: s for s in self.supplies if isinstance(s, LookedUpPool)}

        async def refuses(target: Target, picture: Picture) -> str | None:
            edited = target.kind is SourceKind.EDIT and picture.origin.kind is not SourceKind.EDIT
            look = team.inspector.original if edited else team.inspector.picture
            rejection = await team.workbench.do(look, picture)
            if rejection is not None:
                return f"{rejection.reason}: {rejection.detail}"
            for origin in (picture.origin, *picture.origin.parents):
                if origin.source in pools and (trouble := await pools[origin.source].claim(target, origin.id)):
                    return trouble
            return None

        return refuses
