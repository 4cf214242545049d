r"""Right or wrong, by the kind of answer. Pure functions of text; the model's words are data and are never run.

A grader is strict about the answer and lenient about its dress: case, spaces, punctuation at the ends, `Answer:` in
front, `\boxed{}` around.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

from dpe_api.artifacts import AnswerType

NUMBER_TOLERANCE = 1e-4  # relative, and absolute around zero
_EDGES = " \t\r\n.,;:!?\"'`*_“”‘’«»。，！？：；"
_LEAD = re.compile(
    r"^(?:so,?\s+|therefore,?\s+)?(?:(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)\s*(?:is\b|:|=)\s*)+",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(
    r"(?:\A|\n|[.!?]\s)[*_ ]*(?:so,?\s+|therefore,?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?"
    r"answer[*_]*\s*(?:is\b|:|=)\s*([^\n]+)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.\d*|\.\d+)?(?:(?<=[\d.])[eE][-+]?\d+)?")
_FRACTION = re.compile(r"^([-+]?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)$")
_LETTER = re.compile(r"^[(\[]?([a-z])[)\]]?(?:$|[.):]|\s*[-–]\s)", re.IGNORECASE)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_UNITS = {word: float(value) for value, word in enumerate(_WORDS)}


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, single spaces, no punctuation at the ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(_EDGES)


def _boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, braces balanced; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position]
    return None


def final_answer(response: str) -> str:
    r"""What a response claims: inside <answer> or \boxed{}, after the last `answer is`/`Answer:`, else all of it."""
    tagged = _TAG.findall(response)
    if tagged:
        response = tagged[-1]
    boxed = _boxed(response)
    if boxed is not None:
        return boxed.strip()
    lines = _ANSWER_LINE.findall(response)
    return str(lines[-1]).strip() if lines else _LEAD.sub("", response.strip())


def _exact(response: str, answer: str) -> bool:
    return normalise(final_answer(response)) == normalise(answer)


def _first_word(text: str) -> str:
    words = re.findall(r"\w+(?:['’]\w+)?", normalise(text))
    return words[0] if words else ""


_ALTERNATIVE = re.compile(r"^\w+(?:\s*/\s*|\s+(?:and|or)\s+)(\w+)")  # "yes and no" claims nothing
_YES, _NO = frozenset({"yes", "true", "yeah", "yep"}), frozenset({"no", "false", "nope"})


def _polarity(text: str) -> bool | None:
    """True for yes, False for no, None for neither or both. Whole words only: `no` is not in `note` or `not`."""
    claim = normalise(final_answer(text))
    first = _first_word(claim)
    if first in _YES or first in _NO:
        said = first in _YES
        also = _ALTERNATIVE.match(claim)
        return None if also and also.group(1) in (_NO if said else _YES) else said
    words = set(re.findall(r"\w+", claim))
    yes, no = bool(words & {"yes", "true"}), bool(words & {"no", "false"})
    return None if yes == no else yes


def _yes_no(response: str, answer: str) -> bool:
    wanted = _polarity(answer)
    if wanted is None:
        raise ValueError(f"answer {answer!r} of a yes_no question is neither yes nor no")
    return _polarity(response) == wanted


def parse_number(text: str) -> float | None:
    """The only number in a text: digits with thousands separators, a fraction, a percentage, a word up to twenty.

    None when there is none, or when several different ones are named: a list of guesses is no answer.
    """
    # not normalise(): the point of ".5" is no punctuation
    claim = unicodedata.normalize("NFKC", text).casefold().replace("−", "-").replace("$", "").strip(" \t\r\n*_`\\")
    claim = claim.removesuffix(".")
    fraction = _FRACTION.match(claim)
    if fraction and float(fraction.group(2)) != 0:
        return float(fraction.group(1)) / float(fraction.group(2))
    found = {float(m.replace(",", "")) for m in _NUMBER.findall(claim) if any(c.isdigit() for c in m)}
    if not found:
        found = {_UNITS[w] for w in re.findall(r"[a-z]+", claim) if w in _UNITS}
    return found.pop() if len(found) == 1 else None


def _number(response: str, answer: str) -> bool:
    wanted = parse_number(answer)
    if wanted is None:
        raise ValueError(f"answer {answer!r} of a number question holds no single number")
    said = parse_number(final_answer(response))
    return said is not None and math.isclose(said, wanted, rel_tol=NUMBER_TOLERANCE, abs_tol=NUMBER_TOLERANCE)


def _choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Which choice a text names, by its own words first, then by letter; None when it names none or several."""
    claim = normalise(text)
    texts = [normalise(c) for c in choices]
    if claim in texts:
        return texts.index(claim)
    letter = _LETTER.match(claim)
    if letter and letter.group(1).upper() in ascii_uppercase[: len(choices)]:
        return ascii_uppercase.index(letter.group(1).upper())
    named = {i for i, c in enumerate(texts) if c and re.search(rf"(?<!\w){re.escape(c)}(?!\w)", claim)}
    # "dark red" names "dark red", not also "red"
    named = {i for i in named if not any(i != j and texts[i] in texts[j] for j in named)}
    return named.pop() if len(named) == 1 else None


def _choice(response: str, answer: str, choices: Sequence[str]) -> bool:
    if not choices:
        return _exact(response, answer)
    wanted = _choice_index(answer, choices)
    if wanted is None:
        raise ValueError(f"answer {answer!r} is none of the choices {list(choices)}")
    return _choice_index(final_answer(response), choices) == wanted


def _maths(response: str, answer: str) -> bool:
    """Symbolic equality by math-verify; equal text needs no parser."""
    if _exact(response, answer):
        return True
    from math_verify import parse, verify  # imports sympy: a second that other graders need not pay

    # their timeouts use SIGALRM, which only the main thread has
    gold = parse(f"${answer.strip().strip('$')}$", parsing_timeout=None)
    said = parse(response, parsing_timeout=None)
    return bool(gold and said and verify(gold, said, timeout_seconds=None))


def grade(response: str, answer: str, answer_type: AnswerType, choices: Sequence[str] = ()) -> bool:
    """Whether a response is right. ValueError when the reference answer itself does not fit its type."""
    match answer_type:
        case AnswerType.EXACT:
            return _exact(response, answer)
        case AnswerType.CHOICE:
            return _choice(response, answer, choices)
        case AnswerType.NUMBER:
            return _number(response, answer)
        case AnswerType.YES_NO:
            return _yes_no(response, answer)
        case AnswerType.MATHS:
            return _maths(response, answer)
