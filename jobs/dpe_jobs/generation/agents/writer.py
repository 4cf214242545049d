"""The writer by an endpoint: it describes the picture first, in a question of its own, and only then asks about it."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import Field, create_model

from dpe_api.agents_spec import WriterAgent
from dpe_api.artifacts import AnswerType
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import ModelClient
from dpe_jobs.endpoints.structured import Asker, Declined, Reply
from dpe_jobs.endpoints.texts import marked
from dpe_jobs.generation.agents.examples import Examples
from dpe_jobs.generation.agents.seen import encoded
from dpe_jobs.generation.agents.words import LONGEST_OPTION, Answer, Option, Sentence, Text, listed, wanted_type
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.quality.wording import LONGEST_ANSWER
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejected, Target
from dpe_jobs.graders import is_programmatic
from dpe_jobs.prompts import prompt
from dpe_jobs.seeds import derive

TYPES = tuple(kind for kind in AnswerType if is_programmatic(kind))
"""Answers that a program can check: the reward of the training is computed by graders."""
MOST_CHOICES = 8


class Observation(Reply):
    """What can be seen."""

    observation: Text


class Question(Reply):
    """One question, or why there is none."""

    # the order is that of thinking: how the answer follows stands before question and answer
    possible: bool
    why_not: Sentence
    rationale: Text
    question: Text
    answer_type: AnswerType
    choices: Annotated[list[Option], Field(json_schema_extra={"maxItems": MOST_CHOICES})]
    answer: Answer


def question_form(kind: AnswerType | None) -> type[Question]:
    """The reply's form: with the kind of answer that is asked for, or any that a program can check."""
    allowed: Any = Literal[TYPES if kind is None else (kind,)]
    return cast(type[Question], create_model("Question", __base__=Question, answer_type=(allowed, ...)))


class EndpointWriter:
    """Asks about pictures that nobody knows; implements `roles.Writer`."""

    def __init__(self, client: ModelClient, endpoint: Endpoint, settings: WriterAgent, examples: Examples) -> None:
        self._examples = examples
        self._observer = Asker(client, Observation, max_tokens=endpoint.max_tokens)
        self._writers = {
            kind: Asker(client, question_form(kind), max_tokens=endpoint.max_tokens, temperature=settings.temperature)
            for kind in (None, *TYPES)
        }

    async def write(self, target: Target, picture: Picture) -> Written:
        """Question, answer, and how it came to them. Rejected: nothing on target, or the model declines."""
        image = await asyncio.to_thread(encoded, picture.image)
        try:
            observation = await self._observe(target, image)
            found = await self._ask(target, image, observation)
        except Declined as error:
            raise Rejected("Declined", str(error)) from error
        if not found.possible:
            raise Rejected("NoQuestion", found.why_not or "the writer gives no reason")
        choices = found.choices[:MOST_CHOICES] if found.answer_type is AnswerType.CHOICE else []
        if trouble := _too_long(found.answer, choices):
            raise Rejected("AnswerType", trouble)
        return Written(
            question=found.question,
            answer=found.answer,
            answer_type=found.answer_type,
            choices=tuple(choices),
            observation=observation,
            rationale=found.rationale,
        )

    async def _observe(self, target: Target, image: bytes) -> str:
        """What can be seen: asked without a word of what is going to be asked about it."""
        template = prompt("observe")
        text = template.fill(category=target.category, **without_code(marked(weakness=target.aim.text)))
        seen, _ = await self._observer.ask(
            text, image=image, system=template.system, seed=derive(target.seed, "observe")
        )
        return seen.observation

    async def _ask(self, target: Target, image: bytes, observation: str) -> Question:
        template = prompt("write")
        blocks = marked(
            weakness=target.aim.text,
            facets=listed(target.knobs),
            examples=self._examples.texts(target.category, target.aim.examples),
            observation=observation,
        )
        text = template.fill(
            category=target.category,
            question_type=wanted_type(target),
            difficulty=target.difficulty,
            **without_code(blocks),
        )
        writer = self._writers.get(target.question_type, self._writers[None])
        found, _ = await writer.ask(text, image=image, system=template.system, seed=derive(target.seed, "write"))
        return found


def _too_long(answer: str, choices: Sequence[str]) -> str | None:
    """Which text is not whole, if any: cut, it would be another answer."""
    if len(answer) > LONGEST_ANSWER:
        return f"the answer has more than {LONGEST_ANSWER} characters: {answer[:80]!r}"
    option = next((choice for choice in choices if len(choice) > LONGEST_OPTION), None)
    return None if option is None else f"an option has more than {LONGEST_OPTION} characters: {option[:80]!r}"


def without_code(blocks: dict[str, str]) -> dict[str, str]:
    """Blocks for a prompt that does not name their code."""
    return {name: block for name, block in blocks.items() if name != "code"}
