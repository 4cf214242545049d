from datetime import timedelta

import pytest
from tests.unit.operator import given
from tests.unit.operator.given import at, ended

from dpe_api.artifacts import ExitReport
from dpe_api.names import Stage
from dpe_operator.failures import Outcome, Verdict, backoff_s, disruption_delay_s, judge, longest_wait
from dpe_operator.platform import Backoff, Deadlines
from dpe_operator.world import JobSeen, PodSeen

TRAINING = Stage.TRAINING
FAILED = given.job(TRAINING, ended_at=at(11), message="Job has reached the specified backoff limit")


def verdict(pods: list[PodSeen], job: JobSeen | None = FAILED, reports=(), now: float = 20) -> Outcome | None:
    return judge(job, pods, reports, 2, at(now))


def rank(index: int, code: int | None = None, **changes) -> PodSeen:
    end = {} if code is None else {"phase": "Failed", "ended": ended(code, message=f"rank {index}")}
    return given.pod(TRAINING, index=index, **{**end, **changes})


def said(index: int, code: int) -> ExitReport:
    pod = f"shapes-1-training-1-{index}"
    return ExitReport(attempt=1, pod=pod, exit_code=code, reason="Said", message="in the store", at=at(10))


@pytest.mark.parametrize(
    ("pods", "expected", "reason"),
    [
        pytest.param([rank(0, 65), rank(1, 76)], Verdict.FATAL, "Broke", id="bad data"),
        pytest.param([rank(0, 76), rank(1, 78)], Verdict.FATAL, "Broke", id="bad configuration"),
        pytest.param([rank(0, 1), rank(1, 76)], Verdict.CHARGED, "Broke", id="a crash and its consequence"),
        pytest.param(
            [rank(0, 1), rank(1, 143, deleted_at=at(10))],
            Verdict.CHARGED,
            "Broke",
            id="a crash, the rest is told to stop",
        ),
        pytest.param(
            [rank(0, 137, disrupted="EvictionByEvictionAPI"), rank(1, 76)],
            Verdict.DISRUPTED,
            "PodDisrupted",
            id="an eviction",
        ),
        pytest.param([rank(1, 76)], Verdict.DISRUPTED, "PodVanished", id="a pod removed by force"),
        pytest.param([rank(0, gone=True), rank(1, 76)], Verdict.DISRUPTED, "PodVanished", id="a pod seen to vanish"),
        pytest.param(
            [rank(0, 143, deleted_at=at(9)), rank(1, 76)],
            Verdict.DISRUPTED,
            "PodStopped",
            id="a pod deleted by a person",
        ),
        pytest.param(
            [rank(0, 1, deleted_at=at(9)), rank(1, 76)],
            Verdict.DISRUPTED,
            "PodStopped",
            id="a deleted pod that ends badly was still deleted",
        ),
        pytest.param(
            [rank(0, 76), rank(1, phase="Pending", scheduled_at=None, started_at=None, gone=True)],
            Verdict.DISRUPTED,
            "Unschedulable",
            id="a gang that was not complete in time",
        ),
        pytest.param([rank(0, 76), rank(1, 76)], Verdict.CHARGED, "Broke", id="nobody says why"),
        pytest.param(
            [rank(0, 137, deleted_at=at(12)), rank(1, 76)], Verdict.CHARGED, "Broke", id="deleted after its end"
        ),
    ],
)
def test_the_root_cause_of_a_lost_gang_is_found(pods, expected, reason):
    outcome = verdict(pods)
    assert outcome is not None
    assert (outcome.verdict, outcome.reason) == (expected, reason)


def test_a_crash_that_only_the_store_remembers_is_charged():
    outcome = verdict([rank(1, 76)], reports=(said(0, 70),))
    assert outcome is not None
    assert (outcome.verdict, outcome.message) == (Verdict.CHARGED, "pod shapes-1-training-1-0: in the store")


def test_a_pod_that_was_stopped_and_vanished_is_a_disruption():
    outcome = verdict([rank(0, gone=True), rank(1, 76)], reports=(said(0, 143),))
    assert outcome is not None
    assert outcome.verdict is Verdict.DISRUPTED


def test_the_verdict_waits_until_every_pod_has_said_why_it_stops():
    pods = [rank(0), rank(1, 76)]
    assert verdict(pods) is None
    late = verdict(pods, now=75)
    assert late is not None


def test_a_pod_that_does_not_stop_means_a_lost_node():
    outcome = verdict([rank(0, deleted_at=at(0))], job=given.job(TRAINING), now=61)
    assert outcome is not None
    assert (outcome.verdict, outcome.reason) == (Verdict.DISRUPTED, "NodeLost")


def test_a_running_job_is_not_judged():
    assert verdict([rank(0), rank(1)], job=given.job(TRAINING)) is None


def test_a_deleted_job_is_a_disruption():
    outcome = verdict([], job=None)
    assert outcome is not None
    assert (outcome.verdict, outcome.reason) == (Verdict.DISRUPTED, "JobDeleted")


