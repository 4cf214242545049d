r"""Numbers with tolerance and units.

A response must name one number. A range, a bound (`more than 5`), several different numbers or an expression name none.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from dpe_jobs.graders import units
from dpe_jobs.graders.text import concludes, extract, plain, sentences
from dpe_jobs.graders.words import SCALES, SPELLED, spelled

TOLERANCE = 1e-4  # relative, and absolute where the reference is 0; the reference may name another: 5.2 ± 0.1
CONVERTED_TOLERANCE = 5e-3  # relative, of a number in another unit: who converts, rounds
LONGEST_DIGITS = 300  # a longer number is no answer; float() of it would be infinite

_ENDLESS = re.compile(rf"\d{{{LONGEST_DIGITS + 1}}}")

_LATEX = [
    (re.compile(r"\\[dt]?frac\s*\{\s*([-+]?[\d.,]{1,30})\s*\}\s*\{\s*([\d.,]{1,30})\s*\}"), r" \1/\2 "),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r" \1/\2 "),
    (re.compile(r"\{,\}|\\!"), ","),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\deg(?![a-z])|\\textdegree"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"\\(?:approx|simeq)"), "≈"),
    (re.compile(r"\\pm"), "±"),
    (re.compile(r"\\sim"), "~"),
    (re.compile(r"\\(?:leq?|geq?|lt|gt)(?![a-z])"), "≤"),
    (re.compile(r"\\[(\[)\],;: ]|\\q?quad|\\left|\\right|~(?=\D)"), " "),
]
_MATHS = re.compile(r"(?<!\\)\$([^$\n]*)\$")
_NAKED_GROUP = re.compile(r"\{([^{}]*)\}")
_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_TO_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_THIN = re.compile("(?<=\\d)[\u00a0\u2009\u202f'’](?=\\d{3}(?!\\d))")
_SPACED = re.compile(r"\A([-+]?\d{1,3}(?: \d{3})+)(?=\D{0,20}\Z|\.\d)")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+|\d+),(\d{1,2}|\d{4,9})(?![\d,]|\.\d)")
_TOP = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_CURRENCY = r"[$€£¥₹₩]|\b(?:us\$|usd|eur|gbp|rmb|cny|rs\.?)(?=\s?\d)"
_NUMBER = re.compile(
    rf"(?P<money>{_CURRENCY})?\s?(?P<sign>(?<![\w.)])[-+])?\s?(?P<money2>{_CURRENCY})?"
    rf"(?<![\w.^])(?:(?P<mixed>\d+)[\s-](?=\d+/\d))?(?P<top>{_TOP})"
    r"(?:\s?/\s?(?P<bottom>\d+(?:\.\d+)?)(?![\d/]))?"
    r"(?:e(?P<exp>[-+]?\d{1,4})(?!\w)|\s?(?:×|x|\*)\s?10\s?(?:\^|\*\*)\s?\(?(?P<exp10>[-+]?\d{1,4})\)?)?"
    r"(?P<ten>(?<=10)\s?(?:\^|\*\*)\s?\(?[-+]?\d{1,4}\)?)?"
    r"(?:(?:st|nd|rd|th)\b)?"
    rf"(?:\s?(?P<scale>{'|'.join(SCALES)}|[万亿])\b)?",
    re.IGNORECASE,
)
_POWER_OF_TEN = re.compile(
    r"(?<=[\d.])e[-+]?\d{1,4}(?!\w)|(?:(?<=\d)\s?[×x*]\s?)?(?<![\d.])10\s?(?:\^|\*\*)\s?\(?[-+]?\d{1,4}\)?",
    re.IGNORECASE,
)
_HAN = {"万": 10**4, "亿": 10**8}
_FIGURE = rf"[$€£¥₹]?\s?(?:{_TOP})\s?[%°\w]{{0,12}}"
_RANGE = re.compile(
    rf"{_FIGURE}\s*(?:-|–|—|~|\bto\b|\bor\b)\s*[$€£¥₹]?\s?\d|\bbetween\s+[$€£¥₹]?\d|±|\+/-|\d\s*:\s*\d", re.IGNORECASE
)
_BOUND = re.compile(
    r"(?:[<>≤≥]|\b(?:more|less|fewer|greater|larger|smaller|higher|lower) than|\bat (?:least|most)|\bover|\bunder"
    r"|\babove|\bbelow|\bup to|\bnot)\s*[$€£¥₹]?\s?[-+]?\.?\d|\d\s?\+(?!\s?[\d/])",
    re.IGNORECASE,
)
_OPERATED = re.compile(r"[√π∞]|\bpi\b|\bsqrt\b|\\[a-zA-Z]|\d\s*\^|\d\s*!(?!\w)|\d\s*[+*×÷]\s*\d|/\s*\d+\s*/")
_NONE = re.compile(
    r"\A(?:none|nil)\Z|\A(?:there (?:is|are)|i (?:can )?see) (?:no|none|not any|zero)\b(?! (?:way|doubt|info))"
)
_PARTS = re.compile(r"(?:(an?|one|two|three)[ -])?(half|thirds?|quarters?|dozen)")
_ONE = re.compile(
    r"(?:\A|\b(?:is|are|be|only|just|exactly|has|have|see|shows?|contains?|with|equals|and|about)\s|[:=]\s?)\Z"
)
_TOLERANCE = re.compile(r"\s?(?:±|\+/-|\\pm)\s?(\d+(?:\.\d+)?|\.\d+)\s*(%?)")
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*")
_STATES = re.compile(r"\b(?:is|are|has|have|see|contains?|shows?|total)\b[^.]*\d", re.IGNORECASE)
_IS = re.compile(
    r"\b(?:is|was|are|were|equals|reached)\s+(?:about |approximately |only |just |exactly )?(?=[$€£¥₹(]?\s?[-+]?\.?\d)"
)
_TOTALS = re.compile(
    r"\b(?:giv(?:es?|ing)(?: us)?|mak(?:es?|ing)|equals?|total(?:s|ing)?(?: is| of|:)?|result(?:s|ing) in|which is)\s+",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\s*(\d{1,2})[.)]\s+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it was written, and what stands behind it."""

    value: float
    unit: str | None = None
    """As written; a currency by its code. None where nothing follows that may be a unit."""
    attached: bool = False
    """Whether the unit follows without a space: 300K is 300 thousand, 300 K may be a temperature."""


