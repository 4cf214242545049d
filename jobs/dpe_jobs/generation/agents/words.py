"""A target in the words that prompts have for it. Weaknesses and queries come from models: they are marked as data."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from dpe_jobs.generation.quality.wording import LONGEST_ANSWER
from dpe_jobs.generation.roles import Target

LONGEST_WORD = 80  # characters of a facet's name or value
LONGEST_SENTENCE = 300
LONGEST_TEXT = 2000
MOST_HITS = 10  # of a search, that a model is told of

NO_TYPE = "as it suits the picture"


def _cut(longest: int) -> AfterValidator:
    return AfterValidator(lambda text: " ".join(text.split())[:longest])


def _whole(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > LONGEST_ANSWER:
        raise ValueError(f"has more than {LONGEST_ANSWER} characters: be brief")
    return text


Word = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_WORD}), _cut(LONGEST_WORD)]
"""A few words; may be empty, too long ones are cut."""
# a server that constrains replies ends them at the bound: one more than is taken, so that what it cut off is not taken
Answer = Annotated[str, Field(json_schema_extra={"maxLength": LONGEST_ANSWER + 1}), AfterValidator(_whole)]
"""An answer or an option on one line; may be empty. A too long one is asked for again: cut, it would be another one."""
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
