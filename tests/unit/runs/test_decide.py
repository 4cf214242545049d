from datetime import timedelta

import pytest
from tests.unit.runs import given
from tests.unit.runs.given import look, seen, spec

from dpe_api.names import Stage
from dpe_api.run_status import RunPhase, RunStatus
from dpe_api.spec import Spec
from dpe_api.status import Condition, Cost, Phase, StageStatus
from dpe_operator.conditions import condition
from dpe_operator.summaries import size

SUCCEEDED, REJECTED, FAILED, TRAINING = Phase.SUCCEEDED, Phase.REJECTED, Phase.FAILED, Phase.TRAINING


def created(plan) -> str | None:
    return None if plan.create is None else plan.create["metadata"]["name"]


def model(plan) -> dict:
    return Spec.model_validate(plan.create["spec"]).model.wire()


def reasons(plan) -> list[str]:
    return [note.reason for note in plan.notes]


def complete(status) -> str | None:
    found = condition(status.conditions, "Complete")
    return None if found is None else found.reason


def test_the_first_round_starts_from_the_runs_model_with_the_whole_template():
    plan, status = look(spec())
    assert created(plan) == "shapes-1"
    assert model(plan) == {"uri": given.BASE}
    first = Spec.model_validate(plan.create["spec"])
    assert (first.seed, first.training, first.evaluation) == (7, spec().template.training, spec().template.evaluation)
    metadata = plan.create["metadata"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("DPERun", given.RUN.uid, True)
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "team" not in metadata["labels"]
    assert (status.phase, status.progress, reasons(plan)) == (RunPhase.RUNNING, "0/3", ["RoundStarted"])


def test_a_run_has_begun_also_when_the_status_of_its_first_look_was_lost():
    for rounds in ((), (seen(1, TRAINING),)):
        _, status = look(spec(), None, *rounds)
        assert status.start_time == given.T0
    _, status = look(spec(suspend=True))
    assert status.start_time is None


def test_each_round_continues_from_the_one_before_whatever_the_gate_said_of_it():
    for phase in (SUCCEEDED, REJECTED):
        plan, _ = look(spec(), None, seen(1, phase))
        assert (created(plan), model(plan)) == ("shapes-2", {"iterationRef": {"name": "shapes-1"}})


def test_nothing_is_begun_while_a_round_runs():
    for phase in (Phase.PENDING, Phase.DIAGNOSING, TRAINING):
        plan, status = look(spec(), None, seen(1, SUCCEEDED), seen(2, phase))
        assert created(plan) is None
        assert (status.phase, status.progress, len(status.rounds)) == (RunPhase.RUNNING, "1/3", 2)


def test_the_run_says_what_its_round_waits_for():
    missing = Condition(
        type="Accepted", status="False", reason="ProbeNotFound", message="no probe", last_transition_time=given.T0
    )
    _, status = look(spec(), None, seen(1, Phase.PENDING, conditions=[missing]))
    assert status.message == "shapes-1 cannot start: ProbeNotFound: no probe"


def test_a_run_waits_for_the_review_of_its_round_and_says_so():
    asked = StageStatus(name=Stage.GENERATION, message="Look at gallery.html, then: kubectl annotate")
    for _ in range(2):
        plan, status = look(spec(), None, seen(1, SUCCEEDED), seen(2, Phase.AWAITING_REVIEW, stages=[asked]))
        assert created(plan) is None
        assert status.phase is RunPhase.RUNNING
        assert status.rounds[-1].phase is Phase.AWAITING_REVIEW
        assert status.message == "shapes-2 awaits review: Look at gallery.html, then: kubectl annotate"


def test_the_table_shows_accuracy_with_the_interval_of_its_change_samples_and_cost():
    plan, status = look(spec(), None, seen(1, SUCCEEDED, before=0.6219, after=0.75, low=0.1))
    (row,) = status.rounds
    assert (row.before, row.after, row.accepted, row.kept, row.target) == (0.6219, 0.75, True, 90, 1000)
    assert row.change is not None
    assert row.change.low == 0.1
    assert (status.accuracy_first, status.accuracy_latest) == ("62.2%", "75.0%")
    assert status.model is not None
    assert (status.model.uri, status.model.round) == (given.candidate("shapes-1"), 1)
    assert status.cost == Cost(gpu_seconds=100, tokens=1000)
    assert status.page == "s3://dpe/lab/shapes-1/evaluation/run.html"
    assert reasons(plan) == ["RoundAccepted", "RoundStarted"]
    assert "accuracy 62.2% to 75.0%, change +10.0 to" in plan.notes[0].message


def test_after_a_rejection_the_accepted_model_and_its_accuracy_stand():
    first = seen(1, SUCCEEDED, after=0.75)
    second = seen(2, REJECTED, base=given.candidate("shapes-1"), before=0.75, after=0.5, low=-0.3)
    plan, status = look(spec(), None, first, second)
    assert (status.accuracy_latest, status.model.round) == ("75.0%", 1)
    assert (created(plan), model(plan)) == ("shapes-3", {"iterationRef": {"name": "shapes-2"}})


STOPS = [
    ({}, (seen(1, SUCCEEDED), seen(2, SUCCEEDED), seen(3, SUCCEEDED)), "MaxIterations"),
    ({"maxIterations": 1}, (seen(1, SUCCEEDED),), "MaxIterations"),
    ({"stop": {"targetAccuracy": 0.7}}, (seen(1, SUCCEEDED, after=0.7),), "TargetReached"),
    ({"stop": {"targetAccuracy": 0.6}}, (seen(1, REJECTED, before=0.65),), "TargetReached"),
    ({"stop": {"targetAccuracy": 0.71}}, (seen(1, SUCCEEDED, after=0.7),), None),
    ({"stop": {"targetAccuracy": 0.7}}, (seen(1, REJECTED, before=0.6, after=0.7),), None),
    ({"stop": {"gpuSeconds": 100}}, (seen(1, SUCCEEDED),), "BudgetUsed"),
    ({"stop": {"gpuSeconds": 100.5}}, (seen(1, SUCCEEDED),), None),
    ({"stop": {"tokens": 2000}}, (seen(1, SUCCEEDED), seen(2, SUCCEEDED)), "BudgetUsed"),
    ({"stop": {"tokens": 2001}}, (seen(1, SUCCEEDED), seen(2, SUCCEEDED)), None),
    ({"stop": {"noGainRounds": 1}}, (seen(1, SUCCEEDED, low=0.0),), "NoGain"),
    ({"stop": {"noGainRounds": 1}}, (seen(1, SUCCEEDED, low=0.01),), None),
    ({"stop": {"noGainRounds": 2}}, (seen(1, SUCCEEDED, low=0.01), seen(2, REJECTED)), None),
    ({"stop": {"noGainRounds": 2}}, (seen(1, SUCCEEDED, low=-0.01), seen(2, REJECTED)), "NoGain"),
    ({"onRejected": "stop"}, (seen(1, SUCCEEDED), seen(2, REJECTED)), "RoundRejected"),
    ({"onRejected": "continueFromAccepted"}, (seen(1, REJECTED), seen(2, REJECTED)), None),
]


@pytest.mark.parametrize(("changes", "rounds", "reason"), STOPS)
def test_the_run_ends_when_a_stop_rule_says_so_and_not_before(changes, rounds, reason):
    plan, status = look(spec(**changes), None, *rounds)
    assert complete(status) == reason
    assert (created(plan) is None) == (reason is not None)
    if reason is not None:
        better = any(r.status.phase is SUCCEEDED for r in rounds)
        assert status.phase is (RunPhase.SUCCEEDED if better else RunPhase.REJECTED)
        assert status.completion_time is not None


def test_a_rejected_round_is_tried_again_with_other_seeds_and_then_the_run_ends():
    of = spec(onRejected="retryWithAnotherSeed", maxRetries=2)
    rounds = [seen(1, SUCCEEDED), seen(2, REJECTED)]
    seeds, status = {of.template.seed}, None
    for retry in (1, 2):
        plan, status = look(of, status, *rounds)
        assert created(plan) == f"shapes-2-{retry}"
        assert model(plan) == {"iterationRef": {"name": "shapes-1"}}
        seeds.add(plan.create["spec"]["seed"])
        rounds.append(seen(2, REJECTED, retry=retry))
    assert len(seeds) == 3
    plan, status = look(of, status, *rounds)
    assert (created(plan), complete(status)) == (None, "RetriesUsed")
    assert len(status.rounds) == 2
    assert (status.rounds[1].iteration, status.rounds[1].retry) == ("shapes-2-2", 2)
    assert status.cost == Cost(gpu_seconds=400, tokens=4000)


def test_a_retry_that_is_accepted_is_continued_from():
    of = spec(onRejected="retryWithAnotherSeed")
    plan, _ = look(of, None, seen(1, REJECTED), seen(1, SUCCEEDED, retry=1))
    assert (created(plan), model(plan)) == ("shapes-2", {"iterationRef": {"name": "shapes-1-1"}})


def test_the_budget_also_ends_retries():
    of = spec(onRejected="retryWithAnotherSeed", stop={"tokens": 1000})
    assert complete(look(of, None, seen(1, REJECTED))[1]) == "BudgetUsed"


def test_a_failed_round_fails_the_run_until_its_iteration_is_deleted():
    plan, failed = look(spec(), None, seen(1, FAILED))
    found = condition(failed.conditions, "Failed")
    assert (found.status, found.reason) == ("True", "NoSamples")
    assert found.message == "shapes-1: generation: none kept"
    assert (created(plan), failed.phase) == (None, RunPhase.FAILED)
    assert "delete DPEIteration shapes-1" in failed.message
    plan, again = look(spec(), failed)
    assert (created(plan), again.phase) == ("shapes-1", RunPhase.RUNNING)
    assert condition(again.conditions, "Failed").status == "False"
    assert again.completion_time is None


def test_an_iteration_deleted_while_it_runs_begins_anew_and_its_cost_is_not_forgotten():
    _, known = look(spec(), None, seen(1, SUCCEEDED), seen(2, TRAINING))
    plan, waiting = look(spec(), known, seen(1, SUCCEEDED), seen(2, TRAINING, deleting=True))
    assert created(plan) is None
    assert "is being deleted" in waiting.message
    plan, _ = look(spec(), waiting, seen(1, SUCCEEDED))
    assert (created(plan), reasons(plan)) == ("shapes-2", ["IterationDeleted", "RoundStarted"])
    _, after = look(spec(), waiting, seen(1, SUCCEEDED), seen(2, SUCCEEDED, uid="another"))
    assert after.cost == Cost(gpu_seconds=300, tokens=3000)


def test_an_iteration_that_is_judged_counts_also_while_it_is_being_deleted():
    _, known = look(spec(), None, seen(1, SUCCEEDED), seen(2, TRAINING))
    plan, after = look(spec(), known, seen(1, SUCCEEDED), seen(2, SUCCEEDED, deleting=True))
    assert [r.phase for r in after.rounds] == [SUCCEEDED, SUCCEEDED]
    assert created(plan) == "shapes-3"
    assert model(plan) == {"uri": given.candidate("shapes-2")}, "it may be gone before the next one has read from it"
    plan, _ = look(spec(), after, seen(1, SUCCEEDED))
    assert created(plan) != "shapes-2", "it is not run again when it is gone"


def test_a_judged_round_whose_iteration_was_deleted_stays_and_the_next_goes_on_from_its_model():
    _, known = look(spec(), None, seen(1, SUCCEEDED))
    plan, status = look(spec(), known)
    assert created(plan) == "shapes-2"
    assert model(plan) == {"uri": given.candidate("shapes-1")}
    assert plan.create["spec"]["seed"] != spec().template.seed  # else the first round's probe rows come again
    assert status.rounds[0].accepted is True


def test_rounds_keep_the_seed_of_the_one_before_so_that_no_draw_comes_again():
    """After a round that started by address the template's seed came back, as if it were the second round once more."""
    _, known = look(spec(maxIterations=5), None, seen(1, SUCCEEDED), seen(2, SUCCEEDED))
    third, status = look(spec(maxIterations=5), known, seen(1, SUCCEEDED))  # shapes-2 was deleted by hand
    seed = third.create["spec"]["seed"]
    fourth, _ = look(spec(maxIterations=5), status, seen(1, SUCCEEDED), seen(3, SUCCEEDED, seed=seed))
    assert (created(fourth), model(fourth)) == ("shapes-4", {"iterationRef": {"name": "shapes-3"}})
    assert fourth.create["spec"]["seed"] == seed != spec().template.seed

    again = spec(onRejected="retryWithAnotherSeed")
    plan, _ = look(again, None, seen(1, REJECTED, seed=7), seen(1, SUCCEEDED, retry=1, seed=99))
    assert (created(plan), plan.create["spec"]["seed"]) == ("shapes-2", 99)


def test_a_round_that_waits_for_a_deleted_iteration_is_begun_anew():
    _, known = look(spec(), None, seen(1, SUCCEEDED), seen(2, Phase.PENDING))
    plan, status = look(spec(), known, seen(2, Phase.PENDING))
    assert plan.delete is not None
    assert (plan.delete.name, reasons(plan)) == ("shapes-2", ["PreviousDeleted"])
    plan, _ = look(spec(), status)
    assert model(plan) == {"uri": given.candidate("shapes-1")}


def test_when_status_and_iterations_are_both_lost_a_round_starts_from_the_runs_model():
    plan, known = look(spec(), None, seen(2, Phase.PENDING))
    assert (plan.delete.name, reasons(plan)) == ("shapes-2", ["PreviousDeleted"])
    plan, _ = look(spec(), known)
    assert (created(plan), model(plan)) == ("shapes-2", {"uri": given.BASE})


def test_a_wiped_status_is_told_again_from_the_iterations():
    rounds = (seen(1, SUCCEEDED), seen(2, REJECTED, retry=1), seen(2, REJECTED), seen(3, TRAINING))
    of = spec(onRejected="retryWithAnotherSeed", maxIterations=5)
    plan, status = look(of, None, *rounds)
    assert created(plan) is None
    assert [(r.iteration, r.phase) for r in status.rounds] == [
        ("shapes-1", SUCCEEDED),
        ("shapes-2-1", REJECTED),
        ("shapes-3", TRAINING),
    ]
    assert status.cost.tokens == 4000


def test_a_name_that_somebody_else_has_is_reported_and_left_alone():
    plan, status = look(spec(), None, foreign=frozenset({"shapes-1"}))
    assert created(plan) is None
    assert "shapes-1 exists and is not this run's: delete it" in status.message
    assert (status.phase, reasons(plan)) == (RunPhase.PENDING, ["NameTaken"])
    assert status.rounds == []


def test_what_the_api_server_says_against_an_iteration_is_passed_on():
    plan, status = look(spec(), None, not_admitted={"shapes-1": "exceeded quota"})
    assert (created(plan), reasons(plan)) == (None, ["NotAdmitted"])
    assert status.message == "the API server does not take DPEIteration shapes-1: exceeded quota"
    assert plan.look_again_in == given.RESYNC


def test_a_template_that_is_not_taken_any_more_leads_to_a_new_run_because_it_cannot_be_changed():
    _, known = look(spec(), None, seen(1, SUCCEEDED))
    _, status = look(spec(), known, seen(1, SUCCEEDED), not_admitted={"shapes-2": "is invalid: merge them"})
    assert "is invalid: merge them; spec.template cannot be changed any more" in status.message
    assert status.message.endswith("create a new DPERun from status.model.uri")


def test_suspension_is_passed_on_and_taken_back():
    stopped = spec(suspend=True)
    plan, status = look(stopped, None, seen(1, TRAINING))
    assert (plan.suspend[0].name, plan.suspend[1]) == ("shapes-1", True)
    assert (status.phase, condition(status.conditions, "Suspended").status) == (RunPhase.SUSPENDED, "True")
    assert status.message == "waits until shapes-1 has stopped"
    asleep = seen(1, Phase.SUSPENDED, suspended=True, suspended_by_run=True)
    plan, status = look(stopped, status, asleep)
    assert (plan.suspend, status.message) == (None, None)
    plan, status = look(spec(), status, asleep)
    assert (plan.suspend[0].name, plan.suspend[1]) == ("shapes-1", False)
    assert (status.phase, condition(status.conditions, "Suspended").status) == (RunPhase.RUNNING, "False")


def test_a_round_that_is_resumed_and_waits_for_its_place_is_not_said_to_be_suspended():
    message = "namespace lab runs 4 of at most 4 iterations: 2 are before this one"
    waits = Condition(type="Suspended", status="True", reason="Queued", message=message, last_transition_time=given.T0)
    _, status = look(spec(), None, seen(1, Phase.SUSPENDED, conditions=[waits]))
    assert status.message == f"shapes-1 waits for its place: {message}"
    _, status = look(spec(), None, seen(1, Phase.SUSPENDED, suspended=True, suspended_by_run=True))
    assert status.message is None


def test_a_suspended_run_begins_no_round():
    for rounds in ((), (seen(1, SUCCEEDED),)):
        plan, status = look(spec(suspend=True), None, *rounds)
        assert (created(plan), status.phase) == (None, RunPhase.SUSPENDED)


def test_an_iteration_that_a_person_suspended_stays_suspended():
    plan, status = look(spec(), None, seen(1, Phase.SUSPENDED, suspended=True))
    assert plan.suspend is None
    assert "suspended by itself" in status.message


def test_a_run_that_is_deleted_does_nothing_more():
    gone = given.Run(given.RUN.namespace, given.RUN.name, given.RUN.uid, deleting=True)
    plan, _ = look(spec(), None, run=gone)
    assert plan == given.RunPlan()


@pytest.mark.parametrize("rounds", [(seen(1, SUCCEEDED),), (seen(1, FAILED),)])
def test_a_finished_run_is_removed_when_its_time_is_over(rounds):
    of = spec(maxIterations=1, ttlSecondsAfterFinished=100)
    _, status = look(of, None, *rounds)
    plan, _ = look(of, status, *rounds, at_s=99)
    assert (plan.remove_run, plan.look_again_in <= timedelta(seconds=30)) == (False, True)
    plan, _ = look(of, status, *rounds, at_s=101)
    assert plan.remove_run


@pytest.mark.parametrize("rounds", [(seen(1, SUCCEEDED),), (seen(1, FAILED),)])
def test_a_time_to_live_beyond_all_dates_is_a_long_one(rounds):
    of = spec(maxIterations=1, ttlSecondsAfterFinished=300_000_000_000)
    _, status = look(of, None, *rounds)
    plan, _ = look(of, status, *rounds, at_s=99)
    assert not plan.remove_run


def test_a_complete_run_changes_no_more():
    of = spec(maxIterations=1)
    _, status = look(of, None, seen(1, SUCCEEDED))
    plan, after = look(spec(), status)
    assert (plan.create, after.phase, complete(after)) == (None, RunPhase.SUCCEEDED, "MaxIterations")


def test_the_status_stays_below_32_kib_and_the_course_of_the_run_is_kept():
    of = spec(maxIterations=99)
    status, uri = RunStatus(), "s3://dpe/" + "x" * 1000
    for number in range(1, 99):
        accepted = number in (1, 40)
        phase = SUCCEEDED if accepted else REJECTED
        before = 0.599 + number / 1000
        found = seen(number, phase, before=before, after=before + 0.1, base=uri, artifacts=uri)
        plan, status = look(of, status, found)
        assert created(plan) == f"shapes-{number + 1}"
        assert size(status) < 32 * 1024
    assert len(status.rounds) == 98
    assert (status.rounds_without_gain, status.model.round) == (58, 40)
    assert status.model.uri == given.candidate("shapes-40")
    assert (status.accuracy_first, status.accuracy_latest) == ("60.0%", "73.9%")
    assert status.cost.tokens == 98_000