def _prepare(text: str) -> str:
    """One line of plain figures: no LaTeX, no markdown, ASCII digits and signs."""
    text = _MATHS.sub(r" \1 ", plain(text))
    for pattern, plainly in _LATEX:
        text = pattern.sub(plainly, text)
    text = text.replace("\\$", "$")
    for _ in range(3):
        text = _NAKED_GROUP.sub(r"(\1)" if "^{" in text else r"\1", text)
    text = _SUPERSCRIPT.sub(lambda m: "^" + m[0].translate(_TO_DIGITS), text)
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
    text = unicodedata.normalize("NFKC", _THIN.sub("", text)).replace("⁄", "/")
    text = " ".join(text.replace("−", "-").replace("–", "–").split())
    text = re.sub(r"\b(?:minus|negative) (?=\d)", "-", text, flags=re.IGNORECASE)
    text = _SPACED.sub(lambda m: m[1].replace(" ", ""), text)
    return _DECIMAL_COMMA.sub(lambda m: f"{m[1].replace('.', '')}.{m[2]}", text).strip(" \t*_`\"'“”!")


def _value(match: re.Match[str]) -> float | None:
    top = match["top"].replace(",", "")
    if len(top) > LONGEST_DIGITS:
        return None
    value = float(top)
    if match["bottom"]:
        bottom = float(match["bottom"])
        if bottom == 0:
            return None
        value /= bottom
    if match["mixed"]:
        value += float(match["mixed"][:LONGEST_DIGITS])
    exponent = match["exp"] or match["exp10"]
    if match["ten"]:
        exponent, value = re.sub(r"[^-\d]", "", match["ten"]), value / 10
    if exponent:
        value = value * 10.0 ** int(exponent) if abs(int(exponent)) <= LONGEST_DIGITS else math.inf
    if match["scale"]:
        value *= SCALES.get(match["scale"].lower()) or _HAN[match["scale"]]
    return -value if match["sign"] == "-" else value


