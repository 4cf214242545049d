"""Conversations as LLaVA writes them: turns of a human and a model, with <image> at an end of the first one."""

from collections.abc import Mapping
from typing import Any

TOKEN = "<image>"
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant")


def _said(turn: Any) -> tuple[str, str]:
    """Who speaks and what is said, in LLaVA's form (from, value) or in OpenAI's (role, content)."""
    if not isinstance(turn, Mapping):
        raise ValueError("a turn that is no object")
    who, what = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if isinstance(what, list):  # parts of text and images
        parts = [p for p in what if isinstance(p, Mapping)]
        what = "\n".join(str(p.get("text") or "") for p in parts if p.get("type") == "text")
    if not isinstance(who, str) or not isinstance(what, str):
        raise ValueError("a turn without from and value")
    return who, what


def _without_token(text: str) -> str:
    text = text.strip()
    text = text.removeprefix(TOKEN).removesuffix(TOKEN).strip()
    if TOKEN in text:
        raise ValueError(f"{TOKEN} inside a text or more than once: a question has one image, named at an end")
    return text


def pairs(talk: Any) -> list[tuple[str, str]]:
    """Questions and answers, in turn. ValueError says what is wrong with the conversation."""
    if not isinstance(talk, list) or not talk:
        raise ValueError("no list of turns")
    turns = [_said(turn) for turn in talk]
    if sum(what.count(TOKEN) for _, what in turns) > 1:
        raise ValueError(f"{TOKEN} inside a text or more than once: a question has one image, named at an end")
    if len(turns) % 2:
        raise ValueError(f"{len(turns)} turns: each question needs its answer")
    made = []
    for place, (asks, answers) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        if asks[0] not in _ASKS or answers[0] not in _ANSWERS:
            raise ValueError(f"turns {2 * place} and {2 * place + 1} are by {asks[0]!r} and {answers[0]!r}")
        question, answer = _without_token(asks[1]), answers[1]
        if not question:
            raise ValueError(f"turn {2 * place} asks nothing")
        if not answer.strip():
            raise ValueError(f"turn {2 * place + 1} is empty")
        made.append((question, answer))
    return made
