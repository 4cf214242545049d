"""A target in the words that prompts have for it. Weaknesses and queries come from models: they are marked as data."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from dpe_jobs.generation.quality.wording import LONGEST_ANSWER
from dpe_jobs.generation.roles import Target

LONGEST_WORD = 80  # characters of a facet's name or value
LONGEST_SENTENCE = 300
LONGEST_OPTION = 300  # there are several: a weak model that runs on in each of them would not end within maxTokens
LONGEST_TEXT = 2000
MOST_HITS = 10  # of a search, that a model is told of

NO_TYPE = "as it suits the picture"


def _cut(longest: int) -> AfterValidator:
    return AfterValidator(lambda text: " ".join(text.split())[:longest])


def _marked(longest: int) -> AfterValidator:
    """On one line; a longer one is cut one character later, by which it is known."""
    return AfterValidator(lambda text: text[: longest + 1] if len(text) > longest else " ".join(text.split()))


Word = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_WORD}), _cut(LONGEST_WORD)]
"""A few words; may be empty, too long ones are cut."""
# A server that constrains replies ends a text at the schema's bound, which is one more than may be used: what is longer
# than that is told from what is whole. It is no reason to pay for the reply again: who asks rejects the candidate.
Answer = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_ANSWER + 1}), _marked(LONGEST_ANSWER)]
"""An answer on one line; may be empty. One of more than LONGEST_ANSWER characters is not whole, and not to be used."""
Option = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_OPTION + 1}), _marked(LONGEST_OPTION)]
"""An option on one line; may be empty. One of more than LONGEST_OPTION characters is not whole, and not to be used."""
Sentence = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_SENTENCE}), _cut(LONGEST_SENTENCE)]
"""One sentence; may be empty, a too long one is cut."""
Text = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_TEXT}), _cut(LONGEST_TEXT)]
"""A paragraph on one line; may be empty, a too long one is cut."""


def listed(facets: Mapping[str, str]) -> str:
    """Facets or knobs, one a line."""
    return "\n".join(f"- {name}: {value}" for name, value in facets.items()) or "- nothing in particular"


def wanted_type(target: Target) -> str:
    """The kind of answer."""
    return NO_TYPE if target.question_type is None else str(target.question_type)