def _quantities(text: str) -> Iterator[Quantity | None]:
    """What a prepared text names, in order; None for a number that cannot be read."""
    end = 0
    for match in _NUMBER.finditer(text):
        if match.start("top") < end:
            continue
        value = _value(match)
        if value is None or not math.isfinite(value):
            yield None
            continue
        money = match["money"] or match["money2"]
        unit, width = units.written_at(text, match.end())
        end = match.end() + width
        attached = bool(unit) and not text[match.end()].isspace()
        if money:
            suffix = unit if attached and unit in units.SUFFIXES else None
            yield Quantity(value * units.SUFFIXES.get(suffix or "", 1), units.currency(money))
        else:
            yield Quantity(value, unit, attached)


def _in_words(text: str) -> Iterator[Quantity | None]:
    lower = text.casefold()
    if _NONE.match(lower.strip(" .!")):
        yield Quantity(0.0)
        return
    if part := _PARTS.fullmatch(lower.strip(" .!")):
        times = {"two": 2, "three": 3}.get(part[1], 1)
        yield Quantity(float(times) * {"h": 1 / 2, "t": 1 / 3, "q": 1 / 4, "d": 12}[part[2][0]])
        return
    for match in SPELLED.finditer(lower):
        if match[0] == "one" and not _ONE.search(lower, max(0, match.start() - 12), match.start()):
            continue  # "the red one"
        value = spelled(match[0])
        unit, _ = units.written_at(text, match.end())
        yield None if value is None else Quantity(float(value), unit)


def _single(text: str) -> Quantity | None:
    """The only quantity of a prepared text."""
    if _ENDLESS.search(text):
        return None
    bare = _POWER_OF_TEN.sub("", text)
    if _RANGE.search(bare) or _BOUND.search(bare) or _OPERATED.search(bare):
        return None
    found = list(_quantities(text)) or list(_in_words(text))
    if not found or found[0] is None or any(q is None or q.value != found[0].value for q in found):
        return None
    return next((q for q in found if q is not None and q.unit), found[0])


def read(text: str) -> Quantity | None:
    """The one quantity that a text names: after the last `=`, before a bracket, else anywhere in it."""
    bare = _prepare(text)
    if _single(bare) is None and re.search(r"[=≈]", bare):
        bare = re.split(r"[=≈]", bare)[-1]
    if (found := _single(bare)) is not None:
        return found
    head, bracket, _ = bare.partition(" (")
    if bracket and re.search(r"\d", head):
        return _single(head)
    head, colon, _ = bare.partition(": ")
    return _single(head) if colon and _STATES.search(head) else None


def _is_bare(text: str) -> bool:
    """Whether a text is a quantity and hardly anything else."""
    return len(re.findall(r"[^\W\d]+", plain(text))) <= 2


def _agreed(found: list[Quantity]) -> Quantity | None:
    return found[0] if found and all(q.value == found[0].value for q in found) else None


def claimed(response: str) -> Quantity | None:
    """The quantity that a response gives; None when it gives none or several."""
    text, said = extract(response)
    if not said and [int(m[1]) for m in _LISTED.finditer(text)][:2] in ([1], [1, 2]):
        text = _LISTED.sub("", text)  # "1. Look at the bars." counts nothing
    if (found := read(text)) is not None:
        return found
    parts = sentences(text)
    if said and parts and (found := read(parts[0])) is not None:
        return found
    bare = [q for part in parts if _is_bare(part) and (q := read(part)) is not None]
    bold = [q for m in _BOLD.finditer(text) if _is_bare(m[1]) and ":" not in m[1] and (q := read(m[1])) is not None]
    for sure in (bare, bold):
        if sure:
            return _agreed(sure)
    if (
        len(parts) == 1
        and len(said_to_be := _IS.split(_prepare(text))) == 2
        and (found := read(said_to_be[1])) is not None
    ):
        return found  # "The value of 2019 was 42."
    drawn = next((q for part in reversed(parts) if concludes(part) and (q := read(part)) is not None), None)
    if drawn is not None:
        return drawn
    totals = [
        q
        for m in _TOTALS.finditer(text)
        if (q := read(re.split(r"[.,;:](?!\d)", text[m.end() :], maxsplit=1)[0])) is not None
    ]
    return totals[-1] if totals else None


