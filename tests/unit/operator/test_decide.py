from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.operator import given
from tests.unit.operator.sim import Crash, World

from dpe_api.names import Stage
from dpe_api.status import ModelStatus, Phase, Resolved, StageState, Status
from dpe_operator.conditions import condition
from dpe_operator.decide import decide
from dpe_operator.plan import Plan
from dpe_operator.resolve import resolve
from dpe_operator.summaries import size
from dpe_operator.world import Observed, Previous, Problem


def world(**spec: object) -> World:
    return World(given.spec(**spec), given.platform())


def serving(it: World, moves: int = 6) -> World:
    """Until the first model server is ready and the diagnosis runs."""
    for _ in range(moves):
        it.turn()
        it.control()
        it.run_pods()
    return it


def entry(it: World, stage: Stage):
    return it.status.stage_status(stage)


def names(plan: Plan) -> list[str]:
    return [c.name for c in plan.create if c.kind == "Job"]


def test_an_iteration_runs_its_stages_in_order_and_succeeds():
    it = world()
    started: list[str] = []
    for _ in range(60):
        started += list(names(it.turn()))
        it.control()
        it.run_pods()
        it.finish_work()
        it.control()
        it.pass_time(3)
    assert started == [f"shapes-1-{s}-1" for s in Stage]
    assert it.status.phase is Phase.SUCCEEDED
    assert it.status.accuracy_before == "62.2%"
    assert it.status.accuracy_after == "80.0%"
    assert it.status.model == ModelStatus(
        uri="s3://dpe/lab/shapes-1-01234567/training/model",
        accepted=True,
        candidate_uri="s3://dpe/lab/shapes-1-01234567/training/model",
    )
    assert it.status.cost.tokens == 4 * 1100
    assert it.status.cost.gpu_seconds > 0
    assert {c.type: c.status for c in it.status.conditions} == {
        "Accepted": "True",
        "Complete": "True",
        "ModelAccepted": "True",
    }


def test_a_rejected_candidate_completes_the_iteration_and_leaves_the_base_model():
    it = world()
    it.accepted = False
    it.behave()
    assert it.status.phase is Phase.REJECTED
    complete, accepted = (condition(it.status.conditions, k) for k in ("Complete", "ModelAccepted"))
    assert complete is not None
    assert complete.status == "True"
    assert accepted is not None
    assert accepted.status == "False"
    assert it.status.model is not None
    assert it.status.model.uri == "s3://dpe/models/base"


