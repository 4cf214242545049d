"""The selector by an endpoint: it looks for the picture of a target by calling tools, for so many steps and tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dpe_api.agents_spec import SelectorAgent
from dpe_api.endpoints import Endpoint
from dpe_api.generation_spec import SourceKind
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.loop import GaveOut, Loop
from dpe_jobs.endpoints.texts import marked
from dpe_jobs.generation.agents.tools import Drawer, Editor, Finder, GivenUp, Hands, Refuses, anything_goes
from dpe_jobs.generation.agents.words import listed, wanted_type
from dpe_jobs.generation.agents.writer import without_code
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.roles import Selector, Target
from dpe_jobs.prompts import prompt
from dpe_jobs.seeds import derive


class Shared(Protocol):
    """A source whose pictures are few enough for targets to get in each other's way."""

    def of(self, target: Target) -> Finder:
        """The part that this target searches."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a selector may look, by the name of the source."""

    searches: Mapping[str, Finder] = field(default_factory=dict)
    pools: Mapping[str, Shared] = field(default_factory=dict)
    drawers: Mapping[str, Drawer] = field(default_factory=dict)
    editors: Mapping[str, Editor] = field(default_factory=dict)

    def hands(self, target: Target, refuses: Refuses) -> Hands | None:
        """The tools for a target: those of its source, and for an edit those of the sources of originals.

        So a source has its share of the targets, whatever a model would rather use. None: its source has no tool.
        """
        kind, name = target.kind, target.source
        tools = Hands(target, refuses=refuses)
        if kind is SourceKind.SEARCH:
            tools.searches = self.searches.get(name)
        elif kind is SourceKind.POOL:
            tools.pool = self.pools[name].of(target) if name in self.pools else None
        elif kind is SourceKind.RENDER:
            tools.drawer = self.drawers.get(name)
        elif kind is SourceKind.EDIT and name in self.editors:
            tools.editor = self.editors[name]
            tools.searches = next(iter(self.searches.values()), None)
            tools.pool = next((pool.of(target) for pool in self.pools.values()), None)
            tools.drawer = next((d for d in self.drawers.values() if d.supplies(target.category)), None)
        return tools if len(tools.tools()) > 1 else None  # look_at alone looks at nothing


class EndpointSelector:
    """Implements `roles.Selector`."""

    def __init__(
        self,
        client: ModelClient,
        endpoint: Endpoint,
        settings: SelectorAgent,
        sources: Sources,
        program: Selector,
        refuses: Refuses = anything_goes,
    ) -> None:
        """`program` selects where there is no tool."""
        self._sources, self._program, self._refuses = sources, program, refuses
        self._loop = Loop(
            client,
            max_tokens=endpoint.max_tokens,
            temperature=settings.temperature,
            max_steps=settings.max_steps,
            most_tokens=settings.max_tokens_per_target,
        )

    async def select(self, target: Target) -> Picture:
        """The picture that the model ends with, and the calls that found it.

        NoImage: it gave up, or came to no end. RequestFailed: the endpoint failed.
        """
        hands = self._sources.hands(target, self._refuses)
        if hands is None:
            return await self._program.select(target)
        template = prompt("select")
        blocks = marked(weakness=target.aim.text, facets=listed(target.knobs), query=target.query or "none")
        task = template.fill(
            category=target.category,
            question_type=wanted_type(target),
            difficulty=target.difficulty,
            **without_code(blocks),
        )
        try:
            found: Picture | GivenUp = await self._loop.run(
                task,
                system=template.system,
                tools=hands.tools(),
                ends=[hands.use_image, hands.give_up],
                offer=hands.offer,
                seed=derive(target.seed, "select"),
            )
        except GaveOut as error:
            raise NoImage(f"{error}; it called {_calls(hands)}", outage=hands.outage) from error
        if isinstance(found, GivenUp):
            raise NoImage(f"the selector gave up: {found.reason}; it called {_calls(hands)}", outage=hands.outage)
        return found


def _calls(hands: Hands) -> str:
    return ", ".join(str(call["tool"]) for call in hands.calls) or "nothing"
