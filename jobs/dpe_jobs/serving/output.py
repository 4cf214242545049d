"""What vLLM's own output says about why it did not start. Pure functions of its lines."""

import re
from collections.abc import Iterable
from enum import Enum

# "(EngineCore pid=12) ERROR 11-23 16:00:00 [core.py:700] ValueError: ..." -> "ValueError: ..."
_PREFIX = re.compile(
    r"^(?:\([\w ]+?pid=\d+\)\s?)?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] ?)?"
)
_HARMLESS = re.compile(r"^(?:\([\w ]+?pid=\d+\)\s?)?(?:DEBUG|INFO|WARNING) \d\d-\d\d ")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)(?:: .*)?$")
_CONSEQUENCES = ("Engine core initialization failed", "Engine process failed to start", "EngineDeadError")
_USAGE = re.compile(r"^\S*(?:api_server\.py|vllm\S*)?: error: (.+)$")
# pydantic writes its complaints on the lines after the error
_VALIDATION = re.compile(r"ValidationError: \d+ validation errors? for (\w+)$")
_VALIDATION_LINES = 8
_ADVICE = re.compile(r"\s*(For further information visit \S+|\[type=.*)$")

# the machine's trouble, or a matter of memory: the same weights may load elsewhere or later
_MACHINE = re.compile(
    r"out of memory|cannot allocate memory|MemoryError|No space left|No available memory|Free memory on device|"
    r"CUDA|NCCL|NVML|libcuda|address already in use|Errno 28|Errno 98|Bus error|shared memory|"
    r"TimeoutError|timed out|Failed to infer device type|ConnectionError|PermissionError|ImportError|"
    r"ModuleNotFoundError",
    re.IGNORECASE,
)
_ARGUMENTS = re.compile(r"validation errors? for (?!ModelConfig)\w+Config|max_model_len|KV cache is needed")


class Fault(Enum):
    """Whose fault a failed start is."""

    MODEL = "model"
    ARGUMENTS = "arguments"
    MACHINE = "machine"


def plain(line: str) -> str:
    """A line without vLLM's prefix of process, level, time and place."""
    return _PREFIX.sub("", line.rstrip(), count=1)


def _complaints(lines: list[str]) -> list[str]:
    """What follows a ValidationError: pairs of a field's name and an indented complaint."""
    found: list[str] = []
    for number, line in enumerate(lines[:_VALIDATION_LINES]):
        follows = lines[number + 1] if number + 1 < len(lines) else ""
        if not line.startswith("  ") and not (re.fullmatch(r"[\w.]+", line) and follows.startswith("  ")):
            break
        text = _ADVICE.sub("", line).strip()
        if text:
            found.append(text)
    return found


def root_cause(lines: Iterable[str]) -> str | None:
    """The last error in the output that is not a mere consequence of another; None when there is none."""
    # a stack trace in a warning is of something that vLLM went on without, such as a library for other models
    texts = [plain(line) for line in lines if not _HARMLESS.match(line)]
    for number in range(len(texts) - 1, -1, -1):
        text = texts[number]
        if not _ERROR.match(text) or any(c in text for c in _CONSEQUENCES):
            continue
        details = _complaints(texts[number + 1 :]) if _VALIDATION.search(text) else []
        return " ".join([text, *details])
    return None


def wrong_arguments(lines: Iterable[str]) -> str | None:
    """The argument parser's complaint about the command line; None when it had none."""
    for line in reversed(list(lines)):
        match = _USAGE.match(plain(line))
        if match:
            return match.group(1)
    return None


def fault(cause: str) -> Fault:
    """Whose fault an error at start-up is. What is neither the machine's nor the arguments' is the model's.

    Loading the same files with the same arguments is deterministic, so that the latter two need no other attempt.
    """
    if _ARGUMENTS.search(cause):
        return Fault.ARGUMENTS
    return Fault.MACHINE if _MACHINE.search(cause) else Fault.MODEL