def test_nothing_is_created_before_the_resolved_spec_is_written_down():
    it = world()
    plan = it.turn()
    assert not plan.create
    assert it.status.resolved is not None
    assert plan.look_again_in == timedelta(0)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"serving": {"pool": "gold"}}, "UnknownPool", ["spec.serving.pool", "gold", "inference, training"]),
        ({"training": {"pool": "gold"}}, "UnknownPool", ["spec.training.pool", "gold"]),
        ({"evaluation": {"lmmsEval": [{"task": "ai2d"}]}}, "NoLmmsEval", ["ai2d", "Helm value lmmsEval.data"]),
    ],
)
def test_a_spec_that_the_platform_cannot_run_is_not_accepted(changes, reason, words):
    it = world(**changes)
    plan = it.turn()
    accepted = condition(it.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", reason)
    assert all(word in accepted.message for word in words)
    assert not plan.create
    assert it.status.phase is Phase.PENDING


def test_an_iteration_starts_by_itself_once_its_problem_is_mended():
    problem = Problem("ProbeNotFound", "spec.probe.uri is s3://dpe/data/probe: there is nothing below it: upload it")
    spec, platform = given.spec(), given.platform()
    refused = decide(spec, Status(), Observed(given.ITERATION, problems=(problem,)), platform, given.T0)
    assert refused.status is not None
    assert not refused.create
    assert refused.look_again_in == timedelta(seconds=platform.resync_seconds)
    again = decide(spec, refused.status, Observed(given.ITERATION, problems=(problem,)), platform, given.at(30))
    assert again.status is None
    assert not again.notes
    mended = decide(spec, refused.status, Observed(given.ITERATION), platform, given.at(60))
    assert mended.status is not None
    assert mended.status.resolved is not None
    accepted = condition(mended.status.conditions, "Accepted")
    assert accepted is not None
    assert accepted.status == "True"
    assert accepted.last_transition_time == given.at(60)


def finished(phase: Phase, accepted: bool) -> Previous:
    spec = given.spec(seed=3, training={"maxSteps": 7, "promptsPerStep": 4, "rolloutsPerPrompt": 4})
    uri = "s3://dpe/lab/shapes-0-ffff/training/model" if accepted else "s3://dpe/models/base"
    status = Status(
        phase=phase,
        artifacts="s3://dpe/lab/shapes-0-ffff",
        resolved=Resolved(round=2, model_uri="s3://dpe/models/base", spec=spec.resolve()),
        model=ModelStatus(uri=uri, accepted=accepted),
    )
    return Previous("shapes-0", status)


@pytest.mark.parametrize(
    ("phase", "accepted", "uri", "reuse"),
    [
        (Phase.SUCCEEDED, True, "s3://dpe/lab/shapes-0-ffff/training/model", "s3://dpe/lab/shapes-0-ffff/evaluation"),
        (Phase.REJECTED, False, "s3://dpe/models/base", "s3://dpe/lab/shapes-0-ffff/diagnosis"),
    ],
)
def test_a_referring_iteration_continues_from_the_model_that_stands(phase, accepted, uri, reuse):
    spec = given.spec(model={"iterationRef": {"name": "shapes-0"}}, probe=None, training=None)
    resolved = resolve(spec, finished(phase, accepted))
    assert (resolved.round, resolved.model_uri, resolved.reuse_diagnosis) == (3, uri, reuse)
    assert resolved.spec.training.max_steps == 7
    assert resolved.spec.probe.uri == "s3://dpe/data/probe"


@pytest.mark.parametrize(
    ("previous", "reason"),
    [
        (None, "IterationNotFound"),
        (replace(finished(Phase.FAILED, False)), "IterationFailed"),
        (replace(finished(Phase.TRAINING, False)), "IterationNotFinished"),
    ],
)
def test_a_reference_that_cannot_be_continued_from_is_a_condition(previous, reason):
    spec = given.spec(model={"iterationRef": {"name": "shapes-0"}}, probe=None)
    plan = decide(spec, Status(), Observed(given.ITERATION, previous=previous), given.platform(), given.T0)
    assert plan.status is not None
    accepted = condition(plan.status.conditions, "Accepted")
    assert accepted is not None
    assert accepted.reason == reason
    assert "spec.model.iterationRef.name is shapes-0" in accepted.message


def test_the_diagnosis_waits_until_the_model_server_is_ready():
    it = world()
    it.turn()
    it.turn()
    it.control()
    it.pods = {u: replace(p, started_at=it.now, scheduled_at=it.now, phase="Running") for u, p in it.pods.items()}
    assert not names(it.turn())
    assert entry(it, Stage.DIAGNOSIS).message == "waits for serve-base to be ready"
    it.run_pods()
    assert names(it.turn()) == ["shapes-1-diagnosis-1"]


def test_a_stage_is_done_when_its_manifest_exists_whatever_happened_to_its_pod():
    it = serving(world())
    it.publish(Stage.DIAGNOSIS)
    (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS]
    it.end_pod(pod.uid, 1)
    it.control()
    it.turn()
    assert entry(it, Stage.DIAGNOSIS).state is StageState.DONE
    assert entry(it, Stage.DIAGNOSIS).failures == 0
    assert it.status.phase is Phase.GENERATING


def test_a_crash_is_charged_and_retried_after_a_backoff_that_doubles():
    it = serving(world())
    waits = []
    for attempt in (1, 2):
        (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS and not p.is_over]
        it.end_pod(pod.uid, 75)
        it.control()
        it.turn()
        now = entry(it, Stage.DIAGNOSIS)
        assert (now.state, now.failures, now.attempt) == (StageState.BACKOFF, attempt, attempt)
        assert now.next_attempt_time is not None
        waits.append((now.next_attempt_time - it.now).total_seconds())
        it.pass_time(waits[-1])
        assert names(it.turn()) == [f"shapes-1-diagnosis-{attempt + 1}"]
        it.control()
        it.run_pods()
    assert waits == [10, 20]


def test_attempts_that_keep_failing_end_the_iteration_with_the_pods_own_message():
    it = serving(world(retry={"maxAttempts": 2}))
    for _ in range(2):
        (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS and not p.is_over]
        it.end_pod(pod.uid, 70)
        it.control()
        it.turn()
        it.pass_time(60)
        it.turn()
        it.control()
        it.run_pods()
    assert it.status.phase is Phase.FAILED
    failed = condition(it.status.conditions, "Failed")
    assert failed is not None
    assert failed.reason == "Said"
    assert "why (after 2 failed attempts)" in failed.message
    it.turn()
    assert not it.jobs.keys() & {"shapes-1-serve-base-1"}


@pytest.mark.parametrize("code", [65, 78])
def test_bad_data_and_bad_configuration_end_the_iteration_at_once(code):
    it = serving(world())
    (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS]
    it.end_pod(pod.uid, code)
    it.control()
    it.turn()
    assert it.status.phase is Phase.FAILED
    assert entry(it, Stage.DIAGNOSIS).attempt == 1


def test_a_disruption_is_not_charged_and_the_next_attempt_starts_at_once():
    it = serving(world(retry={"maxAttempts": 1}))
    (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS]
    it.change(pod.uid, disrupted="EvictionByEvictionAPI")
    it.end_pod(pod.uid, 137)
    it.control()
    plan = it.turn()
    assert names(plan) == ["shapes-1-diagnosis-2"]
    assert (entry(it, Stage.DIAGNOSIS).failures, entry(it, Stage.DIAGNOSIS).disruptions) == (0, 1)


def test_a_lost_model_server_takes_its_client_along_without_charging_it():
    it = serving(world())
    (server,) = [p for p in it.pods.values() if p.stage is Stage.SERVE_BASE]
    it.end_pod(server.uid, 70)
    it.control()
    it.turn()
    assert entry(it, Stage.SERVE_BASE).failures == 1
    assert entry(it, Stage.DIAGNOSIS).failures == 0
    for _ in range(12):
        it.pass_time(6)
        it.turn()
        it.control()
        it.run_pods()
    assert it.jobs["shapes-1-diagnosis-2"].served_by == "shapes-1-serve-base-2"


def test_training_starts_only_when_the_model_server_is_gone():
    it = serving(world())
    for _ in range(3):
        it.finish_work()
        it.control()
        it.turn()
        it.control()
        it.run_pods()
    assert entry(it, Stage.GENERATION).state is StageState.DONE
    assert "shapes-1-serve-base-1" not in it.jobs
    assert any(p.stage is Stage.SERVE_BASE for p in it.pods.values())
    assert entry(it, Stage.TRAINING).message == "waits until the model server is gone"
    it.pass_time(6)
    it.control()
    it.control()
    assert names(it.turn()) == ["shapes-1-training-1"]


@pytest.mark.parametrize(
    ("pod", "seconds", "reason"),
    [
        (
            {"phase": "Pending", "scheduled_at": None, "started_at": None, "unschedulable": "0/2 nodes"},
            601,
            "0/2 nodes",
        ),
        ({}, 901, "NotReady"),
    ],
)
def test_a_wait_beyond_its_deadline_is_a_charged_attempt_with_that_reason(pod, seconds, reason):
    it = world()
    it.turn()
    it.turn()
    it.pods["p"] = given.pod(Stage.SERVE_BASE, **pod)
    it.turn()
    assert entry(it, Stage.SERVE_BASE).failures == 0
    it.pass_time(seconds)
    plan = it.turn()
    assert entry(it, Stage.SERVE_BASE).failures == 1
    assert reason in (entry(it, Stage.SERVE_BASE).message or "")
    assert [r.name for r in plan.delete] == ["shapes-1-serve-base-1"]


def test_suspending_stops_what_runs_and_resuming_goes_on_without_a_charge():
    it = serving(world())
    it.spec = it.spec.model_copy(update={"suspend": True})
    it.turn()
    assert it.status.phase is Phase.SUSPENDED
    assert not it.jobs
    suspended = condition(it.status.conditions, "Suspended")
    assert suspended is not None
    assert suspended.status == "True"
    it.turn()
    assert not it.jobs
    it.spec = it.spec.model_copy(update={"suspend": False})
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert all(s.failures == 0 and s.disruptions == 0 for s in it.status.stages)
    assert entry(it, Stage.DIAGNOSIS).attempt == 2


def test_an_outage_of_the_store_fails_nothing_and_says_so():
    it = serving(world())
    it.store_is_away = True
    (pod,) = [p for p in it.pods.values() if p.stage is Stage.DIAGNOSIS]
    it.end_pod(pod.uid, 75, report=False)
    it.control()
    for _ in range(3):
        it.pass_time(600)
        plan = it.turn()
        assert not plan.create
        assert not plan.delete
    now = entry(it, Stage.DIAGNOSIS)
    assert (now.state, now.failures) == (StageState.RUNNING, 0)
    assert now.message == "StoreUnavailable: the store is away: waits until it answers"
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED


def test_a_name_that_somebody_else_has_is_reported_and_not_taken_over():
    it = world()
    it.turn()
    seen = replace(it.look(it.status), foreign=frozenset({"shapes-1-serve-base-1"}))
    plan = decide(it.spec, it.status, seen, it.platform, it.now)
    assert not plan.create
    assert plan.status is not None
    assert "NameTaken: shapes-1-serve-base-1" in (plan.status.stage_status(Stage.SERVE_BASE).message or "")


def test_what_the_api_server_says_against_a_child_is_told_and_tried_again():
    it = world()
    it.turn()
    said = "Job shapes-1-serve-base-1: exceeded quota: few, requested: count/jobs.batch=1"
    refused = {"shapes-1-serve-base-1": said}
    plan = decide(it.spec, it.status, replace(it.look(it.status), not_admitted=refused), it.platform, it.now)
    assert not plan.create
    assert plan.status is not None
    assert plan.status.stage_status(Stage.SERVE_BASE).message == f"NotAdmitted: {said}"
    assert [(n.reason, n.warning) for n in plan.notes] == [("NotAdmitted", True)]
    assert plan.look_again_in is not None
    once_more = decide(it.spec, plan.status, replace(it.look(plan.status), not_admitted=refused), it.platform, it.now)
    assert (once_more.notes, once_more.status, once_more.create) == ((), None, ())
    another = replace(it.look(plan.status), not_admitted={"shapes-1-diagnosis-1": said})
    again = decide(it.spec, plan.status, another, it.platform, it.now)
    assert [child.kind for child in again.create] == ["ConfigMap", "Service", "Job"]
    assert again.status is not None
    assert again.status.stage_status(Stage.SERVE_BASE).message is None


def test_a_finished_iteration_is_removed_when_its_time_is_over_and_not_before():
    it = world(ttlSecondsAfterFinished=100)
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    early = it.plan()
    assert not early.remove_iteration
    assert early.look_again_in is not None
    it.pass_time(101)
    assert it.plan().remove_iteration


def test_a_time_to_live_beyond_all_dates_is_a_long_one():
    it = world(ttlSecondsAfterFinished=300_000_000_000)
    it.behave()
    plan = it.plan()
    assert plan.look_again_in is not None
    assert (plan.remove_iteration, plan.look_again_in.days > 36_000) == (False, True)


def test_an_iteration_that_is_being_deleted_is_left_alone():
    it = serving(world())
    running = it.plan().running
    it.iteration = replace(it.iteration, deleting=True)
    assert it.plan() == Plan(running=running)  # nothing to do, but to know what it has cost


def test_the_status_stays_below_32_kib_for_many_categories_and_benchmarks():
    many = tuple(f"category-{i:03d}-with-a-rather-long-name" for i in range(200))
    benchmarks = [{"name": f"bench-{i}", "uri": f"s3://dpe/data/bench-{i}"} for i in range(20)]
    it = world(evaluation={"benchmarks": [{"name": "test", "uri": "s3://dpe/data/test"}, *benchmarks]})
    it.behave(steps=1)
    for stage in (Stage.DIAGNOSIS, Stage.GENERATION, Stage.TRAINING):
        it.manifests[stage] = given.manifest(stage, **({} if stage is Stage.TRAINING else {"categories": many}))
    evaluation = given.summary(Stage.EVALUATION, categories=many)
    wide = [given.comparison(0.5, 0.6, many, name=n) for n in ("test", *(b["name"] for b in benchmarks))]
    evaluation = evaluation.model_copy(update={"comparisons": wide, "reason": "x" * 5000})
    it.manifests[Stage.EVALUATION] = given.manifest(Stage.EVALUATION).model_copy(update={"summary": evaluation.wire()})
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert size(it.status) < 32 * 1024
    assert len(it.status.evaluation) == 21


def test_a_manifest_that_cannot_be_read_fails_the_stage_and_says_which():
    it = serving(world())
    it.manifests[Stage.DIAGNOSIS] = given.manifest(Stage.DIAGNOSIS).model_copy(update={"summary": {"n": 1}})
    it.turn()
    failed = condition(it.status.conditions, "Failed")
    assert failed is not None
    assert failed.reason == "InvalidManifest"
    assert "diagnosis" in failed.message


@pytest.mark.parametrize("died_after", [1, 2, 3])
def test_an_attempt_that_was_created_but_not_written_down_is_taken_over(died_after):
    it = world()
    it.turn()
    with pytest.raises(Crash):
        it.apply(it.plan(), die_after=died_after)
    before = dict(it.jobs)
    it.turn()
    assert entry(it, Stage.SERVE_BASE).attempt == 1
    assert entry(it, Stage.SERVE_BASE).state is StageState.RUNNING
    assert it.jobs.items() >= before.items()
    assert len(it.jobs) == 1


def training():
    """The trainers run."""
    it = world()
    while not any(p.stage is Stage.TRAINING and p.phase == "Running" for p in it.pods.values()):
        it.finish_work()
        it.control()
        it.turn()
        it.control()
        it.run_pods()
        it.pass_time(6)
    return it


def trained():
    """The trainers have published the model and are about to end."""
    it = training()
    it.publish(Stage.TRAINING)
    return it


def test_a_training_has_the_nodes_that_the_spec_names_when_an_attempt_begins():
    it = training()
    assert it.spec.training is not None
    it.spec = it.spec.model_copy(update={"training": it.spec.training.model_copy(update={"nodes": 1})})
    it.turn()
    assert it.status.resolved.spec.training.nodes == 2, "the attempt that runs is as it was"
    it.spec = it.spec.model_copy(update={"suspend": True})
    it.turn()
    it.control()
    it.pass_time(60)
    it.control()
    it.spec = it.spec.model_copy(update={"suspend": False})
    (job,) = [c for c in it.turn().create if c.kind == "Job"]
    assert (job.name, job.body["spec"]["completions"]) == ("shapes-1-training-2", 1)
    assert it.status.resolved.spec.training.nodes == 1
    assert (entry(it, Stage.TRAINING).failures, entry(it, Stage.TRAINING).disruptions) == (0, 0)


def test_a_training_that_was_created_and_not_written_down_has_the_nodes_that_it_runs_on():
    it = training()
    assert it.spec.training is not None
    job = it.jobs.pop("shapes-1-training-1")
    it.pods = {u: p for u, p in it.pods.items() if p.stage is not Stage.TRAINING}
    it.jobs["shapes-1-training-2"] = replace(job, name="shapes-1-training-2", uid="another", attempt=2, pods=4)
    it.turn()
    assert (entry(it, Stage.TRAINING).attempt, entry(it, Stage.TRAINING).state) == (2, StageState.RUNNING)
    assert it.status.resolved.spec.training.nodes == 4


def test_the_candidate_is_served_only_when_the_trainers_are_off_their_gpus():
    it = trained()
    assert not names(it.turn())
    assert "waits until shapes-1-training-1" in (entry(it, Stage.SERVE_CANDIDATE).message or "")
    it.finish_work()
    it.control()
    assert names(it.turn()) == ["shapes-1-serve-candidate-1"]


def test_iterations_that_wait_for_each_other_are_told_so():
    spec = given.spec(model={"iterationRef": {"name": "b"}}, probe=None)
    cycle = Problem("IterationCycle", "spec.model.iterationRef.name is b, which leads back: shapes-1 -> b -> shapes-1")
    seen = Observed(given.ITERATION, previous=Previous("b", Status()), problems=(cycle,))
    plan = decide(spec, Status(), seen, given.platform(), given.T0)
    assert plan.status is not None
    accepted = condition(plan.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.reason, accepted.message) == ("IterationCycle", cycle.message)


def test_the_candidate_is_served_as_soon_as_all_trainers_have_ended_well_whatever_their_job_says_yet():
    it = trained()
    first, *rest = [p for p in it.pods.values() if p.stage is Stage.TRAINING]
    assert rest
    it.end_pod(first.uid, 0)
    assert not names(it.turn())
    for pod in rest:
        it.end_pod(pod.uid, 0)
    assert it.jobs["shapes-1-training-1"].is_live
    assert "shapes-1-serve-candidate-1" in names(it.turn())
