"""Checks of what was written: readable, in an allowed language, and an answer of its own type. Pure functions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.roles import Rejection
from dpe_jobs.graders import check
from dpe_jobs.runtime import BadConfig

LONGEST_QUESTION = 4000  # characters
LONGEST_ANSWER = 1000
MOST_CHOICES = 26  # they are lettered
SURE = 0.8  # probability from which on a language is believed
ENOUGH = 30  # letters that a text needs for its language to be told from words
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?(?:image|img|video|s|unk|pad|think|tool_call)>", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_UNSEEN = ("Cc", "Co", "Cs", "Cn")  # control, private, surrogate and unassigned characters
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they show a text in another order
_SCRIPTS = {
    "ARABIC": "ar fa ps ug ur",
    "ARMENIAN": "hy",
    "BENGALI": "as bn",
    "CJK": "ja ko zh",
    "CYRILLIC": "be bg kk ky mk mn ru sr uk",
    "DEVANAGARI": "hi mr ne",
    "ETHIOPIC": "am",
    "GEORGIAN": "ka",
    "GREEK": "el",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KATAKANA": "ja",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "TIBETAN": "dz",
}
"""Scripts, as Unicode's names of characters begin, and the languages that are written in them; others are in Latin."""
_ALSO_LATIN = ("sr",)


def _scripts(language: str) -> set[str]:
    found = {script for script, languages in _SCRIPTS.items() if language in languages.split()}
    return found | {"LATIN"} if not found or language in _ALSO_LATIN else found


def readable(question: str, choices: Sequence[str] = ()) -> Rejection | None:
    """`Unreadable` when a person could not read a question, or a model's template would read something else."""
    for name, text in (("question", question), *(("option", choice) for choice in choices)):
        trouble = _trouble(text, LONGEST_QUESTION)
        if trouble is not None:
            return Rejection("Unreadable", f"the {name} {trouble}: {text[:80]!r}")
    if not any(c.isalpha() for c in question):
        return Rejection("Unreadable", f"the question has no letters: {question[:80]!r}")
    words = [word.casefold() for word in _WORD.findall(question)]
    if len(words) >= 12:
        word, times = Counter(words).most_common(1)[0]
        if times > len(words) / 2:
            return Rejection("Unreadable", f"the question says {word!r} {times} times: {question[:80]!r}")
    return None


def _trouble(text: str, longest: int) -> str | None:
    if not text.strip():
        return "is empty"
    if len(text) > longest:
        return f"has {len(text)} characters, more than {longest}"
    special = _SPECIAL.search(text)
    if special is not None:
        return f"holds {special.group()!r}, which a model's template takes for a mark of its own"
    for c in text:
        if c == "\ufffd" or c in _TURNING or (unicodedata.category(c) in _UNSEEN and c not in "\n\t"):
            return f"holds the character U+{ord(c):04X}"
    return None


def fitting(answer: str, answer_type: AnswerType, choices: Sequence[str]) -> Rejection | None:
    """`AnswerType` when an answer is not what its type says, or would be graded wrong if a model gave it."""
    trouble = _trouble(answer, LONGEST_ANSWER)
    if trouble is not None:
        return Rejection("AnswerType", f"the answer {trouble}: {answer[:80]!r}")
    if answer_type is AnswerType.CHOICE and not 2 <= len(choices) <= MOST_CHOICES:
        return Rejection("AnswerType", f"a choice of {len(choices)} options: it takes 2 to {MOST_CHOICES}")
    if len({choice.strip().casefold() for choice in choices}) < len(choices):
        return Rejection("AnswerType", f"two options are the same: {', '.join(choices)[:200]}")
    try:
        check(answer, answer_type, choices)
    except ValueError as error:
        return Rejection("AnswerType", str(error))
    return None


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_languages(languages: Collection[str]) -> None:
    """BadConfig when one of them cannot be told from others."""
    unknown = sorted(set(languages) - set(_identifier().labels))
    if unknown:
        known = ", ".join(sorted(_identifier().labels))
        raise BadConfig(
            "UnknownLanguage",
            f"spec.generation.quality.languages: {', '.join(unknown)} cannot be told; those that can are {known}",
        )


def language(text: str, allowed: Collection[str]) -> Rejection | None:
    """`Language` when a text is surely in none of the allowed languages (ISO 639-1).

    Words tell the language of a text of some length only: a shorter one is judged by its script, so that `Welche
    Farbe?` passes for English, and `какой цвет` does not.
    """
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return None
    script = Counter(unicodedata.name(c, "unnamed").split()[0] for c in letters).most_common(1)[0][0]
    if not any(script in _scripts(code) for code in allowed):
        return Rejection("Language", f"it is written in {script.title()} letters: {text[:80]!r}")
    if len(letters) < ENOUGH:
        return None
    code, probability = _identifier().classify(text)
    if code in allowed or probability < SURE:
        return None
    return Rejection("Language", f"it is {code} with probability {probability:.2f}: {text[:80]!r}")
