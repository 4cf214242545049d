"""The programmatic writer: question and answer from the facts of a picture."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import TRUTH, Form, Generator


@dataclass(frozen=True, slots=True)
class Written:
    """A question and the answer that its writer proposes."""

    question: str
    answer: str
    answer_type: AnswerType


def write(program: Generator, form: Form, facts: Mapping[str, str], truth: str, rng: random.Random) -> Written:
    """Ask about the facts in one form. `truth`, yes or no: whether what a question on existence names is there."""
    if form.kind == "value":
        return Written(form.text.format_map(facts), facts[form.asks], AnswerType.EXACT)
    there = facts[form.asks]
    named = there if truth == "yes" else rng.choice([v for v in program.vocabulary[form.asks] if v != there])
    agrees = (truth == "yes") == (form.kind == "exists")
    return Written(form.text.format(named=named), "yes" if agrees else "no", AnswerType.YES_NO)


def ask(
    program: Generator, category: str, knobs: Mapping[str, str], facts: Mapping[str, str], rng: random.Random
) -> Written:
    """Ask in a form of the category, drawn by `rng`."""
    return write(program, rng.choice(program.forms(category)), facts, knobs.get(TRUTH, "yes"), rng)
