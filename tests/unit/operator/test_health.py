"""What counts as not looked after, and that the trouble of one namespace is that of one."""

import asyncio
import logging
import time
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from tests.unit.operator import given

from dpe_operator import health, main
from dpe_operator.gateway import Conflict
from dpe_operator.health import Health
from dpe_operator.holding import FINALIZER
from dpe_operator.loops import Loop
from dpe_operator.main import fill_queue
from dpe_operator.queueing import Queue, entry_of, place
from dpe_operator.reconcile import STALE_S, Operator
from dpe_operator.world import Resource


def body(namespace: str, name: str, **metadata: Any) -> dict[str, Any]:
    known = {
        "namespace": namespace,
        "name": name,
        "uid": f"uid-of-{namespace}-{name}",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "finalizers": ["somebody/else", FINALIZER],
    }
    return {"metadata": {**known, **metadata}, "spec": {}, "status": {}}


class Gateway:
    """An API server with these iterations, which answers some namespaces with an error."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = list(bodies)
        self.errors: dict[str, list[int]] = {}
        """By namespace: status codes that lists are answered with; the last one for ever."""
        self.released: list[tuple[str, dict[str, Any]]] = []
        self.refuses: Exception | None = None

    async def iterations(self, namespace: str, *, metadata_only: bool = False) -> list[dict[str, Any]]:
        answers = self.errors.get(namespace, [200])
        status = answers[0] if len(answers) == 1 else answers.pop(0)
        if status != 200:
            raise ApiException(status=status, reason="no")
        return [it for it in self.bodies if it["metadata"]["namespace"] == namespace]

    async def runs(self, namespace: str, *, metadata_only: bool = False) -> list[dict[str, Any]]:
        return []

    async def release(self, resource: Resource, metadata: dict[str, Any], finalizer: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.released.append((resource.name, metadata))
        self.bodies = [it for it in self.bodies if it["metadata"]["uid"] != resource.uid]


def operator(gateway: Gateway) -> Operator:
    platform = given.platform(limits={"iterationsPerNamespace": 1})
    return Operator(gateway, None, platform, Queue(platform))  # type: ignore[arg-type]


class Clock:
    """The time that Health reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.monotonic
        monkeypatch.setattr(health.time, "monotonic", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def looks(it: Health, clock: Clock, *namespaces: str) -> None:
    """Two looks, between which everything gets late. The event loop turns."""
    for _ in range(2):
        for namespace in namespaces:
            await it._look(namespace)
        clock.ahead += STALE_S + 1
    it._turned = health.time.monotonic()


@pytest.mark.parametrize("status", [403, 404])
async def test_a_namespace_that_is_gone_does_not_keep_the_queue_from_being_filled(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(main, "RETRY_S", (0.0, 0.0))
    gateway = Gateway(body("lab", "first"))
    gateway.errors["gone"] = [status]
    it = operator(gateway)
    await asyncio.wait_for(fill_queue(it, ["gone", "lab"]), 5)
    assert [entry.name for entry in it.queue.entries] == ["first"]
    (told,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert told.startswith("namespace gone: cannot list iterations")


async def test_nobody_is_let_in_before_an_api_server_that_is_starting_has_said_who_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "RETRY_S", (0.0, 0.0))
    gateway = Gateway(body("lab", "first"))
    gateway.errors["lab"] = [403, 403, 200]
    it = operator(gateway)
    await asyncio.wait_for(fill_queue(it, ["lab"]), 5)
    gateway.errors["lab"] = [503, 503, 503, 503, 200]
    gateway.bodies.append(body("lab", "second"))
    await asyncio.wait_for(fill_queue(it, ["lab"]), 5)
    assert sorted(entry.name for entry in it.queue.entries) == ["first", "second"]


async def test_a_namespace_that_could_not_be_listed_at_the_start_is_in_the_queue_as_soon_as_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "RETRY_S", (0.0, 0.0))
    gateway = Gateway(body("closed", "first"), body("closed", "ended"))
    gateway.errors["closed"] = [403]
    it = operator(gateway)
    it.loops["closed", "ended"] = Loop("closed", "ended", "uid-of-closed-ended")
    await asyncio.wait_for(fill_queue(it, ["closed"]), 5)
    health_of_it = Health(it, ["closed"])
    await health_of_it._look("closed")
    assert it.queue.entries == ()
    gateway.errors.clear()
    await health_of_it._look("closed")
    assert [entry.name for entry in it.queue.entries] == ["first"], "the other one is told by its loop"


async def test_who_waits_in_a_namespace_that_may_not_be_looked_at_keeps_no_place_of_a_pool_from_others() -> None:
    pools = given.platform().model_dump(by_alias=True)["pools"]
    pools["training"]["maxIterations"] = 1
    platform = given.platform(pools=pools)
    gateway = Gateway()
    it = Operator(gateway, None, platform, Queue(platform))  # type: ignore[arg-type]
    waits = {**body("closed", "older"), "status": {"queue": {"position": 1, "pools": ["training"]}}}
    it.enqueue(waits)
    it.enqueue(body("closed", "unseen"))
    mine = entry_of(body("lab", "mine", creationTimestamp="2026-01-01T13:00:00Z"))
    called = it.loops["lab", "mine"] = Loop("lab", "mine", "uid-of-lab-mine")
    it.enqueue({**body("lab", "mine", creationTimestamp="2026-01-01T13:00:00Z"), "status": waits["status"]})
    health_of_it = Health(it, ["closed"])
    gateway.errors["closed"] = [403]
    await health_of_it._look("closed")
    assert not place(mine, it.queue.entries, platform).is_free, "an API server that starts refuses for a moment"
    await health_of_it._look("closed")
    assert place(mine, it.queue.entries, platform).is_free
    assert called.wake.is_set()


async def test_what_runs_in_a_namespace_that_may_not_be_looked_at_holds_its_place() -> None:
    gateway = Gateway()
    it = operator(gateway)
    it.enqueue({**body("closed", "runs"), "status": {"phase": "Training", "resolved": {"spec": {}}}})
    gateway.errors["closed"] = [403]
    health_of_it = Health(it, ["closed"])
    for _ in range(3):
        await health_of_it._look("closed")
    assert it.queue.knows("closed", "runs")


async def test_what_has_no_loop_is_found_also_beside_a_namespace_that_is_gone(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(body("lab", "first"))
    gateway.errors["gone"] = [403]
    it = Health(operator(gateway), ["gone", "lab"])
    await looks(it, clock, "gone", "lab")
    assert it.hangs() == ["lab/first has no loop"]
    assert [fault.split(":")[0] for fault in it.faults()] == [
        "lab/first has no loop",
        "namespace gone cannot be looked at",
    ]
    assert len([record for record in caplog.records if "namespace gone" in record.getMessage()]) == 1
    gateway.errors.clear()
    await looks(it, clock, "gone")
    assert it.faults() == ["lab/first has no loop"]


async def test_a_restart_is_not_asked_for_where_it_does_not_help(clock: Clock) -> None:
    gateway = Gateway(body("gone", "first"))
    it = Health(operator(gateway), ["gone"])
    await looks(it, clock, "gone")
    assert it.hangs() == ["gone/first has no loop"]
    gateway.errors["gone"] = [403]
    await looks(it, clock, "gone")
    assert it.hangs() == []


async def test_an_api_server_that_is_away_is_no_fault_of_ours(clock: Clock) -> None:
    gateway = Gateway()
    gateway.errors["lab"] = [503]
    it = Health(operator(gateway), ["lab"])
    await looks(it, clock, "lab")
    assert it.faults() == []


async def test_what_is_being_deleted_and_has_no_loop_is_let_go(clock: Clock) -> None:
    dying = {"deletionTimestamp": "2026-01-01T12:00:00Z"}
    gateway = Gateway(body("lab", "first", **dying), body("lab", "others", finalizers=["somebody/else"], **dying))
    it = Health(operator(gateway), ["lab"])
    await it._look("lab")
    assert gateway.released == [], "kopf is about to do it"
    await looks(it, clock, "lab")
    assert [name for name, _ in gateway.released] == ["first"]
    assert it.faults() == []


async def test_what_cannot_be_let_go_is_told_with_the_reason(clock: Clock) -> None:
    gateway = Gateway(body("lab", "first", deletionTimestamp="2026-01-01T12:00:00Z"))
    gateway.refuses = ApiException(status=403, reason="Forbidden")
    it = Health(operator(gateway), ["lab"])
    await looks(it, clock, "lab")
    (told,) = it.faults()
    assert told.startswith("lab/first is being deleted, and its finalizer cannot be removed: API server: 403 Forbidden")
    assert it.hangs() == []
    gateway.refuses = Conflict("changed")
    await looks(it, clock, "lab")
    assert it.faults() == []


async def test_a_slow_list_does_not_look_like_an_event_loop_that_hangs(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TICK_S", 0.001)
    gateway = Gateway()
    it = Health(operator(gateway), ["lab"])
    asked = asyncio.Event()

    async def never(namespace: str, *, metadata_only: bool = False) -> list[dict[str, Any]]:
        asked.set()
        await asyncio.Event().wait()
        return []

    gateway.iterations = never  # type: ignore[method-assign]
    beside = [asyncio.create_task(it.watch()), asyncio.create_task(it.tick())]
    await asyncio.wait_for(asked.wait(), 5)
    clock.ahead += STALE_S + 1
    for _ in range(5000):
        await asyncio.sleep(0.001)
        if not it.faults():
            break
    assert it.faults() == []
    for task in beside:
        task.cancel()