def parse_number(text: str) -> float | None:
    """The only number in a text: thousands separators, fraction, percentage, power of ten, words.

    None when there is none, or when several different ones are named: a list of guesses is no answer.
    """
    found = read(text)
    return None if found is None else found.value


def reference(answer: str) -> tuple[Quantity, float | None]:
    """The quantity of a reference, and the absolute tolerance that it names, if any. ValueError when it has none."""
    named = _TOLERANCE.search(answer)
    found = read(_TOLERANCE.sub("", answer))
    if found is None:
        raise ValueError(f"answer {answer!r} of a number question holds no single number")
    if named is None:
        return found, None
    return found, float(named[1]) * (abs(found.value) / 100 if named[2] else 1)


def _close(said: float, wanted: float, absolute: float | None, relative: float = TOLERANCE) -> bool:
    if absolute is not None:
        return abs(said - wanted) <= absolute * (1 + 1e-9)
    if said.is_integer() and wanted.is_integer() and relative == TOLERANCE:
        return said == wanted  # who counts 12346 of 12345 is wrong
    return abs(said - wanted) <= relative * (abs(wanted) or 1)


def _same(said: Quantity, wanted: Quantity, absolute: float | None) -> bool:
    if units.is_percent(said.unit) or units.is_percent(wanted.unit):
        if said.unit and wanted.unit and not (units.is_percent(said.unit) and units.is_percent(wanted.unit)):
            return not units.known(said.unit if units.is_percent(wanted.unit) else wanted.unit) and _close(
                said.value, wanted.value, absolute
            )
        share = said.value / 100 if units.is_percent(said.unit) else said.value * 100
        either = _close(said.value, wanted.value, absolute)
        both = units.is_percent(said.unit) and units.is_percent(wanted.unit)  # `percent` and `%` are the same
        return either or (not both and _close(share, wanted.value, absolute))
    if not said.unit or not wanted.unit or units.alike(said.unit, wanted.unit):
        return _close(said.value, wanted.value, absolute)
    if not units.known(wanted.unit) or not units.known(said.unit):
        return _close(said.value, wanted.value, absolute)
    converted = units.convert(said.value, said.unit, wanted.unit)
    return converted is not None and _close(converted, wanted.value, absolute, CONVERTED_TOLERANCE)


def _readings(quantity: Quantity) -> Iterator[Quantity]:
    """300K as 300 thousand, and as 300 kelvin."""
    yield quantity
    if quantity.unit in units.SUFFIXES:
        yield Quantity(quantity.value * units.SUFFIXES[quantity.unit])


def _meant(quantity: Quantity) -> Quantity:
    """How a reference is read: with a space it is a unit, without one a factor."""
    if quantity.attached and quantity.unit in units.SUFFIXES:
        return Quantity(quantity.value * units.SUFFIXES[quantity.unit])
    return quantity


def claim(response: str) -> str | None:
    """The quantity that a response gives, as text: `12`, `0.5 cm`, `40 %`."""
    found = claimed(response) or claimed(_TOLERANCE.sub("", response))
    if found is None:
        return None
    found = _meant(found)
    number = str(int(found.value)) if found.value.is_integer() and abs(found.value) < 1e15 else repr(found.value)
    return f"{number} {units.name(found.unit)}" if found.unit and units.known(found.unit) else number


def grade(response: str, answer: str) -> bool:
    """ValueError when the reference holds no single number."""
    wanted, absolute = reference(answer)
    wanted = _meant(wanted)
    said = claimed(response if absolute is None else _TOLERANCE.sub("", response))
    return said is not None and any(_same(reading, wanted, absolute) for reading in _readings(said))
