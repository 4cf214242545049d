"""The OpenAI chat protocol as far as it is used here: what a request and its answer look like. Pure functions."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_RETRY_AFTER_S = 60.0
_HALVES = re.compile("[\ud800-\udfff]")  # of pairs; JSON's escapes may name one alone


@dataclass(frozen=True, slots=True)
class Answers:
    """`n` answers to one question, and what they cost."""

    texts: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    cut_off: bool = False
    """One of them reached max_tokens."""
    refusal: str | None = None
    """Why the model would not answer, where the API says so beside the text."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the body of a refusal says in OpenAI's form; None where it says nothing."""

    code: str | None = None
    parameter: str | None = None
    """Field of the request that is at fault."""


def data_uri(image: bytes) -> str:
    """An image file as a data: address. The type is told by its first bytes; unknown ones are called PNG."""
    kinds = {b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"BM": "bmp"}
    kind = next((name for magic, name in kinds.items() if image.startswith(magic)), "png")
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def messages(image: bytes | Sequence[bytes] | None, text: str, system: str | None = None) -> list[dict[str, Any]]:
    """A conversation of one question. Without an image its content is plain text, which every server takes."""
    images = () if image is None else (image,) if isinstance(image, bytes) else image
    content: object = text
    if images:
        pictures = [{"type": "image_url", "image_url": {"url": data_uri(one)}} for one in images]
        content = [*pictures, {"type": "text", "text": text}]
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": content}]


def retry_after_s(
    headers: Mapping[str, str], now: datetime | None = None, *, most: float = MAX_RETRY_AFTER_S
) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 10.2.3: seconds or a date), capped; None without a readable one."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # numbers that no date can hold
            return None
        # a date that names no zone is in GMT, as the RFC has it
        when = when.replace(tzinfo=when.tzinfo or UTC)
        seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), most) if math.isfinite(seconds) else None


def encodable(value: Any) -> Any:
    """JSON's value with U+FFFD where a text has half a surrogate pair, which no UTF-8 holds: a model's wrong text."""
    if isinstance(value, str):
        return _HALVES.sub("\ufffd", value)
    if isinstance(value, list):
        return [encodable(one) for one in value]
    if isinstance(value, dict):
        return {encodable(name): encodable(one) for name, one in value.items()}
    return value


def parse(body: Any, n: int) -> Answers:
    """The answers of a chat completion; ValueError when the body is none, or has not `n` of them."""
    try:
        choices = body["choices"]
        # a message that calls tools may say nothing else
        contents = [m.get("content") if m.get("tool_calls") else m["content"] for m in (c["message"] for c in choices)]
        if not all(text is None or isinstance(text, str) for text in contents):
            raise TypeError("content is no text")
        ends = [choice.get("finish_reason") for choice in choices]
        refusals = [choice["message"].get("refusal") for choice in choices]
        usage = body.get("usage") or {}
        prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the answer is no chat completion: {error!r}") from error
    if len(contents) != n:
        raise ValueError(f"asked for {n} answers, got {len(contents)}")
    if "content_filter" in ends:
        refusals.append("the service's content filter stopped it")
    return Answers(
        texts=tuple(text or "" for text in contents),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cut_off="length" in ends,
        refusal=next((str(r) for r in refusals if r), None),
    )


def essence(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion without what nobody reads: null fields, log-probs, what servers add of their own."""
    kept = {name: body[name] for name in ("id", "object", "created", "model", "usage") if name in body}
    choices = [
        {name: choice[name] for name in ("index", "finish_reason") if name in choice}
        | {"message": {name: value for name, value in choice["message"].items() if value is not None}}
        for choice in body["choices"]
    ]
    for choice in choices:
        choice["message"].setdefault("content", None)
    return {**kept, "choices": choices}


def complaint(body: Any) -> Complaint:
    """What a refusal complains about."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return Complaint()
    code, parameter = error.get("code"), error.get("param")
    return Complaint(
        code if isinstance(code, str) else None,
        parameter if isinstance(parameter, str) else None,
    )
