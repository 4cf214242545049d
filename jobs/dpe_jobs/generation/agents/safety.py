"""The safety check by an endpoint: whether picture and question may be trained on at all."""

import asyncio
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dpe_api.endpoints import Endpoint
from dpe_jobs import asking
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.structured import Asker, Declined, Line, Reply
from dpe_jobs.endpoints.texts import marked
from dpe_jobs.generation.agents.seen import MOST_PIXELS
from dpe_jobs.generation.agents.writer import without_code
from dpe_jobs.generation.images import Origin
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejection, Target
from dpe_jobs.prompts import prompt
from dpe_jobs.seeds import derive


class Kind(StrEnum):
    """What makes a picture unfit."""

    NSFW = "nsfw"
    PERSON_IDENTIFIABLE = "person_identifiable"
    VIOLENCE = "violence"
    OTHER = "other"


class Finding(Reply):
    """What an endpoint says of a picture and a question."""

    # the reason comes first: it is then a reason and no excuse
    reason: Line
    kinds: Annotated[list[Kind], Field(max_length=len(Kind))]
    safe: bool

    def rejection(self) -> Rejection | None:
        """`Unsafe` with the kinds; also where they contradict `safe`."""
        if self.safe and not self.kinds:
            return None
        return Rejection("Unsafe", f"{', '.join(self.kinds) or Kind.OTHER}: {self.reason}")


class EndpointSafety:
    """Implements `roles.Safety`."""

    def __init__(self, client: ModelClient, endpoint: Endpoint, harmless: Collection[str]) -> None:
        """`harmless` sources: what they make, of nothing or of pictures of one another, is not asked about."""
        self._asker = Asker(client, Finding, max_tokens=endpoint.max_tokens)
        self._harmless = frozenset(harmless)

    def _spared(self, origin: Origin) -> bool:
        return origin.source in self._harmless and all(map(self._spared, origin.parents))

    async def check(self, target: Target, image: bytes, origin: Origin, written: Written) -> Rejection | None:
        """`Unsafe`, or `Declined` by the endpoint; None when it may be trained on."""
        if self._spared(origin):
            return None
        template = prompt("safety")
        question = asking.prompt(written.question, written.choices, written.answer_type)
        text = template.fill(**without_code(marked(question=question, answer=written.answer)))
        small = await asyncio.to_thread(asking.fit, image, MOST_PIXELS)
        seed = derive(target.seed, "safety")
        try:
            found, _ = await self._asker.ask(text, image=small, system=template.system, seed=seed)
        except Declined as error:
            return Rejection("Declined", str(error))
        return found.rejection()
