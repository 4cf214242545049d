"""Pods of tests, as the restricted profile wants them, and what happens to them."""

import time
from collections.abc import Callable
from typing import Any

from kubernetes import client
from tests.patience import deadline

PYTHON = "/opt/venv/bin/python"


def wait_for(condition: Callable[[], object], deadline_s: float, why: str) -> None:
    """Return when the condition holds; AssertionError with `why` when the deadline passes."""
    end = deadline(deadline_s)
    while not condition():
        assert time.monotonic() < end, f"not in time: {why}"
        time.sleep(0.5)


def manifest(
    name: str,
    image: str,
    command: list[str],
    *,
    node_pool: str | None = None,
    gpus: int = 0,
    labels: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A pod on RuntimeClass devhost that the restricted profile admits."""
    resources: dict[str, Any] = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}}
    if gpus:
        resources["limits"]["nvidia.com/gpu"] = str(gpus)
    spec = {
        "runtimeClassName": "devhost",
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {f"pool.dpe.dev/{node_pool}": "true"} if node_pool else {},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": "Never",
                "command": command,
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
                "resources": resources,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        **more,
    }
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def phase(core: client.CoreV1Api, namespace: str, name: str) -> str:
    """The pod's phase."""
    return str(core.read_namespaced_pod(name, namespace).status.phase)


def output(core: client.CoreV1Api, namespace: str, pod: dict[str, Any], deadline_s: float = 90) -> str:
    """Run a pod to its end; what it printed. AssertionError with that when it failed."""
    name = pod["metadata"]["name"]
    core.create_namespaced_pod(namespace, pod)
    done = ("Succeeded", "Failed")
    wait_for(lambda: phase(core, namespace, name) in done, deadline_s, f"pod {name} has not ended")
    said = str(core.read_namespaced_pod_log(name, namespace))
    assert phase(core, namespace, name) == "Succeeded", said
    return said
