r"""Right or wrong, by the kind of answer. Pure functions of text; the model's words are data and are never run.

A grader is strict about the answer and lenient about its dress: case, spaces, punctuation at the ends, `Answer:` in
front, `\boxed{}` around. docs/grading.md has the rules of each kind.
"""

from collections.abc import Sequence

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import choice, exact, listing, maths, number, yes_no
from dpe_jobs.graders.number import parse_number
from dpe_jobs.graders.text import final_answer, normalise

__all__ = ["NEEDS_JUDGE", "check", "claim", "final_answer", "grade", "is_programmatic", "normalise", "parse_number"]

NEEDS_JUDGE = frozenset({AnswerType.JUDGE})
"""Kinds that an endpoint grades (diagnosis.judge)."""


def is_programmatic(kind: AnswerType) -> bool:
    """Whether `grade` can tell right from wrong by itself."""
    return kind not in NEEDS_JUDGE


def check(answer: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> None:
    """ValueError when a reference answer does not fit its type, or would be graded wrong if it were given."""
    if not is_programmatic(answer_type):
        if not answer.strip():
            raise ValueError("the answer is empty: a judge has nothing to compare with")
    elif not grade(answer, answer, answer_type, choices):
        raise ValueError(f"answer {answer!r}, given as a response, would be graded wrong as {answer_type}")


def grade(response: str, answer: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> bool:
    """Whether a response is right. ValueError when the reference does not fit its type, or needs a judge."""
    match answer_type:
        case AnswerType.EXACT:
            return exact.grade(response, answer)
        case AnswerType.CHOICE:
            return choice.grade(response, answer, choices)
        case AnswerType.NUMBER:
            return number.grade(response, answer)
        case AnswerType.YES_NO:
            return yes_no.grade(response, answer)
        case AnswerType.MATHS:
            return maths.grade(response, answer)
        case AnswerType.LIST:
            return listing.grade(response, answer)
        case AnswerType.JUDGE:
            raise ValueError("answer_type judge is graded by an endpoint: name it in spec.diagnosis.judge.endpoint")


def claim(response: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> str | None:
    """The answer that a response gives, in the form that equal answers share; None when it gives none, or several."""
    match answer_type:
        case AnswerType.EXACT | AnswerType.JUDGE:
            return exact.claim(response)
        case AnswerType.CHOICE:
            return choice.claim(response, choices)
        case AnswerType.NUMBER:
            return number.claim(response)
        case AnswerType.YES_NO:
            return yes_no.claim(response)
        case AnswerType.MATHS:
            return maths.claim(response)
        case AnswerType.LIST:
            return listing.claim(response)
