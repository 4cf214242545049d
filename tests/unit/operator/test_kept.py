"""spec.serving.keepRunning: the base's servers stay while the candidate is trained, and then serve that."""

import pytest
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import Stage
from dpe_api.status import Phase, StageState
from dpe_operator.conditions import condition
from dpe_operator.manifests.common import candidate_uri
from dpe_operator.resolve import problems

KEEP = {"serving": {"keepRunning": True}}
SERVER, OWN = "shapes-1-serve-base-1", "shapes-1-serve-candidate-1"


def world(**changes: object) -> World:
    return World(given.spec(**{**KEEP, **changes}), given.platform())


def move(it: World, *, work: bool = True) -> None:
    it.turn()
    live(it, work=work)


def live(it: World, *, work: bool = True) -> None:
    it.control()
    it.run_pods()
    if work:
        it.finish_work()
    it.control()
    it.pass_time(3)


def until(it: World, stage: Stage) -> World:
    """Until a batch stage has begun."""
    for _ in range(60):
        it.turn()
        if it.status.stages and it.status.stage_status(stage).state is StageState.RUNNING:
            return it
        live(it)
    raise AssertionError(it.status)


def servers(it: World) -> list[str]:
    return [j.name for j in it.jobs.values() if j.stage.is_serving and j.is_live]


def entry(it: World, stage: Stage):
    return it.status.stage_status(stage)


def test_one_job_serves_the_base_and_then_the_candidate():
    it = until(world(), Stage.TRAINING)
    assert servers(it) == [SERVER]
    until(it, Stage.EVALUATION)
    assert servers(it) == [SERVER]
    candidate = entry(it, Stage.SERVE_CANDIDATE)
    assert (candidate.state, candidate.attempt, candidate.kept_from) == (StageState.RUNNING, 1, 1)
    assert entry(it, Stage.SERVE_BASE).state is StageState.DONE
    evaluation = next(j for j in it.jobs.values() if j.stage is Stage.EVALUATION)
    assert evaluation.served_by == SERVER
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert servers(it) == []
    assert all(s.failures == s.disruptions == 0 for s in it.status.stages)
    assert "StageStarted/serve-candidate/1" in it.notes


def test_gpu_time_of_kept_servers_is_charged_once():
    it = until(world(), Stage.EVALUATION)
    began = min(p.scheduled_at for p in it.pods.values() if p.stage is Stage.SERVE_BASE and p.scheduled_at)
    training = it.status.cost.gpu_seconds
    now = it.now
    it.behave()
    served = it.status.cost.gpu_seconds - training
    assert served == pytest.approx((it.now - began).total_seconds(), abs=(it.now - now).total_seconds())


def test_evaluation_waits_until_every_pod_has_said_that_it_answers_with_the_candidate():
    it = until(world(serving={"keepRunning": True, "replicas": 2}), Stage.TRAINING)
    it.takes_weights = False
    for _ in range(10):
        move(it)
    assert entry(it, Stage.TRAINING).state is StageState.DONE
    assert entry(it, Stage.EVALUATION).state is StageState.PENDING
    message = entry(it, Stage.SERVE_CANDIDATE).message
    assert message == f"NotReloaded: {SERVER} takes the candidate's weights in place"
    first, second = (p.name for p in it.pods.values() if p.stage is Stage.SERVE_BASE and not p.is_over)
    uri = candidate_uri(it.status.artifacts or "")
    it.served = {first: uri, second: "s3://dpe/models/base"}
    it.turn()
    assert entry(it, Stage.EVALUATION).state is StageState.PENDING
    it.served[second] = uri
    it.turn()
    assert entry(it, Stage.EVALUATION).state is StageState.RUNNING


@pytest.mark.parametrize("attempts", [1, 3])
def test_servers_that_do_not_take_the_weights_in_time_are_replaced_by_some_with_all_their_attempts(attempts):
    it = until(world(retry={"maxAttempts": attempts}), Stage.TRAINING)
    it.takes_weights = False
    for _ in range(10):
        move(it)
    it.pass_time(it.platform.deadlines.startup)
    until(it, Stage.EVALUATION)
    candidate = entry(it, Stage.SERVE_CANDIDATE)
    assert (candidate.attempt, candidate.failures, candidate.kept_from) == (2, 0, None)
    assert servers(it) == ["shapes-1-serve-candidate-2"]


