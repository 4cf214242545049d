"""Jobs and pods as events and lists show them, whichever comes first."""

from typing import Any

from dpe_api.names import LABEL_ATTEMPT, LABEL_STAGE
from dpe_operator.gateway import Listed
from dpe_operator.manifests.common import ANNOTATION_UID
from dpe_operator.observe import Memory

OWN = "uid-of-iteration"
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
    assert memory.miss(Listed([], 10), memory.pods) == ["old"]
    assert memory.miss(Listed([thing("old", 5)], 10), memory.pods) == []


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
