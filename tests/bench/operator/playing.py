"""Plays scheduler, nodes and stages for pods of a namespace: the real Job controller makes them, this ends them.

A pod starts at once. A model server becomes ready and stays. A batch stage publishes what the unit tests' stages
publish, as soon as it is let go (`release`), and its pods end well. Every moment is noted, by the machine's clock.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes import config
from tests.unit.operator import given

from dpe_api.artifacts import Manifest
from dpe_api.names import GROUP, LABEL_ATTEMPT, LABEL_ITERATION, LABEL_STAGE, PLURAL, VERSION, Stage
from dpe_jobs.store import AlreadyPublished, Store, StoreError

MERGE = {"Content-Type": "application/merge-patch+json"}
Json = dict[str, Any]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Cluster:
    """The API server, for many small requests at once."""

    kubeconfig: Path
    namespace: str
    session: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> "Cluster":
        known = config.new_client_from_config(str(self.kubeconfig)).configuration  # writes what is inline into files
        self.url = known.host
        context = ssl.create_default_context(cafile=known.ssl_ca_cert)
        context.load_cert_chain(known.cert_file, known.key_file)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=32), timeout=aiohttp.ClientTimeout(total=None)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    def path(self, kind: str) -> str:
        """Collection of a kind in the namespace."""
        base = {"pods": "/api/v1", "jobs": "/apis/batch/v1", PLURAL: f"/apis/{GROUP}/{VERSION}"}[kind]
        return f"{base}/namespaces/{self.namespace}/{kind}"

    async def call(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """One request; RuntimeError with the server's words, but for what is gone."""
        headers = MERGE if method == "PATCH" else {}
        async with self.session.request(method, self.url + path, json=body, headers=headers, params=query) as answer:
            found: Json = await answer.json()
            if answer.status not in (200, 201, 202, 404, 409):
                raise RuntimeError(f"{method} {path}: {answer.status} {found.get('message')}")
            return found

    async def watch(self, kind: str) -> AsyncIterator[tuple[str, Json]]:
        """Type and object, for ever; those that exist come first, also after a connection was lost."""
        while True:
            query = {"watch": "true", "timeoutSeconds": "3000", "labelSelector": LABEL_ITERATION}
            if kind == PLURAL:
                del query["labelSelector"]
            async with self.session.get(self.url + self.path(kind), params=query, read_bufsize=2**22) as answer:
                if answer.status in (404, 429):  # the definition is not served yet
                    await asyncio.sleep(0.2)
                    continue
                if answer.status != 200:
                    raise RuntimeError(f"watch of {kind}: {answer.status} {await answer.text()}")
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # it has fallen behind: what exists comes again
                        break
                    yield event["type"], event["object"]


