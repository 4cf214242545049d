"""Waiting for a person between a generation's draft and its training."""

import json
from typing import Any

import pytest
from minio.credentials.providers import StaticProvider
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import Exit, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_operator import observe
from dpe_operator.conditions import condition
from dpe_operator.storage import Storage

REQUIRED = {"generation": {"review": "required", "shards": 3}}


def go_on(it: World, times: int = 12) -> None:
    for _ in range(times):
        it.turn()
        it.control()
        it.run_pods()
        it.finish_work()
        it.control()
        it.pass_time(6)


def waiting() -> World:
    """Until a person is asked."""
    it = World(given.spec(**REQUIRED), given.platform())
    go_on(it, 30)
    assert it.status.phase is Phase.AWAITING_REVIEW
    return it


def launch(it: World, name: str) -> dict[str, object]:
    """What the Job of a plan is told."""
    for _ in range(6):
        for child in it.plan().create:
            if (child.kind, child.name) == ("ConfigMap", name):
                return dict(json.loads(child.body["data"]["launch.json"]))
        it.turn()
    raise AssertionError(f"{name} is not created")


def test_it_waits_without_end_without_pods_and_says_the_very_command():
    it = waiting()
    for _ in range(5):
        it.pass_time(100_000)
        plan = it.turn()
        assert not plan.create
        assert plan.status is None
        it.control()
    assert it.status.phase is Phase.AWAITING_REVIEW
    assert not any(job.is_live for job in it.jobs.values())
    assert not [pod for pod in it.pods.values() if not pod.is_over]
    command = "kubectl -n lab annotate --overwrite dpeiterations shapes-1 dpe.dev/review=accepted"
    assert command in it.notes["AwaitingReview/draft"]
    entry = it.status.stage_status(Stage.GENERATION)
    assert command in (entry.message or "")
    assert it.status.review is not None
    assert it.status.review.draft == "s3://dpe/lab/shapes-1-01234567/generation/draft"
    assert it.status.stage_status(Stage.SERVE_BASE).state is StageState.DONE


@pytest.mark.parametrize(("word", "marks"), [("accepted", None), ("accepted", "etag"), ("", "etag")])
def test_an_annotation_or_the_marked_table_lets_it_go_on_without_a_model(word, marks):
    it = waiting()
    it.say(word, marks)
    told = launch(it, "shapes-1-generation-2")
    assert told["reviewed"] is True
    assert told["model"] == {"url": "", "uri": "s3://dpe/models/base", "extraArgs": []}
    assert it.sizes.get("shapes-1-generation-1") == 3
    it.behave()
    assert it.sizes["shapes-1-generation-2"] == 1, "one pod applies the marks"
    assert it.status.phase is Phase.SUCCEEDED
    assert it.status.review is None
    assert "shapes-1-serve-base-2" not in it.sizes


def test_rejected_fails_the_iteration_with_a_reason():
    it = waiting()
    it.say("rejected", "etag")
    it.turn()
    failed = condition(it.status.conditions, "Failed")
    assert it.status.phase is Phase.FAILED
    assert failed is not None
    assert failed.reason == "ReviewRejected"


def test_rejected_while_marks_are_applied_stops_that_and_fails():
    it = waiting()
    it.say("accepted")
    it.turn()
    assert it.jobs["shapes-1-generation-2"].is_live
    it.say("rejected")
    it.turn()
    assert it.status.phase is Phase.FAILED
    assert "shapes-1-generation-2" not in it.jobs


def test_another_word_is_told_and_nothing_starts():
    it = waiting()
    it.say("yes", "etag")
    plan = it.turn()
    assert not plan.create
    message = it.status.stage_status(Stage.GENERATION).message
    assert message == "annotation dpe.dev/review is 'yes': write accepted or rejected"


