"""The planner by an endpoint: what the programmatic planner orders, the model fills in.

How many targets there are, from which source each takes its picture, seeds and numbers are the program's, whatever the
model says: it may say for which of them what is looked for, at which weakness it aims, and how hard it is to be. What
it proposes beyond that (more targets, other sources, knobs that do not exist) is passed over, and a target for which
it proposes nothing stays as the program planned it.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol, TypeVar, cast

from prometheus_client import Counter as Metric
from pydantic import AfterValidator, Field, create_model

from dpe_api.agents_spec import PlannerAgent
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.structured import Asker, MalformedReply, Reply
from dpe_jobs.endpoints.texts import marked
from dpe_jobs.generation.agents.examples import Examples
from dpe_jobs.generation.agents.words import Word
from dpe_jobs.generation.agents.writer import TYPES, without_code
from dpe_jobs.generation.roles import Aim, Difficulty, Feedback, Order, Planner, Target, ordinals
from dpe_jobs.prompts import prompt
from dpe_jobs.seeds import derive

log = logging.getLogger(__name__)

BATCH = 20  # targets of one request: a reply of some 1,500 tokens
MOST_FACETS = 6
MOST_AIMS = 20

PLANNED = Metric("dpe_targets_planned_total", "Targets by who said what to look for", ["by"])


class Offer(Protocol):
    """A source, as far as a planner needs to know it."""

    name: str

    @property
    def program(self) -> object | None:
        """Who reads its pictures: then it looks for what the knobs say. None: for the query, if there is one."""

    def supplies(self, category: str) -> bool:
        """Whether it has pictures for a category."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What may be chosen, and its values; empty: the model says in its own words what is wanted."""

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """What each picture is that these knobs need: those that are the same are numbered (`Target.ordinals`).

        Of a source without a program a target's query counts instead, if it has one.
        """


class Facet(Reply):
    """A knob or a property, and its value."""

    name: Word
    value: Word


class Proposal(Reply):
    """One target. Only the schema says what may stand here: a wrong word costs its field, not the whole reply."""

    aim: int = 0
    source: str = ""
    facets: list[Facet] = Field(default_factory=list)
    question_type: str = ""
    difficulty: str = ""
    query: Word = ""


class Proposals(Reply):
    """Targets."""

    targets: list[Proposal]


def plan_form(sources: Sequence[str], aims: int, count: int) -> type[Proposals]:
    """The reply's form, whose schema lists what may be chosen."""

    def one_of(*words: str) -> Any:
        return Annotated[str, Field(json_schema_extra={"enum": list(words)})]

    facets: Any = Annotated[list[Facet], Field(json_schema_extra={"maxItems": MOST_FACETS})]
    aim: Any = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": aims})]
    proposal: Any = create_model(
        "Target",
        __base__=Proposal,
        aim=(aim, ...),
        source=(one_of(*sources), ...),
        facets=(facets, ...),
        question_type=(one_of(*TYPES), ...),
        difficulty=(one_of(*Difficulty), ...),
        query=(Word, ...),
    )
    # a longer list is cut: it was paid for
    targets: Any = Annotated[
        list[proposal],
        Field(json_schema_extra={"minItems": count, "maxItems": count}),
        AfterValidator(lambda found: found[:count]),
    ]
    return cast(type[Proposals], create_model("Plan", __base__=Proposals, targets=(targets, ...)))


