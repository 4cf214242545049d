"""Nodes: each a tree of namespaces whose first process runs containerd, kubelet and kube-proxy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from dev import paths
from dev.cluster import images
from dev.cluster.config import GPU_RESOURCE, GPUS_PER_NODE, Cluster, ClusterError, Node
from dev.cluster.control_plane import kubectl
from dev.cluster.processes import Processes, tail, wait_until, without_proxy

FILES = Path(__file__).resolve().parent / "files"
SERVICES = ("containerd", "kubelet", "kube-proxy")
_TEMPLATES = {
    "containerd.toml": "containerd.toml",
    "kubelet.yaml": "kubelet.yaml",
    "kube-proxy.yaml": "kube-proxy.yaml",
    "cni.conflist": "cni/10-dpe.conflist",
}
_READERS = {"containerd.toml": "containerd", "kubelet.yaml": "kubelet", "base-spec-devhost.json": "containerd"}
"""Which service reads a file at its start; kube-proxy ends by itself when its file is written and is started again."""
_NODES_SHARE = 0.85
"""Share of the machine's memory that all nodes together offer to pods."""
_CGROUPS = Path("/sys/fs/cgroup")


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of the machine. ClusterError with its own words when it fails and `check` holds."""
    # a service that it starts inside a node inherits the environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_proxy())
    if check and done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done


def _put(path: Path, text: str) -> bool:
    """Write a file only when its content differs; whether it did. kube-proxy ends whenever its file is written."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".new")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    part.replace(path)
    return True


def _devhost_spec(cluster: Cluster) -> str:
    """The base of every container of RuntimeClass devhost: containerd's default, and this machine's Python read-only.

    Nothing may be mounted under /tmp, where an emptyDir of the pod would hide it. The environment is reached through a
    link, so that another one can take its place without a restart of containerd.
    """
    spec = json.loads(run("ctr", "oci", "spec").stdout)
    # else 1024 open files, hard; without the key containers inherit containerd's limits
    spec["process"].pop("rlimits", None)
    mounts = {"/usr": "/usr", "/etc/alternatives": "/etc/alternatives", "/etc/ssl": "/etc/ssl"}
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        mounts[sys.base_prefix] = sys.base_prefix
    mounts[str(cluster.state / "venv")] = "/opt/venv"
    for source, target in mounts.items():
        if Path(source).exists():
            options = ["rbind", "ro", "nosuid", "nodev"]
            spec["mounts"].append({"destination": target, "type": "bind", "source": source, "options": options})
    return json.dumps(spec)


def link_venv(cluster: Cluster) -> None:
    """Point the link that containers mount as /opt/venv to the environment of the present requirements."""
    part = cluster.state / "venv.new"
    part.unlink(missing_ok=True)
    part.symlink_to(paths.venv())
    part.replace(cluster.state / "venv")


def render(cluster: Cluster, node: Node) -> set[str]:
    """Write the node's configuration; the services that must be started again to read it."""
    conf = cluster.conf / node.name
    total_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    values = {
        "NODE": node.name,
        "IP": node.ip,
        "POD_CIDR": node.pod_cidr,
        "PKI": str(cluster.pki),
        "DNS": cluster.dns,
        "CLUSTER_CIDR": cluster.cluster_cidr,
        "CONF": str(conf),
        "CGROUP": cluster.cgroup(node.name),
        "PAUSE": images.PAUSE,
        "RESERVED_MB": str(total_mib - int(total_mib * _NODES_SHARE / len(cluster.nodes))),
    }
    texts = {"base-spec-devhost.json": _devhost_spec(cluster)}
    for source, target in _TEMPLATES.items():
        text = (FILES / source).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        texts[target] = text
    texts["kubelet.kubeconfig"] = (cluster.pki / f"node-{node.name}.kubeconfig").read_text()
    texts["kube-proxy.kubeconfig"] = (cluster.pki / "kube-proxy.kubeconfig").read_text()
    texts["resolv.conf"] = (
        "nameserver 127.0.0.1\noptions attempts:1\n"  # pods with dnsPolicy Default see no other names
    )
    changed = {target for target, text in texts.items() if _put(conf / target, text)}
    return {_READERS[target] for target in changed if target in _READERS}


def first_process(cluster: Cluster, name: str) -> int | None:
    """The node's own process 1 as the machine numbers it, or None when the node is off."""
    pid = Processes(cluster).alive(f"node-{name}")
    if not pid:
        return None
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text().splitlines()
            numbers = next(line for line in status if line.startswith("NSpid:")).split()[1:]
            if len(numbers) > 1 and numbers[-1] == "1":  # else a helper of the shell that becomes the node
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while it was looked at
    return None


def enter(cluster: Cluster, name: str) -> list[str]:
    """The beginning of a command that runs inside a node; ClusterError when the node is off."""
    pid = first_process(cluster, name)
    if pid is None:
        raise ClusterError(f"node {name} is off: `python -m dev.cluster start-node {name}` starts it")
    return ["nsenter", "-t", str(pid), "-n", "-m", "-p", "-u", "-i", "--"]