def test_a_server_lost_while_the_candidate_is_trained_costs_nothing_and_is_not_replaced_before_it_is_needed():
    it = until(world(), Stage.TRAINING)
    move(it, work=False)
    it.end_pod(next(p.uid for p in it.pods.values() if p.stage is Stage.SERVE_BASE), 70)
    for _ in range(5):
        move(it, work=False)
    assert servers(it) == []
    assert entry(it, Stage.TRAINING).state is StageState.RUNNING
    assert entry(it, Stage.SERVE_BASE).state is StageState.DONE
    until(it, Stage.EVALUATION)
    assert servers(it) == [OWN]
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert all(s.failures == 0 for s in it.status.stages)


def test_a_pod_killed_while_it_takes_the_weights_is_replaced_by_servers_of_the_candidate():
    it = until(world(), Stage.TRAINING)
    it.takes_weights = False
    for _ in range(10):
        move(it)
    assert entry(it, Stage.SERVE_CANDIDATE).kept_from == 1
    it.stop_pod(next(p.uid for p in it.pods.values() if p.stage is Stage.SERVE_BASE))
    until(it, Stage.EVALUATION)
    candidate = entry(it, Stage.SERVE_CANDIDATE)
    assert (candidate.attempt, candidate.failures, candidate.disruptions, candidate.kept_from) == (2, 0, 1, None)
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED


def test_an_evaluation_whose_kept_server_dies_is_not_charged():
    it = until(world(), Stage.EVALUATION)
    move(it, work=False)
    it.end_pod(next(p.uid for p in it.pods.values() if p.stage is Stage.SERVE_BASE), 70)
    for _ in range(4):
        move(it, work=False)
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert (entry(it, Stage.EVALUATION).failures, entry(it, Stage.EVALUATION).disruptions) == (0, 1)
    assert entry(it, Stage.SERVE_CANDIDATE).failures == 0


@pytest.mark.parametrize("stage", [Stage.TRAINING, Stage.EVALUATION])
def test_suspending_stops_kept_servers_too_and_resuming_goes_on_without_them(stage):
    it = until(world(), stage)
    it.spec = it.spec.model_copy(update={"suspend": True})
    for _ in range(6):
        move(it, work=False)
    assert it.status.phase is Phase.SUSPENDED
    assert all(p.is_over for p in it.pods.values())
    assert servers(it) == []
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert entry(it, Stage.SERVE_CANDIDATE).kept_from is None


def test_kept_servers_end_with_an_iteration_that_fails():
    it = until(world(retry={"maxAttempts": 1}), Stage.TRAINING)
    move(it, work=False)
    for pod in list(it.pods.values()):
        if pod.stage is Stage.TRAINING:
            it.end_pod(pod.uid, 65)
    it.behave()
    assert it.status.phase is Phase.FAILED
    assert servers(it) == []


def test_a_training_that_finds_no_node_says_that_kept_servers_hold_gpus_of_its_pool():
    it = world(training={"nodes": 1, "gpusPerNode": 1, "pool": "inference"})
    until(it, Stage.TRAINING)
    it.control()
    it.turn()
    message = entry(it, Stage.TRAINING).message or ""
    assert message.startswith("Unschedulable: pod shapes-1-training-1-0")
    assert "spec.serving.keepRunning holds 1 GPUs of pool inference meanwhile: to give them back, set" in message
    away = until(world(), Stage.TRAINING)
    away.control()
    away.turn()
    assert "keepRunning" not in (entry(away, Stage.TRAINING).message or "")


def test_a_training_that_its_queue_does_not_let_in_says_so_too_and_suspending_once_gives_the_gpus_back():
    it = until(world(), Stage.GENERATION)
    while Stage.GENERATION not in it.manifests:
        live(it)
    it.queue_is_open = False
    for _ in range(3):
        move(it)
    message = entry(it, Stage.TRAINING).message or ""
    assert message.startswith("Queued: Job shapes-1-training-1 is suspended")
    assert "spec.serving.keepRunning holds 1 GPUs of pool inference" in message
    for suspend in (True, False):
        it.spec = it.spec.model_copy(update={"suspend": suspend})
        for _ in range(6):
            move(it, work=False)
    assert servers(it) == []
    assert entry(it, Stage.SERVE_BASE).state is StageState.DONE
    assert (entry(it, Stage.TRAINING).message or "").endswith("until its queue lets it in")


def test_servers_are_not_kept_where_a_person_looks_at_the_samples():
    spec = given.spec(**KEEP, generation={"review": "required"})
    (problem,) = problems(spec, None, given.platform())
    assert problem.reason == "CannotKeepRunning"
    assert "spec.serving.keepRunning is true and spec.generation.review is required" in problem.message
    it = World(spec, given.platform())
    it.turn()
    accepted = condition(it.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "CannotKeepRunning")