@dataclass
class Players:
    """All stages of all iterations."""

    cluster: Cluster
    store: Store
    moments: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """(iteration, stage, "created" | "over" | "gone"), seconds: its Job was seen; its pods became ready or ended; the
    last of them exists no more."""
    attempts: dict[tuple[str, str], int] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, Json] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """Iterations that have been deleted."""
    _free: dict[str, asyncio.Event] = field(default_factory=dict)
    _left: dict[tuple[str, str], int] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)
    """Pods that are played: a new watch shows them again."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    heard: float = field(default_factory=time.monotonic)
    """time.monotonic() of the last event of an iteration, Job or pod."""

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(8)
        self._manifests = {stage: given.summary(stage).wire() for stage in Stage if not stage.is_serving}

    def release(self, iteration: str) -> None:
        """Its batch stages end from now on as soon as they run."""
        self.released.add(iteration)
        self._gate(iteration).set()

    def _gate(self, iteration: str) -> asyncio.Event:
        return self._free.setdefault(iteration, asyncio.Event())

    def _run(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except (RuntimeError, OSError, aiohttp.ClientError, StoreError) as error:
                self.faults.append(repr(error))

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def play(self) -> None:
        """For ever."""
        watched: dict[str, Callable[[str, Json], None]] = {
            "pods": self._pod,
            "jobs": self._job,
            PLURAL: self._iteration,
        }
        await asyncio.gather(*(self._follow(kind, see) for kind, see in watched.items()))

    async def _follow(self, kind: str, see: Callable[[str, Json], None]) -> None:
        async for what, found in self.cluster.watch(kind):
            self.heard = time.monotonic()
            see(what, found)

    def _iteration(self, what: str, found: Json) -> None:
        name = found["metadata"]["name"]
        if what == "DELETED":
            self.gone.add(name)
            self.bodies.pop(name, None)
            self._free.pop(name, None)
            return
        self.phases[name] = (found.get("status") or {}).get("phase", "")
        self.bodies[name] = found["metadata"]
        if self.phases[name] in ("Succeeded", "Rejected", "Failed"):
            self.moments.setdefault((name, "end", "created"), time.monotonic())

    def _job(self, what: str, found: Json) -> None:
        if what != "ADDED":
            return
        labels = found["metadata"]["labels"]
        key = (labels[LABEL_ITERATION], labels[LABEL_STAGE])
        self.moments.setdefault((*key, "created"), time.monotonic())
        attempt = int(labels[LABEL_ATTEMPT])
        if attempt > self.attempts.get(key, 0):  # a new watch shows Jobs again
            self.attempts[key] = attempt
            self._left[key] = found["spec"]["parallelism"]

    def _pod(self, what: str, found: Json) -> None:
        name = found["metadata"]["name"]
        if what == "DELETED":
            labels = found["metadata"]["labels"]
            self.moments[labels[LABEL_ITERATION], labels[LABEL_STAGE], "gone"] = time.monotonic()
            self._alive.discard(name)
        if what == "ADDED" and name not in self._alive and not (found.get("status") or {}).get("startTime"):
            self._alive.add(name)
            self._run(self._life(name, found["metadata"]["labels"]))

    async def _status(self, pod: str, phase: str, state: Json, ready: bool) -> None:
        kinds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        conditions = [
            {"type": kind, "status": str(value), "lastTransitionTime": _now()} for kind, value in kinds.items()
        ]
        container = {
            "name": "main",
            "image": "none",
            "imageID": "",
            "restartCount": 0,
            "ready": ready,
            "started": ready,
            "state": state,
        }
        status = {
            "phase": phase,
            "startTime": _now(),
            "conditions": conditions,
            "containerStatuses": [container],
        }
        await self.cluster.call("PATCH", f"{self.cluster.path('pods')}/{pod}/status", {"status": status})

    async def _life(self, pod: str, labels: Json) -> None:
        iteration, stage = labels[LABEL_ITERATION], Stage(labels[LABEL_STAGE])
        began = _now()
        await self._status(pod, "Running", {"running": {"startedAt": began}}, ready=True)
        if stage.is_serving:
            self.moments[iteration, stage, "over"] = time.monotonic()
            return
        await self._gate(iteration).wait()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._publish, iteration, stage, labels)
        self._left[iteration, stage] -= 1
        if self._left[iteration, stage] == 0:
            self.moments[iteration, stage, "over"] = time.monotonic()
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": began, "finishedAt": _now()}
        await self._status(pod, "Succeeded", {"terminated": ended}, ready=False)

    def _publish(self, iteration: str, stage: Stage, labels: Json) -> None:
        uid = self.bodies[iteration]["uid"]
        folder = f"s3://dpe/{self.cluster.namespace}/{iteration}-{uid[:8]}/{stage}"
        manifest = Manifest(
            stage=stage.value,
            attempt=int(labels[LABEL_ATTEMPT]),
            created_at=datetime.now(UTC),
            summary=self._manifests[stage],
        )
        try:
            self.store.publish(folder, manifest)
        except AlreadyPublished:
            return  # another pod of the gang did
