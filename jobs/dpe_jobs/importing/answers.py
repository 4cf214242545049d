"""What kind of answer a row has, when it does not say so; and which choice its answer means. docs/probes.md."""

import ast
import json
import re
from collections.abc import Sequence
from enum import StrEnum
from string import ascii_uppercase
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import check, grade, is_programmatic, normalise
from dpe_jobs.graders.exact import fold

EXACT_WORDS = 8

_NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d{0,14}|[1-9]\d{0,2}(?:,\d{3})+)?(?:\.\d+)?%?")  # 007 is a code, not seven
_MATHS = re.compile(r"\\[a-zA-Z]+|\$[^$]+\$|\w\^[\w{(]")
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_LISTED = re.compile(r"^\s*[(\[]?([A-Z])[)\].:]\s*(\S.*?)\s*$", re.MULTILINE)


class AnswerIs(StrEnum):
    """How the answer of a multiple-choice row names the choice."""

    TEXT = "text"
    LETTER = "letter"
    INDEX = "index"


def infer(answer: str, choices: Sequence[str]) -> AnswerType:
    """The kind of an answer, by its looks: the first rule that fits.

    Choices: choice. Yes or no alone: yes_no. Nothing but a number, or a percentage: number. LaTeX or a power: maths.
    More than 8 words: judge, for no model will choose the same ones. Else exact.
    """
    if choices:
        return AnswerType.CHOICE
    claim = answer.strip()
    if normalise(claim) in ("yes", "no"):
        return AnswerType.YES_NO
    if any(c.isdigit() for c in claim) and _NUMBER.fullmatch(claim):
        return AnswerType.NUMBER
    if _MATHS.search(claim):
        return AnswerType.MATHS
    return AnswerType.JUDGE if len(claim.split()) > EXACT_WORDS else AnswerType.EXACT


def misfit(answer: str, kind: AnswerType, choices: Sequence[str]) -> str | None:
    """Why a reference answer cannot be graded as its kind; None when it can."""
    try:
        check(answer, kind, choices)
    except ValueError as error:
        return str(error)
    if not is_programmatic(kind) or choices or grade(answer, answer, kind):  # a choice may be named by its letter
        return None
    return f"{answer[:100]!r} given as an answer would be graded wrong as {kind}"


def listed_choices(question: str, answer: str) -> tuple[str, ...]:
    """Choices that a question lists in lines `A. ...`, when its answer is one of those letters; else none."""
    found = _LISTED.findall(question)
    letters = "".join(letter for letter, _ in found)
    if len(found) < 2 or letters != ascii_uppercase[: len(found)] or answer.strip() not in tuple(letters):
        return ()
    return tuple(text for _, text in found)


def read_list(value: Any) -> list[Any]:
    """A list, or the text of one in JSON or Python ("['a', 'b']"); a mapping A, B, C ... counts as its values.

    ValueError for anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            try:
                value = ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
                raise ValueError("neither a list nor the text of one") from error
    if isinstance(value, dict):
        if list(value) != list(ascii_uppercase[: len(value)]):
            raise ValueError("a mapping whose keys are not A, B, C ...")
        value = list(value.values())
        while value and value[-1] is None:  # a struct has the letters of the longest row
            value.pop()
    if not isinstance(value, list | tuple):
        raise ValueError("not a list")
    return list(value)


def check_choices(choices: Sequence[str]) -> None:
    """ValueError unless there are at least two, none empty and no two alike to the grader."""
    if len(choices) < 2:
        raise ValueError("a single choice")
    seen: dict[str, int] = {}
    for place, choice in enumerate(choices):
        if not choice.strip():
            raise ValueError(f"choice {ascii_uppercase[place % 26]} is empty")
        claim = fold(choice) or choice
        if claim in seen:
            raise ValueError(f"choices {ascii_uppercase[seen[claim] % 26]} and {ascii_uppercase[place % 26]} are alike")
        seen[claim] = place


def _by_letter(answer: str, choices: Sequence[str]) -> int | None:
    letter = _LETTER.fullmatch(answer.strip())
    index = ascii_uppercase.index(letter[1].upper()) if letter else len(choices)
    return index if index < len(choices) else None


def _by_text(answer: str, choices: Sequence[str]) -> int | None:
    exact = [i for i, c in enumerate(choices) if c == answer]
    alike = exact or [i for i, c in enumerate(choices) if normalise(c) == normalise(answer)]
    return alike[0] if len(alike) == 1 else None


def choose(answer: Any, choices: Sequence[str], means: AnswerIs | None, *, letters_first: bool) -> str:
    """The choice that an answer means, as its text. ValueError when it means none, or may mean two.

    A number is an index from 0, unless `means` says otherwise. A text that is a letter of one choice and the text of
    another is refused, unless letters come first, as in VLMEvalKit's files.
    """
    if means is AnswerIs.INDEX or (means is None and isinstance(answer, int)):
        try:
            index = int(answer)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{answer!r} is no index from 0") from error
        if not 0 <= index < len(choices):
            raise ValueError(f"index {index} is outside 0..{len(choices) - 1}")
        return choices[index]
    said = str(answer)
    letter = None if means is AnswerIs.TEXT else _by_letter(said, choices)
    text = None if means is AnswerIs.LETTER else _by_text(said, choices)
    if letter is not None and text is not None and letter != text and not letters_first:
        raise ValueError(f"{said!r} is the letter of one choice and the text of another: say which with --answer-is")
    chosen = letter if letter is not None else text
    if chosen is None:
        raise ValueError(f"{said[:100]!r} is none of the {len(choices)} choices")
    return choices[chosen]
