"""Jobs and pods as events and lists show them, whichever comes first."""

import time
from typing import Any

from dpe_api.names import LABEL_ATTEMPT, LABEL_STAGE
from dpe_operator.failures import Verdict, judge
from dpe_operator.manifests.common import ANNOTATION_UID
from dpe_operator.observe import Memory
from dpe_operator.pods import job_seen, moment

OWN = "uid-of-iteration"
FAILED = [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T12:01:05Z"}]
LABELS = {LABEL_STAGE: "diagnosis", LABEL_ATTEMPT: "1"}


def thing(uid: str, version: int, owner: str = OWN, **more: Any) -> dict[str, Any]:
    metadata = {
        "name": f"name-{uid}",
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "labels": LABELS,
        "annotations": {ANNOTATION_UID: owner},
        "ownerReferences": [{"uid": owner}],
    }
    return {"metadata": metadata, "spec": {}, **more}


def test_an_event_that_is_newer_than_a_list_is_not_undone_by_it():
    memory = Memory()
    memory.see_pod(thing("a", 9, status={"phase": "Failed"}), OWN)
    memory.see_pod(thing("a", 7, status={"phase": "Running"}), OWN)
    assert memory.pods["a"].phase == "Failed"
    memory.see_job(thing("j", 9), OWN, gone=True)
    memory.see_job(thing("j", 7), OWN)
    assert memory.jobs == {}


def test_what_a_list_does_not_show_is_gone_unless_it_is_younger_than_the_list():
    memory = Memory()
    for uid, version in (("old", 5), ("young", 12)):
        memory.see_pod(thing(uid, version), OWN)
        memory.see_job(thing(f"job-{uid}", version), OWN)
    assert not memory.miss_pods({"old"}, 10)
    assert memory.miss_pods(set(), 10)
    assert {uid: pod.gone for uid, pod in memory.pods.items()} == {"old": True, "young": False}
    assert not memory.miss_pods(set(), 10), "it is known already"
    assert memory.miss_jobs(set(), 10)
    assert list(memory.jobs) == ["job-young"]


def test_pods_and_jobs_of_a_namesake_are_told_apart():
    memory = Memory()
    memory.see_pod(thing("p", 1, owner="another"), OWN)
    memory.see_job(thing("j", 1, owner="another"), OWN)
    assert (memory.pods, memory.jobs) == ({}, {})
    assert memory.foreign_jobs == {"j": "name-j"}
    memory.see_job(thing("j", 2, owner="another"), OWN, gone=True)
    assert memory.foreign_jobs == {}


def test_a_deleted_pod_is_remembered_as_gone_with_what_was_last_seen():
    memory = Memory()
    memory.see_pod(thing("p", 1, status={"phase": "Running"}), OWN)
    memory.see_pod(thing("p", 2, status={"phase": "Running"}), OWN, gone=True)
    assert (memory.pods["p"].gone, memory.pods["p"].phase) == (True, "Running")


def test_a_pod_that_was_killed_when_its_grace_was_over_had_been_told_to_stop_before_it_ended():
    """As the API server tells it: the kubelet deletes what it has killed once more, without grace."""
    memory = Memory()
    end = {"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-01T12:01:03Z"}
    sights: list[tuple[str, int, dict[str, Any]]] = [
        ("2026-01-01T12:01:03Z", 30, {"running": {"startedAt": "2026-01-01T12:00:25Z"}}),
        ("2026-01-01T12:01:03Z", 30, {"terminated": end}),
        ("2026-01-01T12:01:04Z", 0, {"terminated": end}),
    ]
    for version, (deleted, grace, state) in enumerate(sights, 1):
        phase = "Failed" if "terminated" in state else "Running"
        states = [{"name": "main", "state": state}]
        pod = thing("p", version, status={"phase": phase, "containerStatuses": states})
        pod["metadata"] |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace}
        memory.see_pod(pod, OWN)
    job = job_seen(thing("j", 9, status={"conditions": FAILED}))
    found = judge(job, list(memory.pods.values()), (), 1, moment("2026-01-01T12:01:05Z"))
    assert found is not None
    assert (found.verdict, found.reason) == (Verdict.DISRUPTED, "PodStopped")


def test_only_what_decisions_look_at_is_news():
    memory = Memory()
    running = {"phase": "Running"}
    assert memory.see_pod(thing("p", 1, status=running), OWN)
    assert not memory.see_pod(thing("p", 2, status={**running, "hostIP": "10.0.0.1"}), OWN)
    assert memory.see_pod(thing("p", 3, status={"phase": "Succeeded"}), OWN)
    assert not memory.see_pod(thing("p", 2, status=running), OWN), "older than what is known"
    assert memory.see_pod(thing("p", 4, status={"phase": "Succeeded"}), OWN, gone=True)
    assert memory.see_job(thing("j", 1), OWN)
    assert not memory.see_job(thing("j", 2, status={"active": 2, "ready": 1}), OWN)
    complete = [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T13:00:00Z"}]
    assert memory.see_job(thing("j", 3, status={"conditions": complete}), OWN)
    assert memory.see_job(thing("j", 4), OWN, gone=True)
    assert memory.see_job(thing("f", 5, owner="another"), OWN)
    assert not memory.see_job(thing("f", 6, owner="another"), OWN)


def test_of_the_iteration_itself_the_newest_sight_counts_until_something_puts_it_in_doubt():
    memory = Memory()
    for version in (5, 7, 6):
        memory.see_iteration(thing("i", version))
    seen = memory.iteration()
    assert seen is not None
    assert seen["metadata"]["resourceVersion"] == "7"
    assert not memory.is_recent(30), "Jobs and pods were never listed"
    memory.listed_at = time.monotonic()
    assert memory.is_recent(30)
    assert not memory.is_recent(0)
    memory.doubt()
    assert (memory.iteration(), memory.is_recent(30)) == (None, False)
    memory.see_iteration(thing("i", 8))
    memory.see_iteration(thing("i", 9), gone=True)
    assert memory.iteration() is None


def test_what_was_refused_is_not_tried_again_at_each_look():
    memory = Memory()
    memory.refuse("x", "exceeded quota", 3600)
    memory.refuse("y", "forbidden", 3600)
    memory.forgive()
    assert memory.not_admitted() == {"x": "exceeded quota", "y": "forbidden"}
    memory.refuse("x", "exceeded quota", 0)
    memory.forgive()
    assert memory.not_admitted() == {"y": "forbidden"}
