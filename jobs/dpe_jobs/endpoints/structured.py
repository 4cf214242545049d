"""Replies of a known form from any OpenAI-compatible server.

1. The request carries the JSON schema (`response_format: json_schema`), by which vLLM and OpenAI constrain the reply.
2. A server that refuses that (400, 422) is asked for `json_object`, and at last without a format; the schema is then in
   the text. What works is remembered; when nothing works, the first refusal is told, for it was about something else.
3. Whatever the form, the reply is read leniently (prose or a code fence around the object, thoughts before it) and
   checked strictly by a pydantic model. A reply that does not fit is asked again with what was wrong, at most twice,
   and at a temperature: greedy decoding under a schema can run into white space without end, and would again.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dpe_jobs.client import Answers, Budget, BudgetSpent, ModelClient, Refused, RequestFailed

log = logging.getLogger(__name__)

LONGEST_LINE = 300  # characters
TEMPERATURE_AGAIN = 0.7
ASKS = 3  # of one question, as long as its replies do not fit
_FORMAT_REFUSED = (400, 422)
_LONGEST_REPLY = 100_000  # characters that are searched for an object
_MOST_STARTS = 1000  # braces that are tried
_THOUGHTS = re.compile(r"\A.*?</think>", re.DOTALL)


class Reply(BaseModel):
    """Base of what an endpoint is to say. Its schema allows no other fields; a reply with some more is read."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra={"additionalProperties": False})


Line = Annotated[
    str,
    Field(min_length=1, json_schema_extra={"maxLength": LONGEST_LINE}),
    AfterValidator(lambda text: " ".join(text.split())[:LONGEST_LINE]),
]
"""A text on one line. The schema bounds it, so that a server that constrains replies ends it in time; a longer one from
another server is cut, which is no reason to pay for it again."""

R = TypeVar("R", bound=Reply)


class MalformedReply(RequestFailed):
    """The endpoint answered, and never in the form that it was asked for. It is paid for all the same."""

    def __init__(self, message: str, cost: "Cost") -> None:
        super().__init__(message)
        self.cost = cost


class Declined(MalformedReply):
    """The endpoint said that it will not answer."""


@dataclass(slots=True)
class Cost:
    """What a question cost, malformed replies included."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def add(self, answers: Answers) -> None:
        """Count one answer."""
        self.prompt_tokens += answers.prompt_tokens
        self.completion_tokens += answers.completion_tokens
        self.calls += 1

    def columns(self) -> dict[str, int]:
        """As a ledger's rows have it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "calls": self.calls,
        }


class _Form(IntEnum):
    """How a server is told of the form, the strictest first."""

    SCHEMA = 0
    OBJECT = 1
    TEXT = 2


def find_object(text: str) -> dict[str, Any]:
    """The last JSON object in a text, not one inside another; ValueError when there is none that UTF-8 can hold.

    The last, because what comes before it may quote something.
    """
    try:
        # models write tabs and ends of lines into strings, and grammars let them
        whole = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        text = _THOUGHTS.sub("", text[:_LONGEST_REPLY])
    else:
        if isinstance(whole, dict):
            return _whole_characters(whole)
    decoder, found, start = json.JSONDecoder(strict=False), None, text.find("{")
    for _ in range(_MOST_STARTS):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found = value
        start = text.find("{", end)
    if not isinstance(found, dict):
        raise ValueError("it holds no whole JSON object")
    return _whole_characters(found)


def _whole_characters(found: dict[str, Any]) -> dict[str, Any]:
    """The object. ValueError: an escape in it names half a surrogate pair, which no ledger or dataset could hold."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds half of a character: {error.object[error.start]!r}") from error
    return found


def _what_is_wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'reply'}: {e['msg']}" for e in error.errors()[:3])


class Asker(Generic[R]):
    """Asks one endpoint for replies of one form."""

    def __init__(
        self,
        client: ModelClient,
        reply: type[R],
        *,
        max_tokens: int,
        budget: Budget | None = None,
        temperature: float = 0.0,
    ) -> None:
        """`budget` bounds the calls of this asker, repeated ones included."""
        self._client, self._reply, self._max_tokens, self.budget = client, reply, max_tokens, budget
        self._temperatures = (temperature, *[max(temperature, TEMPERATURE_AGAIN)] * (ASKS - 1))
        self._schema = reply.model_json_schema()
        self._form, self._proven = _Form.SCHEMA, False

    async def ask(
        self,
        text: str,
        *,
        image: bytes | Sequence[bytes] | None = None,
        system: str | None = None,
        seed: int | None = None,
    ) -> tuple[R, Cost]:
        """The reply and its cost. RequestFailed when there is none; MalformedReply when none fits."""
        cost, trouble, said = Cost(), "", ""
        for number, temperature in enumerate(self._temperatures):
            again = f"\n\n{self._reminder(trouble)}" if number else ""
            try:
                answers = await self._in_some_form(
                    text + again,
                    image=image,
                    system=system,
                    temperature=temperature,
                    # a ledger answers the same request by the same reply, which did not fit
                    seed=None if seed is None else seed + number,
                )
            except BudgetSpent:
                if not number:
                    raise
                break  # what was paid for did not fit, and no more may be asked
            cost.add(answers)
            said = answers.texts[0]
            if answers.refusal is not None:
                raise Declined(f"{self._client.where} declined: {answers.refusal[:200]}", cost)
            try:
                return self._reply.model_validate(find_object(said)), cost
            except ValidationError as error:
                trouble = _what_is_wrong(error)
            except ValueError as error:
                trouble = str(error)
            if answers.cut_off:
                trouble += f"; it was cut off at maxTokens ({self._max_tokens})"
            log.info("%s: a reply does not fit: %s", self._client.where, trouble)
        raise MalformedReply(
            f"{self._client.where}: no reply of {cost.calls} has the form asked for; the last one: {trouble}: "
            f"{' '.join(said.split())[:200]!r}",
            cost,
        )

    def _reminder(self, trouble: str) -> str:
        return f"An earlier reply could not be read: {trouble}. Be brief. {self._in_words()}"

    def _in_words(self) -> str:
        return f"Reply with one JSON object and nothing else. Its JSON schema: {json.dumps(self._schema)}"

    async def _in_some_form(self, text: str, **asked: Any) -> Answers:
        form, first = self._form, None
        while True:
            try:
                answers = await self._in_form(form, text, **asked)
            except Refused as error:
                first = first or error
                if error.status not in _FORMAT_REFUSED or form is _Form.TEXT or (self._proven and form is self._form):
                    raise first from None
                # another question may have found a form that works in the meantime
                form = self._form if self._proven else _Form(form + 1)
            else:
                if not self._proven:
                    self._form, self._proven = form, True
                    if form is not _Form.SCHEMA:
                        log.warning("%s takes no JSON schema: it is asked for %s", self._client.where, form.name)
                return answers

    async def _in_form(self, form: _Form, text: str, **asked: Any) -> Answers:
        formats: dict[_Form, dict[str, Any] | None] = {
            _Form.SCHEMA: {
                "type": "json_schema",
                "json_schema": {"name": self._reply.__name__.strip("_"), "schema": self._schema, "strict": True},
            },
            _Form.OBJECT: {"type": "json_object"},
            _Form.TEXT: None,
        }
        return await self._client.ask(
            question=text if form is _Form.SCHEMA else f"{text}\n\n{self._in_words()}",
            **asked,
            max_tokens=self._max_tokens,
            response_format=formats[form],
            budget=self.budget,
        )