def service(cluster: Cluster, name: str, action: str, what: str) -> None:
    """Start, stop, kill or restart containerd, kubelet or kube-proxy inside a node."""
    run(*enter(cluster, name), "bash", str(FILES / "node-service.sh"), action, what)


def _plug_in(cluster: Cluster, node: Node) -> None:
    """Give the node its cable, whatever an interrupted start left of it."""
    if run("ip", "link", "show", node.veth, check=False).returncode:
        if not wait_until(lambda: first_process(cluster, node.name) is not None, 5, 0.01):
            Processes(cluster).require(f"node-{node.name}")
        pid = first_process(cluster, node.name)
        run("ip", "link", "add", node.veth, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "link", "set", node.veth, "master", cluster.bridge, "up")


def start(cluster: Cluster, name: str) -> bool:
    """Switch a node on, or repair it when it is on; whether it was off. It is not waited for."""
    node, processes = cluster.nodes[name], Processes(cluster)
    stale = render(cluster, node)
    if processes.alive(f"node-{name}"):
        _plug_in(cluster, node)
        for what in sorted(stale):
            service(cluster, name, "restart", what)
        return False
    _remove_traces(cluster, node)
    disk = cluster.disks / name
    disk.mkdir(parents=True, exist_ok=True)
    routes = " ".join(f"{other.pod_cidr},{other.ip}" for other in cluster.nodes.values() if other != node)
    environment = {
        "NODE": name,
        "DISK": str(disk),
        "BIN": str(paths.binary_folder("k8s")),
        "CONF": str(cluster.conf / name),
        "CGROUP": cluster.cgroup(name),
        "IP": node.ip,
        "GATEWAY": cluster.gateway,
        "ROUTES": routes,
        "LABELS": node.labels,
        "IMAGES": str(cluster.images),
        "FILES": str(FILES),
    }
    namespaces = ["--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    command = ["unshare", *namespaces, "bash", str(FILES / "node-init.sh")]
    processes.start(f"node-{name}", command, environment)
    _plug_in(cluster, node)
    return True


def wait_ready(cluster: Cluster, name: str, limit_s: int = 90) -> None:
    """Return when the API server calls the node Ready and its GPUs are counted; ClusterError with the node's log."""
    processes = Processes(cluster)

    def ready() -> bool:
        processes.require(f"node-{name}")
        path = "{.status.conditions[?(@.type=='Ready')].status}"
        return kubectl(cluster, "get", "node", name, "-o", f"jsonpath={path}", check=False).stdout == "True"

    if not wait_until(ready, limit_s, 0.3):
        log = cluster.disks / name / "log" / "kubelet.log"
        raise ClusterError(f"node {name} is not Ready after {limit_s} s; the end of {log}:\n{tail(log)}")
    _offer_gpus(cluster, name)


def _offer_gpus(cluster: Cluster, name: str) -> None:
    """Count pretended GPUs in the node's status: they are scheduled, and exhausted, as a device plugin's would be.

    The kubelet keeps what others wrote there, across its restarts too; a node that was deleted gets it anew.
    """
    patch = {"status": {"capacity": {GPU_RESOURCE: str(GPUS_PER_NODE)}}}
    kubectl(cluster, "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    def counted() -> bool:
        path = f"{{.status.allocatable.{GPU_RESOURCE.replace('.', chr(92) + '.')}}}"
        return kubectl(cluster, "get", "node", name, "-o", f"jsonpath={path}").stdout == str(GPUS_PER_NODE)

    if not wait_until(counted, 30, 0.3):
        raise ClusterError(f"node {name} does not count its {GPU_RESOURCE}: its kubelet does not update the status")


def kill(cluster: Cluster, name: str) -> None:
    """A power cut: everything in the node dies at once, its network with it; its disk stays."""
    Processes(cluster).stop(f"node-{name}", signal.SIGKILL)
    _remove_traces(cluster, cluster.nodes[name])


def _remove_traces(cluster: Cluster, node: Node) -> None:
    """Remove the cable and the cgroups of a node that is off."""
    wait_until(lambda: run("ip", "link", "show", node.veth, check=False).returncode != 0, 5)
    run("ip", "link", "del", node.veth, check=False)
    name = cluster.cgroup(node.name)
    for root in [*_CGROUPS.glob(f"*/{name}"), _CGROUPS / name]:
        folders = [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]
        for folder in folders:
            if not wait_until(lambda f=folder: _removed(f), 5):  # type: ignore[misc]
                raise ClusterError(f"{folder} cannot be removed: a process is still in it")


def _removed(folder: Path) -> bool:
    """Try to remove a cgroup: it stays busy until the kernel has buried its processes."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def import_image(cluster: Cluster, archive: Path) -> None:
    """Import an archive into every node that is on; the others do it when they start."""
    for name in cluster.nodes:
        if first_process(cluster, name) is not None:
            mark = cluster.disks / name / "imported" / archive.name
            if not mark.exists() or mark.stat().st_mtime < archive.stat().st_mtime:
                run(*enter(cluster, name), "ctr", "-n", "k8s.io", "images", "import", str(archive))
                mark.touch()


def remove_disks(cluster: Cluster) -> None:
    """Forget everything that the nodes stored."""
    shutil.rmtree(cluster.disks, ignore_errors=True)