def test_an_end_without_an_artifact_is_charged():
    done = given.job(Stage.DIAGNOSIS, ended_at=at(11), complete=True)
    pod = given.pod(Stage.DIAGNOSIS, phase="Succeeded", ended=ended(0))
    outcome = judge(done, [pod], (), 1, at(12))
    assert outcome is not None
    assert (outcome.verdict, outcome.reason) == (Verdict.CHARGED, "NothingPublished")


def test_backoff_doubles_up_to_its_cap_and_a_first_disruption_costs_no_time():
    backoff = Backoff(base=10, cap=60)
    assert [backoff_s(backoff, n) for n in (1, 2, 3, 4, 40)] == [10, 20, 40, 60, 60]
    assert [disruption_delay_s(backoff, n) for n in (1, 2, 3)] == [0, 10, 20]


def test_a_pod_is_stuck_only_after_its_grace_period():
    pod = rank(0, deleted_at=at(0))
    assert not pod.is_stuck(at(59))
    assert pod.is_stuck(at(0) + timedelta(seconds=60))


def waited(pods: list[PodSeen], stage: Stage = TRAINING):
    deadlines = Deadlines(scheduling=3600, image_pull=300, model_download=7200, startup=900, no_progress=1800)
    found = longest_wait(given.job(stage), pods, None, None, deadlines)
    assert found is not None
    return found[0]


def test_a_gang_waits_for_its_pod_without_a_node_and_is_not_blamed_for_no_progress():
    no_room = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu"
    wait = waited([rank(0), rank(1, phase="Pending", scheduled_at=None, started_at=None, unschedulable=no_room)])
    assert (wait.reason, wait.until) == ("Unschedulable", at(3600))
    assert no_room in wait.message


def test_progress_of_a_gang_is_expected_from_the_start_of_its_last_pod_on():
    wait = waited([rank(0), rank(1, scheduled_at=at(500), started_at=at(520))])
    assert (wait.reason, wait.until) == ("NoProgress", at(520 + 1800))


def test_progress_is_expected_from_the_stage_on_and_not_while_its_model_is_fetched():
    wait = waited([rank(0, main_started_at=at(1500)), rank(1, main_started_at=at(1600))])
    assert (wait.reason, wait.until) == ("NoProgress", at(1600 + 1800))


@pytest.mark.parametrize("stage", [TRAINING, Stage.SERVE_BASE])
def test_a_model_on_its_way_has_a_deadline_of_its_own(stage):
    wait = waited([given.pod(stage, started_at=at(10), main_started_at=None)], stage)
    assert (wait.reason, wait.until) == ("ModelNotFetched", at(10 + 7200))


def test_a_gang_waits_for_the_model_of_its_last_pod_and_is_not_blamed_for_no_progress():
    wait = waited([rank(0, main_started_at=at(40)), rank(1, main_started_at=None)])
    assert wait.reason == "ModelNotFetched"


def test_a_model_server_has_its_time_from_its_own_start_on():
    wait = waited([given.pod(Stage.SERVE_BASE, main_started_at=at(3000))], Stage.SERVE_BASE)
    assert (wait.reason, wait.until) == ("NotReady", at(3000 + 900))


def test_pods_that_have_ended_are_waited_for_no_longer_than_the_job_controller_needs_to_see_it():
    """However long they ran: what ended them is told by them, not by the deadline for pods that never came."""
    wait = waited([rank(0, 65, ended=ended(65, seconds=7200)), rank(1, 76, ended=ended(76, seconds=7201))])
    assert (wait.reason, wait.until) == ("NoPods", at(7201 + 3600))


def test_a_pod_that_was_told_to_stop_long_after_the_jobs_start_has_not_been_missing_since_then():
    assert waited([rank(0, deleted_at=at(5000), gone=True)]).until == at(5000 + 3600)


def test_pods_that_vanished_without_a_trace_are_left_to_the_job_controller():
    assert longest_wait(given.job(TRAINING), [rank(0, gone=True)], None, None, Deadlines()) is None


def shard(index: int, tail: str, created: int, **changes) -> PodSeen:
    name = f"shapes-1-generation-1-{index}-{tail}"
    return given.pod(Stage.GENERATION, index=index, **{"name": name, "uid": name, "created": at(created), **changes})


@pytest.mark.parametrize(
    ("replaced", "expected", "reason"), [(True, Verdict.CHARGED, "Broke"), (False, Verdict.DISRUPTED, "PodDisrupted")]
)
def test_an_eviction_that_was_made_good_does_not_excuse_what_broke_later(replaced, expected, reason):
    evicted = shard(0, "aaaaa", 0, phase="Failed", disrupted="EvictionByEvictionAPI", ended=ended(143, seconds=3))
    another = shard(0, "bbbbb", 5, phase="Succeeded", ended=ended(0, seconds=9))
    broken = shard(1, "ccccc", 0, phase="Failed", ended=ended(70, seconds=10))
    pods = [evicted, broken, *([another] if replaced else [])]
    outcome = judge(given.job(Stage.GENERATION, ended_at=at(11)), pods, (), 2, at(20))
    assert outcome is not None
    assert (outcome.verdict, outcome.reason) == (expected, reason)
