"""Conditions in the vocabulary of the Job API."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from dpe_api.status import Condition

ACCEPTED = "Accepted"
COMPLETE = "Complete"
FAILED = "Failed"
SUSPENDED = "Suspended"
MODEL_ACCEPTED = "ModelAccepted"

QUEUED = "Queued"  # reason

MESSAGE_LIMIT = 1024  # characters


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """At most `limit` characters; a cut is visible."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
