"""What vLLM's own output says about why it did not start. Pure functions of its lines."""

import re
from collections.abc import Iterable

# "(EngineCore pid=12) ERROR 11-23 16:00:00 [core.py:700] ValueError: ..." -> "ValueError: ..."
_PREFIX = re.compile(
    r"^(?:\([\w ]+?pid=\d+\)\s?)?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] ?)?"
)
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)(?:: .*)?$")
_CONSEQUENCES = ("Engine core initialization failed", "Engine process failed to start", "EngineDeadError")
_USAGE = re.compile(r"^\S*(?:api_server\.py|vllm\S*)?: error: (.+)$")

# the machine's fault, or a matter of size: the same weights may load elsewhere or later
_NOT_THE_MODEL = re.compile(
    r"out of memory|cannot allocate memory|MemoryError|No space left|No available memory|Free memory on device|"
    r"KV cache is needed|CUDA error|CUDA driver|NCCL|NVML|address already in use|Errno 28|Errno 98|Bus error|"
    r"TimeoutError|timed out|Failed to infer device type|shared memory|ConnectionError|PermissionError",
    re.IGNORECASE,
)
# what loading and configuring a model raises when the folder is at fault
_THE_MODEL = re.compile(
    r"Safetensor|safetensors|config\.json|ModelConfig|model_type|architecture|tokenizer|processor|state_dict|size "
    r"mismatch|weight|checkpoint|chat.?template|shape|Unrecognized model|not supported|KeyError|AttributeError|"
    r"image_token|JSONDecodeError|Repo id|HFValidationError|preprocessor|max_model_len|max_position|"
    r"AssertionError|ValueError|OSError|TypeError|RuntimeError",
    re.IGNORECASE,
)
_MAX_LINES = 4  # of one error, pydantic's run on


def plain(line: str) -> str:
    """A line without vLLM's prefix of process, level, time and place."""
    return _PREFIX.sub("", line.rstrip(), count=1)


def root_cause(lines: Iterable[str]) -> str | None:
    """The last error in the output that is not a mere consequence of another; None when there is none."""
    texts = [plain(line) for line in lines]
    found: str | None = None
    for number, text in enumerate(texts):
        if not _ERROR.match(text) or any(c in text for c in _CONSEQUENCES):
            continue
        parts = [text]
        for more in texts[number + 1 : number + _MAX_LINES]:
            if not more.strip() or more.startswith(("Traceback", "During", "The above")) or _ERROR.match(more):
                break
            if not more.startswith("  ") and not text.rstrip().endswith(("ModelConfig", "VllmConfig")):
                break
            parts.append(more.strip())
        found = " ".join(parts)
    return found


def wrong_arguments(lines: Iterable[str]) -> str | None:
    """The argument parser's complaint about the command line; None when it had none."""
    for line in reversed(list(lines)):
        match = _USAGE.match(plain(line))
        if match:
            return match.group(1)
    return None


def is_the_models_fault(cause: str) -> bool:
    """Whether an error at start-up is about the model's files, so that another attempt would find the same."""
    return not _NOT_THE_MODEL.search(cause) and bool(_THE_MODEL.search(cause))
