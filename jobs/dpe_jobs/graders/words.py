"""Numbers in words."""

import re

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = {word: value for value, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORD = "|".join([*SMALL, *SCALES])
SPELLED = re.compile(
    rf"\b(?:a\s+(?=(?:{'|'.join(SCALES)})\b))?(?:{_WORD})\b(?:(?:[-\s]+|\s+and\s+)(?:{_WORD})\b){{0,9}}"
)
"""A number in words, in lower case: `twenty-one`, `one hundred and five`, `two million`."""


def spelled(text: str) -> int | None:
    """The value of a number in words; None when the words follow each other as no number does (`two three`)."""
    total = group = 0
    room = scale = 10**15  # what the next word of a group, and the next scale, must be smaller than
    for word in re.findall(_WORD, text):
        if word in SMALL:
            if SMALL[word] >= room:
                return None
            group += SMALL[word]
            room = 10 if SMALL[word] >= 20 else 0
        elif word == "hundred":
            if group >= 10:
                return None
            group, room = max(group, 1) * 100, 100
        else:
            if SCALES[word] >= scale:
                return None
            total, group, room, scale = total + max(group, 1) * SCALES[word], 0, 1000, SCALES[word]
    return total + group


def digits_of(text: str) -> str:
    """A text that is nothing but a number in words, in digits; any other as it is."""
    if SPELLED.fullmatch(text) and (value := spelled(text)) is not None:
        return str(value)
    return text
