r"""What a completion earns: a right answer, the form that its question asks for, its length, functions of users.

Functions of users are entry points in the group `dpe.rewards`. They are called as TRL calls a reward: with lists of
equal length by keyword (`prompts`, `completions`, `completion_ids`, and the columns `id`, `question`, `answer`,
`answer_type`, `choices`), and return a number for each completion, or None where they have nothing to say.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_api.training_spec import CustomReward, Training
from dpe_jobs.asking import ASKS_JSON
from dpe_jobs.graders import grade
from dpe_jobs.graders.text import boxes
from dpe_jobs.runtime import BadConfig

GROUP = "dpe.rewards"

Completions = Sequence[Sequence[dict[str, str]]]
"""One conversation for each completion; its last message is what the model wrote."""
Reward = Callable[..., list[float | None]]

# the sum of a group's equal rewards is exact in the 24 bits of float32 when 6 are left for the rollouts (at most 64)
_WEIGHT_BITS = 18

_OWN = ("answer", "format", "length")

_ASKS_LETTER = re.compile(r"\b(?:only|just)\b[^.\n]{0,40}\bletter\b|\bletter\b[^.\n]{0,40}\b(?:only|alone)\b", re.I)
_ASKS_WORD = re.compile(r"\b(?:one|a single) word\b(?!\s+or\b)", re.I)
_LETTER = re.compile(r"\s*\(?[A-Z]\)?\.?\s*")
_TAGGED = re.compile(r"(?:(?!<answer>).)*<answer>(?:(?!</?answer>).)+</answer>\s*", re.S)
_THOUGHT = re.compile(r"\s*<think>(?:(?!</?think>).)*</think>", re.S)


def has_form(question: str, response: str) -> bool:
    r"""Whether a response has the form that a question asks for; True where it asks for none.

    Forms: `\boxed{}`, `<answer>` tags (after `<think>` tags, where those are asked for), the letter alone, one word,
    JSON.
    """
    wanted: list[bool] = []
    if "\\boxed" in question:
        wanted.append(bool(boxes(response)))
    if "<answer>" in question:
        wanted.append(_TAGGED.fullmatch(response) is not None)
    if "<think>" in question:
        wanted.append(_THOUGHT.match(response) is not None)
    if _ASKS_LETTER.search(question):
        wanted.append(_LETTER.fullmatch(response) is not None)
    if _ASKS_WORD.search(question):
        wanted.append(len(response.split()) == 1)
    if ASKS_JSON.search(question):
        wanted.append(_is_json(response))
    return all(wanted)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def answer(
    completions: Completions,
    answer: Sequence[str],
    answer_type: Sequence[str],
    choices: Sequence[Sequence[str]],
    **_: object,
) -> list[float | None]:
    """1 for a right answer, 0 for a wrong one, by the graders of diagnosis and evaluation."""
    return [
        float(grade(completion[-1]["content"], right, AnswerType(kind), options))
        for completion, right, kind, options in zip(completions, answer, answer_type, choices, strict=True)
    ]


def form(completions: Completions, question: Sequence[str], **_: object) -> list[float | None]:
    """1 for a completion in the form that its question asks for, 0 for another."""
    return [float(has_form(q, c[-1]["content"])) for c, q in zip(completions, question, strict=True)]


form.__name__ = "format"  # TRL logs rewards under the functions' names; in here it would hide the builtin


def length_penalty(longest: int, over: int) -> Reward:
    """0 up to `longest - over` tokens, then falling to -1 at `longest` (DAPO, arXiv 2503.14476, eq. 13)."""

    def length(completion_ids: Sequence[Sequence[int]], **_: object) -> list[float | None]:
        return [-min(max(len(ids) - (longest - over), 0) / over, 1.0) for ids in completion_ids]

    return length


@dataclass(frozen=True)
class Custom:
    """A function of a user, with its errors made into ones that name it."""

    name: str
    call: Callable[..., Any]

    @property
    def __name__(self) -> str:  # what TRL logs it under
        return self.name

    def __call__(self, completions: Completions, **more: Any) -> list[float | None]:
        """Its rewards. BadConfig when it raises, or returns anything but a finite number or None for each."""
        where = f"spec.training.rewards.custom: {self.name}"
        try:
            found = self.call(completions=completions, **more)
        except Exception as error:
            raise BadConfig("RewardFailed", f"{where} raised {type(error).__name__}: {error}: mend it") from error
        if not isinstance(found, Sequence) or len(found) != len(completions):
            raise BadConfig(
                "RewardFailed", f"{where} must return a list of {len(completions)} numbers, one for each completion"
            )
        for value in found:
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise BadConfig("RewardFailed", f"{where} returned {value!r}: write a finite number, or None")
        return [None if value is None else float(value) for value in found]


def _load(custom: CustomReward) -> Custom:
    # a step's metrics have each part by its name, and guards ask for the answer there
    if custom.name in _OWN:
        raise BadConfig(
            "UnknownReward",
            f"spec.training.rewards.custom: {custom.name} is a part that the system has, as are {', '.join(_OWN)}: "
            "rename the entry point",
        )
    found = entry_points(group=GROUP)
    if custom.name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        raise BadConfig(
            "UnknownReward",
            f"spec.training.rewards.custom: {custom.name} is no entry point in the group {GROUP} of the training "
            f"image; there are: {known}: install its package or correct the name",
        )
    try:
        return Custom(custom.name, found[custom.name].load())
    except (ImportError, AttributeError) as error:
        raise BadConfig("UnknownReward", f"entry point {custom.name} in {GROUP} does not load: {error}") from error


def rewards(training: Training) -> list[tuple[Reward, float]]:
    """The parts of the reward with their weights, the answer first. BadConfig names a custom one that is not there."""
    spec = training.rewards
    parts: list[tuple[Reward, float]] = [(answer, spec.answer)]
    if spec.format > 0:
        parts.append((form, spec.format))
    if spec.length_penalty > 0:
        penalty = length_penalty(training.max_completion_length, spec.length_penalty_tokens)
        parts.append((penalty, spec.length_penalty))
    return [*parts, *((_load(custom), custom.weight) for custom in spec.custom)]


def exact(weights: Sequence[float]) -> list[float]:
    """The weights as TRL gets them: multiples of a power of two that is at most 2^-17 of the sum of them all.

    TRL sums in float32, where the mean of equal rewards 1.0 + 0.2 is not 1.2. Their deviation is then above zero, the
    groups count as different, and neither EqualRewards nor the end when all is right ever comes.
    """
    _, exponent = math.frexp(sum(abs(weight) for weight in weights))
    unit = math.ldexp(1.0, exponent - _WEIGHT_BITS)
    return [round(weight / unit) * unit for weight in weights]
