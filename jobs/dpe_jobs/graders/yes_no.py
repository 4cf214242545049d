"""Yes or no. Whole words only: `no` is not in `note`, `not`, `none`, `know`."""

import re
from collections.abc import Sequence

from dpe_jobs.graders.text import extract, normalise, plain, refuses, sentences, without_lead_in, without_opener

_YES = frozenset({"yes", "true", "yeah", "yep", "correct", "是", "是的", "对", "正确"})
_NO = frozenset({"no", "false", "nope", "incorrect", "否", "不", "不是", "没有", "错", "错误"})
_ALTERNATIVE = re.compile(r"\A\w+(?:\s*/\s*|\s+(?:and|or)\s+)(\w+)")  # "yes and no" claims nothing
_QUANTIFIES = re.compile(  # `no lamp`, not `no it is off`
    r"\Ano\s+(?!(?:it|its|there|this|that|these|those|they|he|she|we|i|you|the|because|since|as|not|but|wait)\b)\w"
)
_FIRST = re.compile(r"\w+(?:['’]\w+)?")
_IDIOM = re.compile(r"\bno (?:doubt|question|problem|matter|idea|way to|information|answer|clear|sign of whether)\b")
_SUPPOSED = re.compile(r"\b(?:if|whether|unless)\b[^,.]*")
_DENIED = re.compile(r"\b(?:not|isn['’]t|never)\s+(?:\w+\s+)?(?:true|correct|yes)\b")


def _leading(claim: str) -> bool | None:
    """What the first word says, unless the next words take it back."""
    first = _FIRST.search(claim)
    word = first[0] if first else ""
    if word not in _YES | _NO or _IDIOM.match(claim):
        return None
    also = _ALTERNATIVE.match(claim)
    return None if also and also[1] in (_NO if word in _YES else _YES) else word in _YES


def _outright(claims: list[str]) -> set[bool]:
    """What claims begin with, each with its opener and without, where that is no mere `no lamp`."""
    readings = (reading for claim in claims for reading in (claim, without_opener(claim)))
    return {said for reading in readings if (said := _leading(reading)) is not None and not _QUANTIFIES.match(reading)}


def outright(text: str) -> bool | None:
    """What sentences of a text begin with: `Yes, ...`, `So no.`, but not `No lamp is lit`. None: nothing, or both."""
    said = _outright([normalise(plain(part)) for part in sentences(extract(text)[0])])
    return said.pop() if len(said) == 1 else None


def polarity(text: str) -> bool | None:
    """True for yes, False for no, None for neither or both."""
    body, _ = extract(text)
    claim = normalise(plain(body))
    if _ALTERNATIVE.match(claim) and _leading(claim) is None:
        return None
    parts = [normalise(plain(part)) for part in sentences(body)]
    # `So no.` takes a `Yes.` back; `There is no lamp` and `So no lamp is lit` explain one, and say no where none is
    first = _outright(parts) | {said for part in parts if (said := _leading(part)) is not None}
    for leading in (first, {said for part in parts if (said := _leading(without_lead_in(part))) is not None}):
        if leading:
            return leading.pop() if len(leading) == 1 else None
    if refuses(claim):
        return None
    if _DENIED.search(claim):
        return False
    words = set(re.findall(r"\w+", _SUPPOSED.sub("", _IDIOM.sub("", claim))))
    yes, no = bool(words & {"yes", "true"}), bool(words & {"no", "false"})
    return None if yes == no else yes


def options(choices: Sequence[str]) -> dict[bool, int] | None:
    """Which of two options is the yes and which the no; None when they are something else."""
    words = [normalise(choice) for choice in choices]
    sides = {word in _YES: place for place, word in enumerate(words) if word in _YES | _NO}
    return sides if len(sides) == len(words) == 2 else None


def claim(response: str) -> str | None:
    """yes, no or None."""
    said = polarity(response)
    return None if said is None else "yes" if said else "no"


def grade(response: str, answer: str) -> bool:
    """ValueError when the answer itself is neither."""
    wanted = polarity(answer)
    if wanted is None:
        raise ValueError(f"answer {answer!r} of a yes_no question is neither yes nor no")
    return polarity(response) == wanted
