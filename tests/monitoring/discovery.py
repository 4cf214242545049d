"""Service discovery of Kubernetes through files: Debian builds Prometheus without its own.

A thread lists pods and endpoints of a namespace over and over, and writes what `kubernetes_sd_configs` would find in
the roles `pod` and `endpoints`, as far as relabelling asks for it.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

EVERY_S = 1.0
META = "__meta_kubernetes_"


def label(name: str) -> str:
    """A Kubernetes label as service discovery spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _group(address: str, port: int, **meta: str) -> dict[str, Any]:
    return {"targets": [f"{address}:{port}"], "labels": {f"{META}{name}": value for name, value in meta.items()}}


def _labels(kind: str, found: dict[str, str] | None) -> dict[str, str]:
    return {f"{kind}_label_{label(name)}": value for name, value in (found or {}).items()}


def pods(core: client.CoreV1Api, namespace: str) -> Iterator[dict[str, Any]]:
    """A target for every port of every container."""
    for pod in core.list_namespaced_pod(namespace, _request_timeout=5).items:
        if pod.status.pod_ip is None:
            continue
        about = {"namespace": namespace, "pod_name": pod.metadata.name, "pod_phase": pod.status.phase}
        about |= _labels("pod", pod.metadata.labels)
        for container in pod.spec.containers:
            for port in container.ports or []:
                named = {"pod_container_name": container.name, "pod_container_port_name": port.name or ""}
                yield _group(pod.status.pod_ip, port.container_port, **about, **named)


def endpoints(core: client.CoreV1Api, namespace: str) -> Iterator[dict[str, Any]]:
    """A target for every port of every pod behind a Service."""
    services = {s.metadata.name: s for s in core.list_namespaced_service(namespace, _request_timeout=5).items}
    listed = core.list_namespaced_pod(namespace, _request_timeout=5).items
    for service in services.values():
        wanted = (service.spec.selector or {}).items()
        behind = [p for p in listed if p.status.pod_ip and wanted and wanted <= (p.metadata.labels or {}).items()]
        for pod in behind:
            numbers = {port.name: port.container_port for c in pod.spec.containers for port in c.ports or []}
            about = {"namespace": namespace, "pod_name": pod.metadata.name, "service_name": service.metadata.name}
            about |= _labels("service", service.metadata.labels)
            for port in service.spec.ports:
                number = numbers.get(port.target_port, port.target_port)
                yield _group(pod.status.pod_ip, int(number), **about, endpoint_port_name=port.name)


ROLES = {"pod": pods, "endpoints": endpoints}


@contextmanager
def discover(kubeconfig: Path, namespaces: list[str], folder: Path) -> Iterator[None]:
    """Keep `folder`/ROLE.json up to date for every role, until the end."""
    over = threading.Event()
    api = config.new_client_from_config(str(kubeconfig))
    core = client.CoreV1Api(api)

    def write() -> None:
        for role, find in ROLES.items():
            part = folder / f".{role}.json"
            part.write_text(json.dumps([target for namespace in namespaces for target in find(core, namespace)]))
            part.rename(folder / f"{role}.json")

    def loop() -> None:
        while not over.wait(EVERY_S):
            try:
                write()
            except (ApiException, urllib3.exceptions.HTTPError):
                continue  # an API server that is away: the last targets stay

    write()
    thread = threading.Thread(target=loop, name="discovery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
        api.close()
