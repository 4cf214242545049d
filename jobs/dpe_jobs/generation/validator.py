"""The programmatic validator: is a question well put and on target, and does a second look find the same answer?

The second look at a `PixelProgram`'s picture reads its pixels. That at a `SceneProgram`'s reads the display list, after
the picture was compared with it: every mark is there in its colour, and every text can be read.
"""

import re
from collections.abc import Mapping

from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.render import Drawn, PixelReader, Program, SceneProgram, Written, legible, scene
from dpe_jobs.generation.roles import Rejection, Target
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.graders import grade

LONGEST_QUESTION = 2000  # characters
_LEFT_OVER = re.compile(r"[{}<>\x00-\x08\x0b-\x1f]")


def off_target(knobs: Mapping[str, str], facts: Mapping[str, str]) -> str | None:
    """What was drawn other than planned, if anything."""
    for name, wanted in knobs.items():
        if name in facts and facts[name] != wanted:
            return f"{name} is {facts[name]}, planned was {wanted}"
    return None


def malformed(written: Written) -> str | None:
    """What is wrong with the question's text, if anything."""
    text = written.question
    if not text.strip() or not written.answer.strip():
        return "question or answer is empty"
    if text != " ".join(text.split()) or not text.endswith("?"):
        return "not one line that ends with a question mark"
    if len(text) > LONGEST_QUESTION:
        return f"longer than {LONGEST_QUESTION} characters"
    if _LEFT_OVER.search(text):
        return "a placeholder or control character was left in it"
    if len(set(written.choices)) < len(written.choices):
        return f"an option comes twice in {list(written.choices)}"
    try:
        if not grade(written.answer, written.answer, written.answer_type, written.choices):
            return f"the answer {written.answer!r} is not right by its own grader ({written.answer_type})"
    except ValueError as error:
        return str(error)
    return None


def second_look(program: Program, drawn: Drawn | Picture, written: Written) -> str:
    """The answer found anew, blind to the proposed one. ValueError: there is none."""
    if isinstance(program, PixelReader):
        return program.answer(drawn.image, written.question)
    assert isinstance(program, SceneProgram), "load_programs let nothing else in"
    if drawn.scene is None:
        raise ValueError("the program handed out no display list")
    return program.solve(scene.loads(drawn.scene.dumps()), written.question, written.choices)


def trouble(program: Program, drawn: Drawn | Picture, knobs: Mapping[str, str], written: Written) -> Rejection | None:
    """Reason and detail of a rejection, or None. The answer is found anew, blind to the proposed one, then compared."""
    if detail := off_target(knobs, drawn.facts):
        return Rejection("OffTarget", detail)
    if detail := malformed(written):
        return Rejection("Malformed", detail)
    if drawn.scene is not None and (found := legible.trouble(drawn.image, drawn.scene)):
        return Rejection(*found)
    try:
        blind = second_look(program, drawn, written)
    except ValueError as error:
        return Rejection("Unanswerable", str(error))
    if not grade(blind, written.answer, written.answer_type, written.choices):
        return Rejection("WrongAnswer", f"proposed {written.answer!r}, a second look says {blind!r}")
    return None


class RuleValidator:
    """Checks by the programs' second look; implements `roles.Validator`."""

    def __init__(self, programs: Mapping[str, Program], workbench: Workbench) -> None:
        """`programs` by source: who reads its pictures."""
        self._programs, self._workbench = programs, workbench

    async def validate(self, target: Target, picture: Picture, written: Written) -> Rejection | None:
        """What is wrong with it, if anything."""
        return await self._workbench.do(trouble, self._programs[target.source], picture, target.knobs, written)