def test_bad_marks_are_nobodys_failure_and_are_applied_once_corrected():
    it = waiting()
    it.say("accepted", "bad")
    for number in range(2, 6):
        for _ in range(3):
            it.turn()
            it.control()
            it.run_pods()
        (pod,) = [p for p in it.pods.values() if p.name.startswith(f"shapes-1-generation-{number}-")]
        it.end_pod(pod.uid, Exit.BAD_DATA)
        it.control()
        for _ in range(4):
            it.turn()
            it.control()
        assert it.status.phase is Phase.AWAITING_REVIEW
        assert it.status.review is not None
        assert "Said: pod" in (it.status.review.problem or "")
        assert "Said: pod" in (it.status.stage_status(Stage.GENERATION).message or "")
        assert not any(job.is_live for job in it.jobs.values()), "the same marks are not tried again"
        it.say("accepted", f"corrected {number}")
    assert it.status.stage_status(Stage.GENERATION).failures == 0
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED


def test_a_new_operator_goes_on_from_the_status_alone_and_an_attempt_that_was_lost_is_made_again():
    it = waiting()
    it.say("accepted")
    it.turn()
    it.control()
    it.run_pods()
    (pod,) = [p for p in it.pods.values() if not p.is_over]
    it.change(pod.uid, disrupted="EvictionByEvictionAPI")
    it.stop_pod(pod.uid)
    go_on(it, 20)
    assert it.status.stage_status(Stage.GENERATION).attempt == 3
    assert it.status.stage_status(Stage.GENERATION).state is StageState.DONE


def test_suspended_while_it_waits_it_waits_again_when_it_is_resumed():
    it = waiting()
    it.spec = it.spec.model_copy(update={"suspend": True})
    it.turn()
    assert it.status.phase is Phase.SUSPENDED
    it.spec = it.spec.model_copy(update={"suspend": False})
    it.turn()
    assert it.status.phase is Phase.AWAITING_REVIEW


def test_accepted_beforehand_it_does_not_wait():
    it = World(given.spec(**REQUIRED), given.platform())
    it.say("accepted")
    seen = set()
    for _ in range(80):
        seen.add(it.status.phase)
        go_on(it, 1)
    assert it.status.phase is Phase.SUCCEEDED
    assert Phase.AWAITING_REVIEW not in seen


def test_without_a_review_nothing_of_it_is_seen():
    it = World(given.spec(), given.platform())
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert it.draft is None


class Shelf(Storage):
    """A store that holds what a test puts there."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(given.platform().object_store, StaticProvider("access", "secret"))
        self.objects = objects

    async def get(self, uri: str) -> bytes | None:
        return self.objects.get(uri)

    async def etag(self, uri: str) -> str | None:
        return None if uri not in self.objects else f"etag of {len(self.objects[uri])} bytes"


async def test_the_operator_reads_the_draft_once_and_then_looks_only_for_marks():
    it = World(given.spec(**REQUIRED), given.platform())
    it.turn()
    root, done = it.status.artifacts or "", given.manifest(Stage.DIAGNOSIS).model_dump_json(by_alias=True).encode()
    shelf = Shelf({f"{root}/diagnosis/manifest.json": done})
    assert (await read_store(shelf, it.status, root)).draft is None
    made = given.manifest(Stage.GENERATION)
    shelf.objects[f"{root}/generation/draft/manifest.json"] = made.model_dump_json(by_alias=True).encode()
    view = await read_store(shelf, it.status, root)
    assert (view.draft, view.reviewed) == (made, None)
    shelf.objects[f"{root}/generation/draft/reviewed.parquet"] = b"PAR1"
    view = await read_store(shelf, waiting().status, root)
    assert (view.draft, view.reviewed) == (None, "etag of 4 bytes")
    assert (await read_store(shelf, World(given.spec(), given.platform()).status, root)).reviewed is None


async def read_store(shelf: Shelf, status: Status, root: str) -> Any:
    return await observe._read_store(shelf, status, root, ())


def test_the_annotation_is_seen():
    metadata = {"namespace": "lab", "name": "x", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert observe.identity({"metadata": metadata}).review == ""
    assert (
        observe.identity({"metadata": {**metadata, "annotations": {"dpe.dev/review": "rejected"}}}).review == "rejected"
    )
