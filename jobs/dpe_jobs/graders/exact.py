"""Texts that must be equal, whatever their dress."""

import re

from dpe_jobs.graders.text import extract, normalise, plain, refuses, sentences, without_article, without_lead_in
from dpe_jobs.graders.words import digits_of

_FRACTION = re.compile(r"\\[dt]?frac\s?\{(\d{1,9})\}\s?\{(\d{1,9})\}")
EXPLAINS = 4  # words that make a sentence an explanation, and not another guess


def fold(text: str) -> str:
    """A text as two equal answers share it: normalised, no article, `three` as 3, no commas in numbers."""
    folded = without_article(normalise(_FRACTION.sub(r"\1/\2", plain(text))))
    return digits_of(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded))


def _before_explanation(text: str, said: bool) -> str:
    """The first sentence, when more sentences only explain it."""
    parts = sentences(text)
    explained = len(parts) > 1 and (said or all(len(p.split()) >= EXPLAINS for p in parts[1:]))
    return parts[0] if explained else text


def readings(response: str) -> list[str]:
    """What a response may mean, folded; the shortest last. Empty when it says nothing."""
    text, said = extract(response)
    text = plain(text)
    first = _before_explanation(text, said)
    found = [fold(t) for t in (text, without_lead_in(text), first, without_lead_in(first))]
    return [t for t in dict.fromkeys(found) if t]


def claim(response: str) -> str | None:
    """The text that a response gives."""
    text, _ = extract(response)
    found = readings(response)
    return None if not found or refuses(text) else found[-1]


def grade(response: str, answer: str) -> bool:
    """Whether one reading of the response is the answer."""
    return fold(answer) in readings(response)
