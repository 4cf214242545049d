"""What commands that write for a person have in common: their end, said on stderr and as an exit code."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from dpe_api.names import Exit
from dpe_jobs.runtime import BadConfig, Stopped, classify
from dpe_jobs.store import split_uri

T = TypeVar("T")


def address(uri: str) -> str:
    """An s3:// address without a slash at its end; BadConfig when it is none."""
    try:
        split_uri(uri)
    except ValueError as error:
        raise BadConfig("BadAddress", str(error)) from error
    return uri.rstrip("/")


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise Stopped


def carry_out(work: Callable[[], T], stopped: str) -> T | Exit:
    """The work's result, or the exit code of what ended it: 65 bad data, 75 a service is away, 78 something to mend.

    `stopped` says what became of it when it was interrupted.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - classified and told
        code, reason, message = classify(error)
        print(f"{reason}: {message}", file=sys.stderr)
        return code
    except (Stopped, KeyboardInterrupt):
        print(f"Stopped: {stopped}", file=sys.stderr)
        return Exit.STOPPED
