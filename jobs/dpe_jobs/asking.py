"""How a row becomes what is sent: text with options, image within a pixel limit.

Diagnosis, the generation filter and training ask through here, so that all three ask the same.
"""

import io
import json
import math
import random
import re
from collections.abc import Sequence
from string import ascii_uppercase

from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders.choice import reference
from dpe_jobs.graders.text import normalise
from dpe_jobs.seeds import derive
from dpe_jobs.upright import upright

ASKS_JSON = re.compile(r"\b(?:in|as|with|of|valid) (?:a )?JSON\b", re.I)
_POINTS_ELSEWHERE = re.compile(
    r"\b(?:(?:all|none|any|both|neither|some) of (?:the )?(?:above|these|them|those)|[A-H] (?:and|or|&) [A-H]|above)\b",
    re.IGNORECASE,
)


def lists_options(question: str, choices: Sequence[str]) -> bool:
    """Whether a question's text lists its options by itself, with their letters; or the options are mere letters."""
    letters = ascii_uppercase[: len(choices)]
    if all(normalise(choice) == letter.casefold() for letter, choice in zip(letters, choices, strict=False)):
        return True  # they stand in the image
    folded = normalise(question)
    place = 0
    for letter, choice in zip(letters.casefold(), choices, strict=False):
        mark = re.compile(rf"(?<!\w)\(?{letter}[).:、]\s*{re.escape(normalise(choice))}").search(folded, place)
        if mark is None:
            return False
        place = mark.end()
    return True


def order(question: str, choices: Sequence[str], seed: int, *parts: object) -> tuple[int, ...] | None:
    """The order to list the options in, drawn by seed and whatever names the row.

    None where the order must stay: fewer than two options, options that speak of others (`none of the above`), options
    that are letters themselves (`A` as B would be two things), or a question that lists them itself.
    """
    if len(choices) < 2 or any(_POINTS_ELSEWHERE.search(c) for c in choices) or lists_options(question, choices):
        return None
    if {normalise(choice) for choice in choices} & set(ascii_uppercase[: len(choices)].casefold()):
        return None
    drawn = list(range(len(choices)))
    random.Random(derive(seed, "options", *parts)).shuffle(drawn)
    return tuple(drawn)


def prompt(
    question: str, choices: Sequence[str], answer_type: AnswerType, *, order: Sequence[int] | None = None
) -> str:
    """The text to send: the question, and the options as `A. ...` unless it lists them itself."""
    if answer_type is not AnswerType.CHOICE or not choices or lists_options(question, choices):
        return question
    shown = choices if order is None else [choices[place] for place in order]
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, shown, strict=False))])


def response(question: str, answer: str, choices: Sequence[str], answer_type: AnswerType) -> str | None:
    r"""The right answer as a model is to write it to `prompt`: the option's letter, `\boxed{}`, `<answer>` tags, JSON,
    or the answer alone. None where a question wants what only a model can write: its thoughts in `<think>` tags.
    """
    if "<think>" in question:
        return None
    if answer_type is AnswerType.CHOICE and choices:
        answer = ascii_uppercase[reference(answer, choices)]
    if "<answer>" in question:
        return f"<answer>{answer}</answer>"
    if "\\boxed" in question:
        return f"\\boxed{{{answer}}}"
    return json.dumps({"answer": answer}) if ASKS_JSON.search(question) else answer


def graded_as(
    answer: str, choices: Sequence[str], answer_type: AnswerType, order: Sequence[int] | None
) -> tuple[str, tuple[str, ...]]:
    """Reference answer and options as a response to the shuffled prompt is to be graded against.

    ValueError when the reference is none of the options.
    """
    if answer_type is not AnswerType.CHOICE or order is None:
        return answer, tuple(choices)
    return choices[reference(answer, choices)], tuple(choices[place] for place in order)


def fitting(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height of a picture within a pixel limit: its own when it is, else scaled down."""
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    width, height = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    # of a very long image one side is a pixel, and the other takes what the limit leaves
    return (width, min(height, max_pixels // width)) if width < height else (min(width, max_pixels // height), height)


def shrunk(picture: Image.Image, max_pixels: int) -> Image.Image:
    """A picture within a pixel limit, itself when it is: what `fit` makes of its file."""
    size = fitting(*picture.size, max_pixels)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def fit(image: bytes, max_pixels: int) -> bytes:
    """An image file within a pixel limit: the same bytes when it is, else scaled down, as JPEG if it was one, or PNG.

    ValueError when it does not decode.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
            if width * height <= max_pixels:
                return image
            kind = "JPEG" if opened.format == "JPEG" else "PNG"
            mode = "RGBA" if kind == "PNG" and opened.has_transparency_data else "RGB"
            picture = upright(opened).convert(mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image does not decode: {error}") from error
    buffer = io.BytesIO()
    shrunk(picture, max_pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()
