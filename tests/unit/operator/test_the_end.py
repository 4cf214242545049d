"""What happens to the Jobs of an iteration that has just finished."""

from datetime import timedelta

import pytest
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import Stage, child_name
from dpe_api.status import Phase
from dpe_operator.decide import decide
from dpe_operator.stages import LINGER
from dpe_operator.world import JobSeen, Observed


def plan_after_the_end(stage: Stage, attempt: int, seconds_later: float) -> set[str]:
    """Names of the Jobs deleted by an operator that sees one Job still live, some time after the end."""
    it = World(given.spec(), given.platform())
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    done = it.status.stage_status(Stage.EVALUATION).completion_time
    assert done is not None
    job = JobSeen(child_name("shapes-1", stage, attempt), "u", stage, attempt, created=done)
    seen = Observed(it.iteration, jobs=(job,))
    plan = decide(given.spec(), it.status, seen, given.platform(), done + timedelta(seconds=seconds_later))
    assert plan.create == ()
    assert plan.look_again_in is not None
    return {d.name for d in plan.delete}


@pytest.mark.parametrize(
    ("stage", "seconds_later", "deleted"),
    [
        (Stage.EVALUATION, 1.0, False),  # its pod is still leaving, its logs are wanted
        (Stage.EVALUATION, LINGER.total_seconds(), True),
        (Stage.SERVE_CANDIDATE, 1.0, True),  # nobody needs a server any more, and it holds GPUs
    ],
)
def test_the_last_stage_may_leave_by_itself_and_servers_may_not(stage, seconds_later, deleted):
    assert plan_after_the_end(stage, 1, seconds_later) == ({f"shapes-1-{stage}-1"} if deleted else set())