class EndpointPlanner:
    """Implements `roles.Planner`."""

    def __init__(
        self,
        program: Planner,
        client: ModelClient,
        endpoint: Endpoint,
        settings: PlannerAgent,
        offers: Sequence[Offer],
        aims: Mapping[str, Sequence[Aim]],
        examples: Examples,
        seed: int,
    ) -> None:
        """`aims` and `examples` by category."""
        self._program, self._client, self._endpoint, self._settings = program, client, endpoint, settings
        self._offers = {offer.name: offer for offer in offers}
        self._aims, self._examples, self._seed = aims, examples, seed
        self._asked: Counter[tuple[str, ...]] = Counter()

    async def plan(self, order: Order) -> Sequence[Target]:
        """Exactly the targets of the order. RequestFailed: the endpoint gave no answer at all."""
        targets = await self._program.plan(order)
        planned: list[Target] = []
        for start in range(0, len(targets), BATCH):
            batch = list(targets[start : start + BATCH])
            proposals = await self._propose(order, batch)
            planned += self._merge(order.category, batch, proposals)
        return [self._numbered(target) for target in planned]

    async def _propose(self, order: Order, batch: Sequence[Target]) -> Sequence[Proposal]:
        """What the model proposes; nothing when no reply of it can be read."""
        template = prompt("plan")
        aims = self._aims_of(order.category, batch)
        sources = sorted({target.source for target in batch})
        shown = self._examples.shown(order.category)
        blocks = marked(
            aims="\n".join(f"{number}. {aim.text}" for number, aim in enumerate(aims, 1)),
            examples=_numbered_examples(self._examples, order.category),
            feedback=_told(order.feedback),
        )
        text = template.fill(
            category=order.category,
            count=str(len(batch)),
            sources="\n".join(self._source_line(order.category, name, batch) for name in sources),
            **without_code(blocks),
        )
        asker = Asker(
            self._client,
            plan_form(sources, len(aims), len(batch)),
            max_tokens=self._endpoint.max_tokens,
            temperature=self._settings.temperature,
        )
        try:
            reply, _ = await asker.ask(
                text,
                image=[example.image for example in shown if example.image is not None] or None,
                system=template.system,
                seed=derive(self._seed, "plan", order.category, batch[0].number),
            )
        except MalformedReply as error:
            log.warning("%s: %d targets are planned by program: %s", order.category, len(batch), error)
            return ()
        return reply.targets

    def _aims_of(self, category: str, batch: Sequence[Target]) -> list[Aim]:
        known = list(self._aims.get(category, ()))[:MOST_AIMS]
        return known or [batch[0].aim]

    def _source_line(self, category: str, name: str, batch: Sequence[Target]) -> str:
        count = sum(target.source == name for target in batch)
        knobs = self._offers[name].knobs(category) if name in self._offers else {}
        what = "; ".join(f"{knob}: {', '.join(values)}" for knob, values in knobs.items())
        return f"- {name}: {count} targets. " + (f"Knobs: {what}" if knobs else "No knobs: say what it is to show")

    def _merge(self, category: str, batch: Sequence[Target], proposals: Sequence[Proposal]) -> list[Target]:
        """Each proposal in the next target of its source that has none; the others as they were."""
        free: dict[str, deque[int]] = {}
        for place, target in enumerate(batch):
            free.setdefault(target.source, deque()).append(place)
        merged, aims = list(batch), self._aims_of(category, batch)
        filled = 0
        for proposal in proposals:
            places = free.get(proposal.source)
            if not places:
                continue
            place = places.popleft()
            merged[place] = self._filled(batch[place], proposal, aims)
            filled += 1
        PLANNED.labels("endpoint").inc(filled)
        PLANNED.labels("program").inc(len(batch) - filled)
        return merged

    def _filled(self, target: Target, proposal: Proposal, aims: Sequence[Aim]) -> Target:
        offer = self._offers.get(target.source)
        options = offer.knobs(target.category) if offer else {}
        said = {facet.name: facet.value for facet in proposal.facets[:MOST_FACETS] if facet.name and facet.value}
        if options:
            said = {name: value for name, value in said.items() if value in options.get(name, ())}
        return replace(
            target,
            knobs={**target.knobs, **said},
            aim=aims[proposal.aim - 1] if 1 <= proposal.aim <= len(aims) else target.aim,
            difficulty=_one_of(Difficulty, proposal.difficulty, target.difficulty),
            question_type=None if options else _one_of(TYPES, proposal.question_type, target.question_type),
            query=proposal.query or target.query,
        )

    def _numbered(self, target: Target) -> Target:
        """With its ordinals: those for which a source would find the same must not get the same."""
        offer = self._offers.get(target.source)
        looks_for = offer.looks_for(target.category, target.knobs) if offer else ("",)
        if target.query and (offer is None or offer.program is None):
            looks_for = (target.query,)
        keys = [(target.category, target.source, wanted) for wanted in looks_for]
        return replace(target, ordinals=ordinals(self._asked, keys))


E = TypeVar("E")


def _one_of(allowed: Iterable[E], said: str, otherwise: E) -> E:
    """The value that a model named; another one when there is none of that name."""
    return next((value for value in allowed if value == said), otherwise)


def _told(feedback: Feedback) -> str:
    """What became of earlier targets, in words."""
    if not feedback.kept and not feedback.rejected:
        return "There are none."
    counts = ", ".join(f"{count} {reason}" for reason, count in feedback.rejected.most_common())
    lines = [f"{feedback.kept} kept; rejected: {counts or 'none'}."]
    lines += [
        f"- {target.source}, {dict(target.knobs)}, query {target.query!r}: {rejection.reason}: {rejection.detail[:200]}"
        for target, rejection in feedback.examples
    ]
    return "\n".join(lines)


def _numbered_examples(examples: Examples, category: str) -> str:
    """Those with images are named by the place of theirs."""
    shown = {example.id: number for number, example in enumerate(examples.shown(category), 1)}
    lines = [
        f"- {f'image {shown[e.id]}: ' if e.id in shown else ''}{e.text()}"
        for e in examples.by_category.get(category, ())
    ]
    return "\n".join(lines) or "- none is known"
