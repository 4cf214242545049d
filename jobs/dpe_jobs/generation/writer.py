"""The programmatic writer: question and answer from the facts of a picture, unless its program asks by itself."""

import random
from collections.abc import Mapping

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.render import TRUTH, Drawn, Form, PixelReader, Program, Written
from dpe_jobs.generation.roles import Rejected, Target
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.seeds import derive


def write(program: PixelReader, form: Form, facts: Mapping[str, str], truth: str, rng: random.Random) -> Written:
    """Ask about the facts in one form. `truth`, yes or no: whether what a question on existence names is there."""
    if form.kind == "value":
        return Written(form.text.format_map(facts), facts[form.asks], AnswerType.EXACT)
    there = facts[form.asks]
    named = there if truth == "yes" else rng.choice([v for v in program.vocabulary[form.asks] if v != there])
    agrees = (truth == "yes") == (form.kind == "exists")
    return Written(form.text.format(named=named), "yes" if agrees else "no", AnswerType.YES_NO)


def ask(
    program: Program, category: str, knobs: Mapping[str, str], drawn: Drawn | Picture, rng: random.Random
) -> Written:
    """The program's own question, or one in a form of the category, drawn by `rng`.

    ValueError: no form of the category asks for what is known of the picture.
    """
    if drawn.written is not None:
        return drawn.written
    assert isinstance(program, PixelReader), "load_programs let nothing else in"
    forms = [form for form in program.forms(category) if form.asks in drawn.facts]
    if not forms:
        raise ValueError(f"no form of {category} asks for one of {', '.join(drawn.facts) or 'no facts'}")
    return write(program, rng.choice(forms), drawn.facts, knobs.get(TRUTH, "yes"), rng)


class RuleWriter:
    """Writes by the forms of programs; implements `roles.Writer`."""

    def __init__(self, programs: Mapping[str, Program], workbench: Workbench) -> None:
        """`programs` by source: who asks about its pictures."""
        self._programs, self._workbench = programs, workbench

    async def write(self, target: Target, picture: Picture) -> Written:
        """Question and answer from the facts."""
        program, rng = self._programs[target.source], random.Random(derive(target.seed, "question"))
        try:
            return await self._workbench.do(ask, program, target.category, target.knobs, picture, rng)
        except ValueError as error:
            raise Rejected("NoQuestion", str(error)) from error
