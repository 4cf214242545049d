"""Conditions in the vocabulary of the Job API."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from dpe_api.status import Condition

ACCEPTED = "Accepted"
COMPLETE = "Complete"
FAILED = "Failed"
SUSPENDED = "Suspended"
MODEL_ACCEPTED = "ModelAccepted"

QUEUED = "Queued"  # reason

MESSAGE_LIMIT = 1024  # characters
_LONGEST_TTL_S = 100 * 365 * 86_400  # a hundred years: dates end in the year 9999, which any int64 may be beyond


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """At most `limit` characters; a cut is visible."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def end_of_life(completed: datetime | None, ttl_seconds: int | None) -> datetime | None:
    """When ttlSecondsAfterFinished is over; None: never, or not finished."""
    if completed is None or ttl_seconds is None:
        return None
    return completed + timedelta(seconds=min(ttl_seconds, _LONGEST_TTL_S))


def with_condition(
    conditions: Sequence[Condition], kind: str, value: bool, reason: str, message: str, generation: int, now: datetime
) -> list[Condition]:
    """The list with one condition set; `lastTransitionTime` moves only when its status does."""
    status: Literal["True", "False"] = "True" if value else "False"
    old = next((c for c in conditions if c.type == kind), None)
    since = old.last_transition_time if old is not None and old.status == status else now.replace(microsecond=0)
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=shorten(message),
        last_transition_time=since,
        observed_generation=generation,
    )
    if old is None:
        return [*conditions, new]
    return [new if c.type == kind else c for c in conditions]


def condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """One condition of a status."""
    return next((c for c in conditions if c.type == kind), None)
