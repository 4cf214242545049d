"""The validator by endpoints: a blind answer, compared by the graders of the diagnosis, then a judgement.

Both see the picture that would be trained on (of an edited one, the edited one) and neither sees the proposed answer: a
model that agrees with everything cannot agree with what it does not know.
"""

import asyncio

from dpe_api.artifacts import AnswerType
from dpe_api.endpoints import Endpoint
from dpe_jobs import asking
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.structured import Asker, Declined, Line, Reply
from dpe_jobs.endpoints.texts import marked
from dpe_jobs.generation.agents.seen import encoded
from dpe_jobs.generation.agents.words import Answer, Text
from dpe_jobs.generation.agents.writer import without_code
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.quality.wording import LONGEST_ANSWER
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejection, Target
from dpe_jobs.generation.validator import malformed
from dpe_jobs.graders import grade
from dpe_jobs.prompts import prompt
from dpe_jobs.seeds import derive


class Blind(Reply):
    """An answer by somebody who knows picture and question only."""

    thoughts: Text
    answerable: bool
    answer: Answer


class Judgement(Reply):
    """What is wrong with a question."""

    # the reason comes first: it is then a reason and no excuse
    reason: Line
    answerable: bool
    single: bool
    on_target: bool
    well_formed: bool

    def rejection(self) -> Rejection | None:
        """The gravest fault."""
        for good, reason in (
            (self.well_formed, "Malformed"),
            (self.answerable, "Unanswerable"),
            (self.single, "Ambiguous"),
            (self.on_target, "OffTarget"),
        ):
            if not good:
                return Rejection(reason, self.reason)
        return None


class EndpointValidator:
    """Implements `roles.Validator`."""

    def __init__(self, client: ModelClient, endpoint: Endpoint, blind: ModelClient, blind_endpoint: Endpoint) -> None:
        self._judge = Asker(client, Judgement, max_tokens=endpoint.max_tokens)
        self._blind = Asker(blind, Blind, max_tokens=blind_endpoint.max_tokens)

    async def validate(self, target: Target, picture: Picture, written: Written) -> Rejection | None:
        """The first fault, the cheapest checks first; None when there is none."""
        if fault := malformed(written):
            return Rejection("Malformed", fault)
        image = await asyncio.to_thread(encoded, picture.image)
        try:
            return await self._answer(target, image, written) or await self._look(target, image, written)
        except Declined as error:
            return Rejection("Declined", str(error))

    async def _answer(self, target: Target, image: bytes, written: Written) -> Rejection | None:
        template = prompt("answer")
        text = template.fill(**without_code(marked(question=_asked(written))))
        said, _ = await self._blind.ask(text, image=image, system=template.system, seed=derive(target.seed, "answer"))
        if not said.answerable or not said.answer:
            return Rejection("Unanswerable", f"a blind answer: {said.thoughts or 'it cannot be answered'}")
        if len(said.answer) > LONGEST_ANSWER:
            cut = f"more than {LONGEST_ANSWER} characters: {said.answer[:80]!r}"
            return Rejection("WrongAnswer", f"proposed {written.answer!r}, a blind answer has {cut}")
        if not grade(said.answer, written.answer, written.answer_type, written.choices):
            return Rejection("WrongAnswer", f"proposed {written.answer!r}, a blind answer says {said.answer!r}")
        return None

    async def _look(self, target: Target, image: bytes, written: Written) -> Rejection | None:
        template = prompt("verify")
        blocks = marked(weakness=target.aim.text, question=_asked(written))
        text = template.fill(category=target.category, **without_code(blocks))
        found, _ = await self._judge.ask(text, image=image, system=template.system, seed=derive(target.seed, "verify"))
        return found.rejection()


def _asked(written: Written) -> str:
    """As the model that is trained will be asked; with the kind of answer where the words do not say it."""
    text = asking.prompt(written.question, written.choices, written.answer_type)
    return f"{text}\n(answer yes or no)" if written.answer_type is AnswerType.YES_NO else text
