"""The programmatic validator: is a question well put and on target, and does a second look find the same answer?"""

import re
from collections.abc import Mapping

from PIL import Image

from dpe_jobs.generation.render import Generator
from dpe_jobs.generation.writer import Written
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
    return None


def trouble(
    program: Generator, image: Image.Image, knobs: Mapping[str, str], facts: Mapping[str, str], written: Written
) -> tuple[str, str] | None:
    """Reason and detail of a rejection, or None. The answer is found anew, blind to the proposed one, then compared."""
    if detail := off_target(knobs, facts):
        return "OffTarget", detail
    if detail := malformed(written):
        return "Malformed", detail
    try:
        blind = program.answer(image, written.question)
    except ValueError as error:
        return "Unanswerable", str(error)
    if not grade(blind, written.answer, written.answer_type):
        return "WrongAnswer", f"proposed {written.answer!r}, a second look says {blind!r}"
    return None
