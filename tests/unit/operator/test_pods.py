import json
from datetime import UTC, datetime

import pytest

from dpe_api.names import Stage
from dpe_operator.pods import job_seen, pod_seen

LABELS = {"dpe.dev/stage": "training", "dpe.dev/attempt": "2", "dpe.dev/iteration": "x"}
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T12:00:05Z"}


def pod(status: dict, **metadata):
    meta = {"name": "p", "uid": "u", "creationTimestamp": "2026-01-01T12:00:00Z", "labels": LABELS, **metadata}
    found = pod_seen({"metadata": meta, "status": status})
    assert found is not None
    return found


def moment(second: int) -> datetime:
    return datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)


def terminated(code: int, message: str = "", reason: str = "Error") -> dict:
    end = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T12:00:30Z"}
    return {"name": "main", "state": {"terminated": {**end, "startedAt": "2026-01-01T12:00:10Z"}}}


def test_a_termination_message_is_what_the_stage_said():
    text = json.dumps({"reason": "NoParquet", "message": "s3://dpe/data/probe holds no .parquet file"})
    seen = pod({"phase": "Failed", "conditions": [SCHEDULED], "containerStatuses": [terminated(65, text)]})
    (end,) = seen.ended
    assert (end.exit_code, end.reason, end.message) == (65, "NoParquet", "s3://dpe/data/probe holds no .parquet file")
    assert seen.started_at == moment(10)


def test_a_container_that_was_killed_is_described_by_its_state():
    seen = pod({"phase": "Failed", "containerStatuses": [terminated(137, "", "OOMKilled")]})
    assert seen.ended[0].reason == "OOMKilled"
    assert seen.ended[0].message == "container main ended with exit code 137 (OOMKilled)"


def test_the_start_of_a_stage_is_told_from_that_of_the_container_that_fetches_its_model():
    fetch = {**terminated(0), "name": "fetch-model"}
    main = {"name": "main", "state": {"running": {"startedAt": "2026-01-01T12:00:40Z"}}}
    seen = pod({"phase": "Running", "initContainerStatuses": [fetch], "containerStatuses": [main]})
    assert (seen.started_at, seen.main_started_at) == (moment(10), moment(40))


def test_what_others_put_into_a_pod_is_not_taken_for_the_start_of_its_stage():
    mesh = {"name": "istio-proxy", "state": {"running": {"startedAt": "2026-01-01T12:00:08Z"}}}
    main = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    seen = pod(
        {"phase": "Pending", "conditions": [SCHEDULED], "initContainerStatuses": [mesh], "containerStatuses": [main]}
    )
    assert (seen.started_at, seen.main_started_at) == (None, None)
    assert seen.waiting is not None
    assert seen.waiting.reason == "ImagePullBackOff"


def test_a_failed_init_container_counts():
    init = {**terminated(65, '{"reason": "ChecksumMismatch", "message": "m"}'), "name": "fetch-model"}
    waiting = {"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}
    seen = pod({"phase": "Failed", "initContainerStatuses": [init], "containerStatuses": [waiting]})
    assert [e.reason for e in seen.ended] == ["ChecksumMismatch"]


def test_an_image_that_does_not_come_is_a_wait_since_the_pod_was_placed():
    state = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    seen = pod({"phase": "Pending", "conditions": [SCHEDULED], "containerStatuses": [state]})
    assert seen.waiting is not None
    assert (seen.waiting.reason, seen.waiting.since) == ("ImagePullBackOff", moment(5))


def test_a_pod_without_a_node_says_what_the_scheduler_says():
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    seen = pod({"phase": "Pending", "conditions": [condition]})
    assert seen.scheduled_at is None
    assert seen.unschedulable == "0/2 nodes are available"


def test_the_moment_of_deletion_is_when_it_was_asked_for():
    seen = pod({"phase": "Running"}, deletionTimestamp="2026-01-01T12:00:40Z", deletionGracePeriodSeconds=30)
    assert seen.deleted_at == moment(10)


def test_a_disruption_target_is_seen():
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "m"}
    assert pod({"phase": "Running", "conditions": [condition]}).disrupted == "PreemptionByScheduler: m"


def test_a_job_whose_pods_are_still_stopping_has_ended():
    metadata = {"name": "j", "uid": "u", "creationTimestamp": "2026-01-01T12:00:00Z", "labels": LABELS}
    target = {"type": "FailureTarget", "status": "True", "lastTransitionTime": "2026-01-01T12:00:09Z", "message": "m"}
    seen = job_seen({"metadata": metadata, "spec": {}, "status": {"conditions": [target]}})
    assert seen is not None
    assert (seen.stage, seen.attempt, seen.ended_at, seen.complete) == (Stage.TRAINING, 2, moment(9), False)


@pytest.mark.parametrize(
    ("suspend", "condition", "suspended", "let_in_at"),
    [
        (True, None, True, None),
        (True, "True", True, None),
        (False, "True", True, None),  # let in, but the Job controller has not seen it
        (False, "False", False, moment(7)),
        (False, None, False, None),
    ],
)
def test_a_job_is_held_back_until_the_job_controller_has_seen_that_it_was_let_in(
    suspend, condition, suspended, let_in_at
):
    metadata = {"name": "j", "uid": "u", "creationTimestamp": "2026-01-01T12:00:00Z", "labels": LABELS}
    held = {"type": "Suspended", "status": condition, "lastTransitionTime": "2026-01-01T12:00:07Z"}
    status = {"conditions": [held] if condition else []}
    seen = job_seen({"metadata": metadata, "spec": {"suspend": suspend}, "status": status})
    assert seen is not None
    assert (seen.suspended, seen.let_in_at) == (suspended, let_in_at)


def test_objects_that_only_borrow_the_label_are_ignored():
    metadata = {
        "name": "j",
        "uid": "u",
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "labels": {"dpe.dev/iteration": "x"},
    }
    assert job_seen({"metadata": metadata}) is None
    assert pod_seen({"metadata": metadata}) is None
