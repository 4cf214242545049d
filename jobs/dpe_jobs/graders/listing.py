"""Lists: the same items, in any order unless the reference says `ordered:` or joins them by arrows."""

import json
import re
from collections import Counter

from dpe_jobs.graders import exact
from dpe_jobs.graders.number import parse_number
from dpe_jobs.graders.text import extract, plain, sentences, without_lead_in

_ORDERED = re.compile(r"\A\s*(?:in order|ordered)\s*:\s*", re.IGNORECASE)
_ARROW = re.compile(r"\s*(?:->|→|⟶|=>|\s>\s|＞)\s*")
_BULLET = re.compile(
    r"^[ \t]*(?:[-*•●▪–]|[(\[]?\d{1,3}[.)\]:、]|[(\[]?[a-z][.)])[ \t]+(?=\S)", re.MULTILINE | re.IGNORECASE
)
_INLINE = re.compile(r"(?:\A|(?<=\s))[(\[]?\d{1,2}[.)\]][ \t]+(?=\S)")
_AFTER_ITEM = re.compile(r"\s+[-–—]\s+|:\s|\s\(")  # "1. red: the top one"
_GROUPED = re.compile(r"\d,\d{3}(?!\d)")  # one number in thousands, or two of three digits: both are tried
_THOUSANDS = re.compile(r"[-+]?\d{1,2},\d{3}(?:\.\d+)?")  # `1,200`; but `120,340` and `50,100,150` may be several


def _separator(comma: str) -> re.Pattern[str]:
    return re.compile(
        rf"\s*(?:[;；、\n|]|{comma}|，)\s*(?:(?:and|or)\s+)?|\s+(?:and|&)\s+|(?<=[\u4e00-\u9fff])(?:和|与)(?=[\u4e00-\u9fff])",
        re.IGNORECASE,
    )


_SEPARATOR, _EVERY_COMMA = _separator(r",(?!\d{3}(?!\d))"), _separator(",")
_INTRODUCES = re.compile(
    r"\A[^,;、\n]{0,200}?(?::|\b(?:is|are|include|includes|following|contains|shows|see|has|have)\b:?)\s*(?=\S)",
    re.IGNORECASE,
)
_COLON = re.compile(r"\A[^:\n]{0,200}:\s*(?=\S)")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
MOST_ITEMS = 1000


def _item(text: str) -> str:
    """One item as equal items share it; numbers by value."""
    folded = exact.fold(text)
    number = parse_number(folded) if re.fullmatch(r"[-+]?[\d.,]{1,30}", folded) else None
    return folded if number is None else repr(number)


def _json(text: str) -> list[str] | None:
    if not text.startswith("[") or len(text) > 5000:
        return None
    for candidate in (text, text.replace("'", '"')):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(v, str | int | float) for v in found):
            return [str(v) for v in found]
    return None


def split(text: str, separator: re.Pattern[str] = _SEPARATOR) -> list[str]:
    """The items of a list as written: a JSON list, bullets or numbers, or by commas, semicolons, `and`."""
    text = plain(text)
    if (found := _json(text)) is not None:
        return found
    if text[:1] in _BRACKETS and text.endswith(_BRACKETS[text[0]]):
        text = text[1:-1]
    bullets = list(_BULLET.finditer(text))
    if len(bullets) > 1 or (bullets and not _INLINE.search(text[bullets[0].end() :])):
        lines = [text[m.end() :].split("\n", 1)[0] for m in bullets[: MOST_ITEMS + 1]]
        if len(lines) > 1 or not separator.search(lines[0]):
            return [_AFTER_ITEM.split(line, maxsplit=1)[0] for line in lines]
    inline = _INLINE.split(text)
    if len(inline) > 2:
        return [part.strip(" ,;\n") for part in inline[1:]]
    parts = _ARROW.split(text)
    if len(parts) < 2:
        parts = separator.split(text)
    return [re.sub(r"\A(?:and|or)\s+", "", part, flags=re.IGNORECASE) for part in parts][: MOST_ITEMS + 1]


def _items(text: str) -> list[tuple[str, ...]]:
    """The readings of a text that have items, the likelier one first: `100,200` is one number, or two."""
    separators = (_SEPARATOR, _EVERY_COMMA) if _GROUPED.search(text) else (_SEPARATOR,)
    found = (tuple(item for part in split(text, by) if (item := _item(part))) for by in separators)
    return list(dict.fromkeys(items for items in found if items))


def _may_be_split(text: str) -> bool:
    """Whether commas between digits may separate items of a reference: nothing else does, and it is no `1,200`."""
    text = plain(text)
    return all(m[0] == "," for m in _EVERY_COMMA.finditer(text)) and not _THOUSANDS.fullmatch(text)


def reference(answer: str) -> tuple[list[tuple[str, ...]], bool]:
    """The items of a reference, in each of its readings, and whether their order counts. ValueError: it holds none."""
    body = _ORDERED.sub("", answer)
    readings = _items(body)
    if not readings:
        raise ValueError(f"answer {answer!r} of a list question holds no item")
    if not _may_be_split(body):
        del readings[1:]
    return readings, body != answer or _ARROW.search(plain(body)) is not None


def _texts(response: str) -> list[str]:
    """What may be the list in a response."""
    text, _ = extract(response, paragraph=True)
    text = _ORDERED.sub("", text)
    first = next(iter(sentences(text)), "")
    texts = [text, first, without_lead_in(text), without_lead_in(first)]
    for sentence in (plain(text), plain(first)):
        texts += [sentence[m.end() :] for m in (_COLON.match(sentence), _INTRODUCES.match(sentence)) if m]
    return texts


def claim(response: str) -> str | None:
    """The items that a response gives, sorted."""
    found = list(dict.fromkeys(items for text in _texts(response) for items in _items(text)[:1]))
    return ", ".join(sorted(found[-1])) if found else None


def grade(response: str, answer: str) -> bool:
    """Whether one reading of the response has the same items, each as often; in the same order where that counts."""
    wanted, ordered = reference(answer)
    found = list(dict.fromkeys(items for text in _texts(response) for items in _items(text)))
    if ordered:
        return any(items in wanted for items in found)
    counted = [Counter(items) for items in wanted]
    return any(Counter(items) in counted for items in found)
