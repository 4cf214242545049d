"""Bringing one instance up and down. Every step looks at what is there first, so that any of them can be repeated.

Taking it down needs the standard library alone: the environment of packages may be gone, or another one by now.
"""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable

from dev import paths
from dev.cluster import control_plane, images, nodes, object_store, preflight
from dev.cluster.config import BUCKET, CONTROL_PLANE, Cluster, ClusterError
from dev.cluster.processes import PROXIES, Processes, locked, wait_until

NAMESPACE = "dpe"
"""Where the demo runs."""


def _network(cluster: Cluster) -> None:
    if nodes.run("ip", "link", "show", cluster.bridge, check=False).returncode:
        nodes.run("ip", "link", "add", cluster.bridge, "type", "bridge")
    nodes.run("ip", "addr", "replace", f"{cluster.gateway}/24", "dev", cluster.bridge)
    nodes.run("ip", "link", "set", cluster.bridge, "up")


def _routes(cluster: Cluster) -> None:
    """Let the machine reach pods, and Services through the first node's kube-proxy."""
    for node in cluster.nodes.values():
        nodes.run("ip", "route", "replace", node.pod_cidr, "via", node.ip, "dev", cluster.bridge)
    first = next(iter(cluster.nodes.values()))
    nodes.run("ip", "route", "replace", cluster.service_cidr, "via", first.ip, "dev", cluster.bridge)


def _dns_answers(cluster: Cluster) -> bool:
    """Whether an A query over UDP to the DNS Service is answered: kube-proxy and CoreDNS both work then."""
    labels = [b"kubernetes", b"default", b"svc", b"cluster", b"local", b""]
    name = b"".join(bytes([len(label)]) + label for label in labels)
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\0\1\0\1"  # one question: type A, class IN
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(0.5)
        try:
            channel.sendto(query, (cluster.dns, 53))
            answer = channel.recv(512)
        except OSError:
            return False
    return answer[3] & 15 == 0 and answer[7] > 0  # no error, and at least one answer


def is_up(cluster: Cluster) -> bool:
    """Whether every process of the instance runs."""
    processes = Processes(cluster)
    return all(processes.alive(name) for name in process_names(cluster))


def process_names(cluster: Cluster) -> list[str]:
    """Everything that runs outside the nodes, and the nodes themselves."""
    return [*CONTROL_PLANE, "minio", *(f"node-{name}" for name in cluster.nodes)]


def up(cluster: Cluster, say: Callable[[str], None] = print) -> None:
    """Start what does not run, repair what an interruption left, and return when pods can be scheduled and resolved."""
    from dev.cluster import pki

    began = time.monotonic()

    def mark(what: str) -> None:
        say(f"cluster: {time.monotonic() - began:5.1f} s  {what}")

    processes = Processes(cluster)
    anything = any(processes.alive(name) for name in process_names(cluster))
    preflight.check(cluster, down=not anything)
    with locked(cluster):
        cluster.state.mkdir(parents=True, exist_ok=True)
        cluster.state.chmod(0o711)  # containers look up the environment's link below it
        processes.prepare()
        if pki.ensure(cluster):
            mark("certificates made")
        images.ensure_base(cluster)
        nodes.link_venv(cluster)
        _network(cluster)
        object_store.start(cluster)
        for name in ("etcd", "apiserver"):
            control_plane.start(cluster, name)
        for name in cluster.nodes:
            nodes.start(cluster, name)
        _routes(cluster)
        mark("etcd, API server, MinIO and nodes started")
        control_plane.wait_ready(cluster)
        mark("API server ready")
        for name in ("kcm", "scheduler"):
            control_plane.start(cluster, name)
        for manifest in sorted((nodes.FILES / "manifests").glob("*.yaml")):
            control_plane.apply(cluster, manifest)
        object_store.wait_ready(cluster)
        mark(f"MinIO ready, bucket {BUCKET}")
        for name in cluster.nodes:
            nodes.wait_ready(cluster, name)
        mark(f"nodes {', '.join(cluster.nodes)} ready")
        if not wait_until(lambda: _dns_answers(cluster), 90, 0.1):
            raise ClusterError(
                "the cluster's DNS does not answer: `kubectl -n kube-system get pods` shows how CoreDNS is doing"
            )
        mark("cluster DNS answers")


