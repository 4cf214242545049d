"""Records when each pod of a namespace appeared and when it held no resources any more, by a watch in a thread."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kubernetes import client, watch

from dpe_api.names import LABEL_ITERATION, LABEL_STAGE


@dataclass
class Lifetime:
    """One pod, as the watch saw it."""

    name: str
    iteration: str
    stage: str
    node: str | None
    appeared: datetime
    over: datetime | None = None
    """Its containers have ended or it was removed: its GPUs are free."""


@dataclass
class Timeline:
    """Use as a context manager around a run."""

    api: client.ApiClient
    namespace: str
    pods: dict[str, Lifetime] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        core = client.CoreV1Api(self.api)
        while not self._stop.is_set():
            events = watch.Watch().stream(
                core.list_namespaced_pod, self.namespace, label_selector=LABEL_ITERATION, timeout_seconds=5
            )
            seen: set[str] = set()
            for event in events:
                pod = event["object"]
                now, uid = datetime.now(UTC), pod.metadata.uid
                seen.add(uid)
                entry = self.pods.setdefault(
                    uid,
                    Lifetime(
                        pod.metadata.name,
                        pod.metadata.labels[LABEL_ITERATION],
                        pod.metadata.labels[LABEL_STAGE],
                        pod.spec.node_name,
                        now,
                    ),
                )
                entry.node = pod.spec.node_name or entry.node
                ended = event["type"] == "DELETED" or pod.status.phase in ("Succeeded", "Failed")
                if ended and entry.over is None:
                    entry.over = now
            self._sweep(seen)

    def _sweep(self, seen: set[str]) -> None:
        """A pod deleted between two watches is missing from the next one's initial list."""
        for uid, entry in self.pods.items():
            if uid not in seen and entry.over is None:
                entry.over = datetime.now(UTC)

    def of(self, iteration: str, stage: str) -> list[Lifetime]:
        """Pods of one stage."""
        return [p for p in self.pods.values() if p.iteration == iteration and p.stage == stage]
