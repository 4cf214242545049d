"""The programmatic writer: question and answer from the facts of a picture, unless its program asks by itself."""

import random
from collections.abc import Mapping

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import TRUTH, Drawn, Form, Generator, PixelProgram, Written


def write(program: PixelProgram, form: Form, facts: Mapping[str, str], truth: str, rng: random.Random) -> Written:
    """Ask about the facts in one form. `truth`, yes or no: whether what a question on existence names is there."""
    if form.kind == "value":
        return Written(form.text.format_map(facts), facts[form.asks], AnswerType.EXACT)
    there = facts[form.asks]
    named = there if truth == "yes" else rng.choice([v for v in program.vocabulary[form.asks] if v != there])
    agrees = (truth == "yes") == (form.kind == "exists")
    return Written(form.text.format(named=named), "yes" if agrees else "no", AnswerType.YES_NO)


def ask(program: Generator, category: str, knobs: Mapping[str, str], drawn: Drawn, rng: random.Random) -> Written:
    """The program's own question, or one in a form of the category, drawn by `rng`."""
    if drawn.written is not None:
        return drawn.written
    assert isinstance(program, PixelProgram), "load_programs let nothing else in"
    return write(program, rng.choice(program.forms(category)), drawn.facts, knobs.get(TRUTH, "yes"), rng)
