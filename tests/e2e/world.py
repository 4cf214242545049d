"""What the e2e tests do to a cluster: apply resources, wait with deadlines, and break things on purpose."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client
from kubernetes.client import ApiException

from dpe_api.names import GROUP, LABEL_ITERATION, LABEL_STAGE, PLURAL, RUN_PLURAL, VERSION, Stage, artifact_root
from dpe_api.run_status import RunStatus
from dpe_api.status import Phase, StageState, Status
from dpe_jobs.store import Store
from tests.patience import deadline

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
OPERATOR_SELECTOR = "app.kubernetes.io/name=dpe,app.kubernetes.io/component=operator"


T = TypeVar("T")


def wait_for(what: Callable[[], T | None], deadline_s: float, why: Callable[[], str]) -> T:
    """Poll until the result is truthy; AssertionError with `why()` when the deadline passes."""
    end = deadline(deadline_s)
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {why()}")
        time.sleep(0.5)


@dataclass(frozen=True)
class World:
    """A namespace with an operator in it, and the object store behind it."""

    api: client.ApiClient
    namespace: str
    store: Store
    bucket: str

    @property
    def _custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    @property
    def _core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    @property
    def _batch(self) -> client.BatchV1Api:
        return client.BatchV1Api(self.api)

    def create(self, name: str, spec: dict[str, Any]) -> None:
        """Create an iteration."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DPEIteration",
            "metadata": {"name": name},
            "spec": spec,
        }
        self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)

    def create_run(self, name: str, spec: dict[str, Any]) -> None:
        """Create a run of several rounds."""
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "DPERun", "metadata": {"name": name}, "spec": spec}
        self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, RUN_PLURAL, body)

    def run_status(self, name: str) -> RunStatus:
        """Status of a run."""
        body = self._custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, RUN_PLURAL, name)
        return RunStatus.model_validate(body.get("status") or {})

    def patch_spec(self, name: str, spec: dict[str, Any]) -> None:
        """Merge-patch the spec."""
        self._custom.patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name, {"spec": spec})

    def get(self, name: str) -> dict[str, Any]:
        """The resource as it is."""
        return self._custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)

    def exists(self, name: str) -> bool:
        """Whether there is such an iteration."""
        try:
            self.get(name)
        except ApiException as error:
            if error.status != 404:
                raise
            return False
        return True

    def status(self, name: str) -> Status:
        """Its status."""
        return Status.model_validate(self.get(name).get("status") or {})

    def delete(self, name: str) -> None:
        """Delete an iteration and wait until it and its children are gone."""
        try:
            self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)
        except ApiException as error:
            if error.status != 404:
                raise
        wait_for(lambda: not self.pods(name), 90, lambda: f"pods of {name} are still there: {self.pods(name)}")

    def artifacts(self, name: str) -> str:
        """s3:// folder of its artifacts."""
        return artifact_root(self.bucket, "", self.namespace, name, self.get(name)["metadata"]["uid"])

    def pods(self, iteration: str, stage: Stage | None = None) -> list[client.V1Pod]:
        """Its pods, those being deleted included."""
        selector = f"{LABEL_ITERATION}={iteration}" + (f",{LABEL_STAGE}={stage}" if stage else "")
        return self._core.list_namespaced_pod(self.namespace, label_selector=selector).items

    def jobs(self, iteration: str) -> list[client.V1Job]:
        """Its Jobs."""
        return self._batch.list_namespaced_job(self.namespace, label_selector=f"{LABEL_ITERATION}={iteration}").items

    def delete_pod(self, pod: client.V1Pod, *, grace_s: int | None = None) -> None:
        """`kubectl delete pod`."""
        self._core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=grace_s)

    def operator_pod(self) -> client.V1Pod | None:
        """The operator's ready pod, if there is one."""
        for pod in self._core.list_namespaced_pod(self.namespace, label_selector=OPERATOR_SELECTOR).items:
            ready = any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
            if ready and not pod.metadata.deletion_timestamp:
                return pod
        return None

    def kill_operator(self) -> None:
        """Delete the operator's pod without grace and wait for a new, ready one."""
        old = wait_for(self.operator_pod, 120, lambda: "the operator is not ready")
        self.delete_pod(old, grace_s=0)

        def replaced() -> bool:
            new = self.operator_pod()
            return new is not None and new.metadata.uid != old.metadata.uid

        wait_for(replaced, 120, lambda: "no new operator pod became ready")

    def events(self, name: str) -> list[client.CoreV1Event]:
        """Events about the iteration, oldest first."""
        found = self._core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}").items
        return sorted(found, key=lambda e: str(e.last_timestamp or e.event_time or e.metadata.creation_timestamp))

    def story(self, name: str) -> str:
        """What a person would read in `kubectl describe`: for the messages of failed assertions."""
        status = self.status(name)
        stages = [f"{s.name}: {s.state} attempt {s.attempt} {s.message or ''}" for s in status.stages]
        conditions = [f"{c.type}={c.status} {c.reason}: {c.message}" for c in status.conditions]
        events = [f"{e.reason}: {e.message}" for e in self.events(name)]
        return "\n  ".join([f"{name} is {status.phase}", *stages, *conditions, "events:", *events])

    def wait_phase(self, name: str, *phases: Phase, deadline_s: float) -> Status:
        """Wait for one of the phases; another final phase ends the wait at once."""

        def reached() -> Status | None:
            status = self.status(name)
            if status.phase in phases:
                return status
            assert not status.phase.is_final, self.story(name)
            return None

        return wait_for(reached, deadline_s, lambda: self.story(name))

    def wait_condition(self, name: str, kind: str, value: str, reason: str, *, deadline_s: float) -> str:
        """Wait for a condition with this reason; returns its message."""

        def reached() -> str | None:
            for condition in self.status(name).conditions:
                if (condition.type, condition.status, condition.reason) == (kind, value, reason):
                    return condition.message
            return None

        return wait_for(reached, deadline_s, lambda: self.story(name))

    def wait_stage_running(self, name: str, stage: Stage, *, deadline_s: float) -> client.V1Pod:
        """Wait until a container of the stage runs (the serving stages: until it is ready); returns the pod."""

        def running() -> client.V1Pod | None:
            status = self.status(name)
            assert not status.phase.is_final, self.story(name)
            entry = status.stage_status(stage)
            assert entry.state is not StageState.DONE, f"{stage} was done before it was seen running"
            for pod in self.pods(name, stage):
                states = pod.status.container_statuses or []
                if pod.metadata.deletion_timestamp or not states or states[0].state.running is None:
                    continue
                if not stage.is_serving or states[0].ready:
                    return pod
            return None

        return wait_for(running, deadline_s, lambda: self.story(name))


def example(name: str, **changes: Any) -> dict[str, Any]:
    """The spec of an example YAML with sections merged over it."""
    spec = yaml.safe_load((EXAMPLES / name).read_text())["spec"]
    return merge(spec, changes)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A deep merge of two dicts; lists are replaced."""
    out = dict(base)
    for key, value in over.items():
        known = out.get(key)
        out[key] = merge(known, value) if isinstance(value, dict) and isinstance(known, dict) else value
    return out