def up_without_nodes(cluster: Cluster) -> None:
    """etcd, API server, controller manager and MinIO alone: for tests that play scheduler and nodes themselves."""
    from dev.cluster import pki

    with locked(cluster):
        cluster.state.mkdir(parents=True, exist_ok=True)
        processes = Processes(cluster)
        processes.prepare()
        pki.ensure(cluster)
        _network(cluster)
        object_store.start(cluster)
        for name in ("etcd", "apiserver"):
            control_plane.start(cluster, name)
        control_plane.wait_ready(cluster)
        control_plane.start(cluster, "kcm")
        object_store.wait_ready(cluster)


def down(cluster: Cluster, *, keep: bool = False, say: Callable[[str], None] = print) -> None:
    """Stop everything; remove its folder too, unless `keep`. What is not there is no error."""
    if os.geteuid() != 0:
        raise ClusterError("the embedded cluster was started by root: run `make cluster-down` as root")
    began = time.monotonic()
    with locked(cluster):
        processes = Processes(cluster)
        if cluster.state.exists():
            processes.prepare()
        for name in cluster.nodes:
            processes.stop(f"node-{name}", signal.SIGKILL)
        for name in ("minio", *reversed(CONTROL_PLANE)):
            # an API server with open watches takes long to end by itself, and loses nothing when it is killed
            processes.stop(name, wait_s=1.5)
        strays = processes.kill_strays()
        for name in cluster.nodes:
            nodes.kill(cluster, name)
        if nodes.run("ip", "link", "show", cluster.bridge, check=False).returncode == 0:
            nodes.run("ip", "link", "del", cluster.bridge)
        if not keep and cluster.state.exists():
            shutil.rmtree(cluster.state)
    more = f", {strays} without a record" if strays else ""
    say(f"cluster: down in {time.monotonic() - began:.1f} s{more}")


def stop_control_plane(cluster: Cluster, name: str, *, hard: bool = False) -> None:
    """Stop one process of the control plane, or MinIO; `hard` kills it."""
    with locked(cluster):
        Processes(cluster).stop(name, signal.SIGKILL if hard else signal.SIGTERM, wait_s=10)


def start_control_plane(cluster: Cluster, name: str) -> None:
    """Start one process of the control plane, or MinIO, and wait until it serves."""
    with locked(cluster):
        if name == "minio":
            object_store.start(cluster)
            object_store.wait_ready(cluster)
        else:
            control_plane.start(cluster, name)
            other = {"etcd": "apiserver", "apiserver": "etcd"}.get(name)
            if other and Processes(cluster).alive(other):  # else it is not to be ready yet
                control_plane.wait_ready(cluster)


def kill_node(cluster: Cluster, name: str) -> None:
    """Cut a node's power."""
    with locked(cluster):
        nodes.kill(cluster, name)


def start_node(cluster: Cluster, name: str, *, wait: bool = True) -> None:
    """Switch a node on and wait until it is Ready."""
    with locked(cluster):
        nodes.start(cluster, name)
        _routes(cluster)
        if wait:
            nodes.wait_ready(cluster, name)


def beside_the_proxy(cluster: Cluster) -> dict[str, str]:
    """Where the environment names a proxy: the variables that keep what is meant for the cluster from it."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return {}
    known = [name for name in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",") if name]
    # not every program reads networks: API server and MinIO are at the gateway
    networks = (f"{cluster.network}.0/24", cluster.cluster_cidr, cluster.service_cidr)
    own = ("localhost", "127.0.0.1", cluster.gateway, *networks)
    value = ",".join([*known, *(name for name in own if name not in known)])
    return {"NO_PROXY": value, "no_proxy": value}


def environment(cluster: Cluster) -> dict[str, str]:
    """What a shell needs to work with the instance; ClusterError when it was never started."""
    if not cluster.kubeconfig.exists():
        raise ClusterError("the embedded cluster is not up: run `make cluster-up`")
    user = object_store.credentials(cluster)
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PYTHONPATH": os.pathsep.join(str(paths.CHECKOUT / name) for name in ("crds", "operator", "jobs", ".")),
        "PATH": os.pathsep.join([*paths.binary_path(), str(paths.venv() / "bin"), os.environ.get("PATH", os.defpath)]),
        "DPE_S3_ENDPOINT": cluster.s3_endpoint,
        "DPE_S3_ACCESS_KEY": user.access_key,
        "DPE_S3_SECRET_KEY": user.secret_key,
        "DPE_S3_BUCKET": BUCKET,
        "DPE_NAMESPACE": NAMESPACE,
        **beside_the_proxy(cluster),
    }
