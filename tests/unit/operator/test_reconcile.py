"""What one pass makes of what the API server holds, and what events make of a loop."""

from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest
from kubernetes.client.exceptions import ApiException
from tests.unit.operator import given
from tests.unit.runs import given as rounds

from dpe_api.names import API_VERSION, LABEL_ROUND, LABEL_RUN, Stage
from dpe_api.run_status import RunPhase
from dpe_api.status import Phase, QueueStatus, Resolved, StageStatus, Status
from dpe_operator import reconcile as reconciling
from dpe_operator.gateway import Listed
from dpe_operator.holding import FINALIZER
from dpe_operator.loops import Loop
from dpe_operator.main import register
from dpe_operator.queueing import Queue, Standing
from dpe_operator.reconcile import LOOKS_PER_S, SOON_S, Operator, reconcile
from dpe_operator.runs.reconcile import reconcile_run
from dpe_operator.world import Iteration, Observed, Run


class Server:
    """An API server with these objects, by name. It keeps what is written."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = {body["metadata"]["name"]: body for body in bodies}
        self.removed: list[str] = []
        self.changed: dict[str, bool] = {}
        """spec.suspend by name, where it was changed."""

    async def iteration(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.bodies.get(name)

    async def run(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.bodies.get(name)

    async def iterations_of(self, run: Run) -> list[dict[str, Any]]:
        return [it for it in self.bodies.values() if it["metadata"].get("labels", {}).get(LABEL_RUN) == run.name]

    async def iteration_pages(self, namespace: str) -> AsyncIterator[Listed]:
        yield Listed([it for it in self.bodies.values() if it["metadata"]["name"] != rounds.RUN.name], 9)

    async def jobs(self, namespace: str, iteration: str | None = None) -> AsyncIterator[Listed]:
        yield Listed([], 9)

    pods = jobs

    async def secret_keys(self, namespace: str, name: str) -> set[str]:
        return {"accessKey", "secretKey"}

    async def note(self, resource: Any, note: Any) -> None:
        """Take it."""

    async def remove(self, resource: Iteration | Run) -> None:
        self.removed.append(resource.name)

    async def change(self, resource: Iteration | Run, patch: dict[str, Any]) -> None:
        self.changed[resource.name] = patch["spec"]["suspend"]

    async def write_status(
        self, resource: Iteration | Run, version: str, old: dict[str, Any], new: dict[str, Any]
    ) -> dict[str, Any]:
        body = self.bodies[resource.name]
        metadata = {**body["metadata"], "resourceVersion": str(int(version) + 1)}
        self.bodies[resource.name] = {**body, "metadata": metadata, "status": new}
        return self.bodies[resource.name]

    def status(self, name: str = given.ITERATION.name) -> Status:
        return Status.model_validate(self.bodies[name].get("status") or {})


class Empty:
    """A store with nothing in it."""

    endpoint = "http://store:9000"

    async def bucket_exists(self, bucket: str) -> bool:
        return True

    async def names(self, uri: str, limit: int = 0) -> list[str]:
        return []

    async def nothing(self, *_: Any) -> None:
        """None."""

    manifest = progress = get = etag = nothing


def body(spec: dict[str, Any], status: Status | dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    known = {
        "namespace": given.ITERATION.namespace,
        "name": given.ITERATION.name,
        "uid": given.ITERATION.uid,
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "finalizers": [FINALIZER],
        **metadata,
    }
    written = status.wire() if isinstance(status, Status) else status
    return {"apiVersion": API_VERSION, "metadata": known, "spec": spec, "status": written}


def operator(server: Server, **limits: Any) -> Operator:
    platform = given.platform(limits=limits)
    return Operator(server, Empty(), platform, Queue(platform))  # type: ignore[arg-type]


def loop_of(it: Operator) -> Loop:
    loop = Loop(given.ITERATION.namespace, given.ITERATION.name, given.ITERATION.uid)
    it.loops[loop.namespace, loop.name] = loop
    return loop


def accepted(status: Status) -> tuple[str, str]:
    (found,) = (c for c in status.conditions if c.type == "Accepted")
    return found.reason, found.message


NEWER = {"shinyTop": 1, "training": {**given.spec().wire()["training"], "shiny": {"deep": True}}}  # type: ignore[dict-item]


async def test_an_older_operator_leaves_out_what_a_newer_definition_puts_into_a_spec(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = Status(
        phase=Phase.TRAINING,
        resolved=Resolved(round=0, model_uri=rounds.BASE, spec=given.spec().resolve()),
        artifacts="s3://dpe/lab/shapes-1",
        stages=[StageStatus(name=stage) for stage in Stage],
    )
    server = Server(body({**given.spec().wire(), **NEWER, "suspend": True}, runs))
    it = operator(server)
    loop = loop_of(it)
    await reconcile(it, loop)
    assert server.status().phase is Phase.SUSPENDED
    loop.memory.doubt()
    await reconcile(it, loop)
    told = [record.getMessage() for record in caplog.records if "newer version" in record.getMessage()]
    assert sorted(line.split()[0] for line in told) == ["spec.shinyTop", "spec.training.shiny"], "each once"


async def test_a_spec_that_is_none_waits_for_no_place() -> None:
    waits = Status(queue=QueueStatus(position=1, pools=["training"]))
    server = Server(body({"model": {"uri": "no address"}}, waits))
    it = operator(server, iterationsPerNamespace=1)
    await reconcile(it, loop_of(it))
    assert accepted(server.status())[0] == "InvalidSpec"
    assert server.status().queue is None


async def test_one_that_is_to_begin_with_a_model_whose_status_is_not_understood_says_so() -> None:
    first = body(given.spec().wire(), {"phase": "Levitating"}, name="shapes-0", uid="another")
    spec = {k: v for k, v in given.spec().wire().items() if k != "model"}
    server = Server(first, body({**spec, "model": {"iterationRef": {"name": "shapes-0"}}}))
    it = operator(server, iterationsPerNamespace=1)
    it.enqueue(server.bodies["shapes-1"])
    await reconcile(it, loop_of(it))
    reason, message = accepted(server.status())
    assert reason == "IterationUnreadable"
    assert message.startswith("spec.model.iterationRef.name is shapes-0, whose status.phase is 'Levitating': ")
    assert not it.queue.knows("lab", "shapes-1"), "nobody waits for it"


@pytest.mark.parametrize(
    ("written", "holds"),
    [
        ({"phase": "Levitating", "queue": {"position": 1, "pools": ["training"]}}, False),
        ({"phase": "Levitating", "resolved": {"spec": {}}}, True),
    ],
)
async def test_one_whose_status_is_not_understood_holds_a_place_while_it_runs_and_none_while_it_waits(
    written: dict[str, Any], holds: bool
) -> None:
    server = Server(body(given.spec().wire(), written))
    it = operator(server, iterationsPerNamespace=1)
    it.enqueue(server.bodies["shapes-1"])
    await reconcile(it, loop_of(it))
    assert it.queue.knows("lab", "shapes-1") is holds
    assert server.bodies["shapes-1"]["status"] == written


async def test_one_that_may_not_be_let_in_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any) -> Any:
        raise ApiException(status=403, reason="Forbidden")

    async def observed(*_: Any) -> Observed:
        return Observed(given.ITERATION)

    waits = Status(queue=QueueStatus(position=1, pools=["training"]))
    server = Server(body(given.spec().wire(), waits))
    monkeypatch.setattr(server, "write_status", refused)
    monkeypatch.setattr(reconciling, "observe", observed)
    it = operator(server, iterationsPerNamespace=1)
    with pytest.raises(ApiException):
        await reconcile(it, loop_of(it))
    (entry,) = it.queue.entries
    assert entry.standing is Standing.WAITS


async def test_one_that_is_gone_waits_for_no_place_and_no_model() -> None:
    server = Server(body(given.spec().wire()))
    it = operator(server, iterationsPerNamespace=1)
    it.enqueue(server.bodies["shapes-1"])
    loop = loop_of(it)
    assert await it.is_waited_for("lab", "shapes-0")
    server.bodies.clear()
    assert await reconcile(it, loop) is None
    assert not it.queue.knows("lab", "shapes-1")
    assert not await it.is_waited_for("lab", "shapes-0")


def handler(it: Operator, name: str) -> Any:
    registry = kopf.OperatorRegistry()
    register(registry, it)
    (found,) = (h for h in registry._watching.get_all_handlers() if h.fn.__name__ == name)
    return found.fn


@pytest.mark.parametrize("kind", ["iteration", "run"])
async def test_a_loop_ends_when_its_object_vanishes_before_it_had_the_finalizer(kind: str) -> None:
    it = operator(Server())
    loop = loop_of(it)
    it.runs["lab", loop.name] = loop
    changed = handler(it, f"{kind}_changed")

    async def vanishes(uid: str) -> None:
        gone = body({"model": {}}, uid=uid, finalizers=[])
        event = {"type": "DELETED", "object": gone}
        await changed(namespace="lab", name=loop.name, labels={}, body=kopf.Body(gone), event=event)  # type: ignore[arg-type]

    await vanishes("of an earlier one")
    assert not loop.ended.is_set()
    await vanishes(loop.uid)
    assert loop.ended.is_set()
    assert loop.wake.is_set()


def test_those_that_have_ended_do_not_slow_down_those_that_run() -> None:
    it = operator(Server())
    for number in range(1000):
        loop = it.loops["lab", f"i{number}"] = Loop("lab", f"i{number}", f"uid-{number}")
        if number >= 10:
            loop.due = float("inf") if number % 2 else loop.due + 2 * SOON_S
    assert it.pace() == it.platform
    assert it.relist_s() == it.platform.resync_seconds
    for loop in it.loops.values():
        loop.due = 0.0
    assert it.pace().poll_seconds == 1000 / LOOKS_PER_S


def run_body(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return body(rounds.spec(**spec).wire(), status, name=rounds.RUN.name, uid=rounds.RUN.uid)


def round_body(status: dict[str, Any] | Status | None) -> dict[str, Any]:
    labels = {LABEL_RUN: rounds.RUN.name, LABEL_ROUND: "1"}
    owner = [{"uid": rounds.RUN.uid}]
    return body(given.spec().wire(), status, labels=labels, ownerReferences=owner)


async def look(server: Server, *, age_s: float = 0.0) -> Operator:
    it = operator(server)
    it.began -= age_s
    await reconcile_run(it, Loop("lab", rounds.RUN.name, rounds.RUN.uid))
    return it


async def test_a_run_says_which_of_its_iterations_has_a_status_that_is_not_understood() -> None:
    server = Server(run_body(), round_body({"phase": "Levitating"}))
    await look(server)
    message = server.bodies[rounds.RUN.name]["status"]["message"]
    assert message.startswith("DPEIteration shapes-1: status.phase is 'Levitating': ")


async def test_a_judged_round_whose_status_is_not_understood_does_not_keep_the_run_from_the_one_that_runs() -> None:
    unread = round_body({"phase": "Levitating"})
    labels = {LABEL_RUN: rounds.RUN.name, LABEL_ROUND: "2"}
    runs = {"name": "shapes-2", "uid": "second", "labels": labels, "ownerReferences": [{"uid": rounds.RUN.uid}]}
    second = body({"model": {"iterationRef": {"name": "shapes-1"}}}, rounds.status(Phase.TRAINING), **runs)
    waiting = body({"model": {"iterationRef": {"name": "shapes-1"}}}, {}, **runs)
    _, judged = rounds.look(rounds.spec(), None, rounds.seen(1, Phase.SUCCEEDED), rounds.seen(2, Phase.TRAINING))
    for own in (second, waiting):
        server = Server(run_body(judged.wire(), suspend=True), unread, own)
        await look(server)
        assert server.changed == {"shapes-2": True}
        status = server.bodies[rounds.RUN.name]["status"]
        assert status["rounds"][0]["phase"] == "Succeeded"
        assert server.removed == [], "what it refers to is there, though nobody understands it"


async def test_an_older_operator_leaves_out_what_a_newer_definition_puts_into_a_run() -> None:
    server = Server(run_body(suspend=True))
    server.bodies[rounds.RUN.name]["spec"]["template"]["shiny"] = 1
    await look(server)
    assert server.bodies[rounds.RUN.name]["status"]["phase"] == RunPhase.SUSPENDED.value


@pytest.mark.parametrize(("begun", "removed"), [(False, []), (True, [rounds.RUN.name])])
async def test_a_run_whose_time_is_over_stays_for_iterations_of_others_that_are_to_begin_with_one_of_its(
    begun: bool, removed: list[str]
) -> None:
    complete = {"phase": "Succeeded", "completionTime": "2026-01-01T12:00:00Z"}
    status = {"resolved": {"round": 1}} if begun else None
    other = body({"model": {"iterationRef": {"name": "shapes-1"}}}, status, name="other", uid="other")
    own = round_body(rounds.status(Phase.SUCCEEDED))
    server = Server(run_body(complete, ttlSecondsAfterFinished=1), own, other)
    await look(server)
    assert server.removed == removed
