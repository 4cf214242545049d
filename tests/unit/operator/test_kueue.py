"""Jobs that a queue of others (Kueue) lets in and takes back."""

from dataclasses import replace

import pytest
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import Stage
from dpe_api.status import Phase, StageState


def until_runs(it: World, stage: Stage, steps: int = 40) -> World:
    for _ in range(steps):
        it.turn()
        it.control()
        it.run_pods()
        if it.status.stage_status(stage).state is StageState.RUNNING and any(
            p.stage is stage and p.phase == "Running" for p in it.pods.values()
        ):
            return it
        it.finish_work()
        it.control()
        it.pass_time(3)
    raise AssertionError(it.status)


def test_a_job_that_was_never_let_in_waits_without_deadline_and_says_so():
    it = World(given.spec(), given.platform())
    it.queue_is_open = False
    for _ in range(20):
        it.turn()
        it.control()
        it.pass_time(3600)
    entry = it.status.stage_status(Stage.SERVE_BASE)
    assert (entry.state, entry.attempt, entry.failures, entry.disruptions) == (StageState.RUNNING, 1, 0, 0)
    assert entry.message == "Queued: Job shapes-1-serve-base-1 is suspended until its queue lets it in"
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED


def test_the_wait_for_pods_is_counted_from_when_the_job_was_let_in():
    it = World(given.spec(), given.platform())
    it.queue_is_open = False
    while not it.jobs:
        it.turn()
    it.pass_time(2 * 3600)
    it.queue_is_open = True
    it.control()  # let in, and its pods are not made yet
    it.turn()
    entry = it.status.stage_status(Stage.SERVE_BASE)
    assert (entry.state, entry.attempt, entry.failures) == (StageState.RUNNING, 1, 0)
    it.pass_time(given.platform().deadlines.scheduling + 1)
    it.turn()
    assert it.status.stage_status(Stage.SERVE_BASE).failures == 1
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("stage", list(Stage))
def test_a_job_that_is_taken_back_is_a_disruption_and_queues_anew(stage):
    it = until_runs(World(given.spec(retry={"maxAttempts": 1}), given.platform()), stage)
    it.queue_is_open = False
    it.evict_job(f"shapes-1-{stage}-1")
    for _ in range(10):
        it.turn()
        it.control()
        it.pass_time(6)
    entry = it.status.stage_status(stage)
    assert (entry.attempt, entry.failures, entry.disruptions) == (2, 0, 1)
    assert it.jobs[f"shapes-1-{stage}-2"].suspended
    assert f"shapes-1-{stage}-1" not in it.jobs
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert all(s.failures == 0 for s in it.status.stages)


def test_pods_that_have_just_been_let_in_are_no_eviction():
    """Jobs are listed before pods: what is seen may be a suspended Job with running pods."""
    it = until_runs(World(given.spec(), given.platform()), Stage.SERVE_BASE)
    name = "shapes-1-serve-base-1"
    it.jobs[name] = replace(it.jobs[name], suspended=True)
    it.turn()
    entry = it.status.stage_status(Stage.SERVE_BASE)
    assert (entry.state, entry.attempt, entry.disruptions) == (StageState.RUNNING, 1, 0)


def test_without_a_queues_name_jobs_start_at_once():
    it = World(given.spec(), given.platform(), iteration=replace(given.ITERATION, labels={}))
    it.queue_is_open = False
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
