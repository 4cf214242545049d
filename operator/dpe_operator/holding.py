"""What a look leaves for a moment: an iteration that kopf is about to take, and news that more is to follow."""

import time
from datetime import timedelta
from typing import Any

from dpe_api.names import GROUP
from dpe_api.status import Status
from dpe_operator.loops import Loop
from dpe_operator.plan import Plan

HOLD_S = 3.0  # a new message of a stage waits so long for company: most are outdated sooner
CLAIM_S = 10.0  # for kopf to add its finalizer
FINALIZER = f"{GROUP}/operator"


def awaits_claim(loop: Loop, body: dict[str, Any]) -> bool:
    """Kopf is about to add the finalizer: what is written before that would meet a conflict, and be done again.

    Not for ever: when it could not, it tries again at the next event of the iteration, and that is what we write.
    """
    metadata = body["metadata"]
    if "deletionTimestamp" in metadata or FINALIZER in metadata.get("finalizers", ()):
        loop.unclaimed_since = None
        return False
    now = time.monotonic()
    loop.unclaimed_since = now if loop.unclaimed_since is None else loop.unclaimed_since
    return now - loop.unclaimed_since < CLAIM_S


def held_s(loop: Loop, status: Status, plan: Plan) -> float:
    """Seconds that a status of which only messages of stages are new is to wait; 0: it is written now, or is no such.

    A pod waits for its node for less than a second, mostly. Each write costs the API server as much as ten reads.
    """
    new = plan.status
    acts = plan.create or plan.delete or plan.notes or plan.charges or plan.remove_iteration
    if new is None or acts or plan.look_again_in == timedelta(0) or _without_messages(new) != _without_messages(status):
        loop.held_since = None
        return 0.0
    now = time.monotonic()
    loop.held_since = now if loop.held_since is None else loop.held_since
    left = loop.held_since + HOLD_S - now
    if left <= 0:
        loop.held_since = None
    return max(left, 0.0)


def _without_messages(status: Status) -> Status:
    return status.model_copy(update={"stages": [stage.model_copy(update={"message": None}) for stage in status.stages]})
