"""What the machine must offer, checked before anything is started, with a sentence for each thing that is missing."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from dev import paths
from dev.cluster.config import MAX_INSTANCE, Cluster, ClusterError

_COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "flock": "util-linux",
    "busybox": "busybox-static",
}
"""Command -> Debian package."""
_CNI = Path("/usr/lib/cni/bridge")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_RESOLV_CONF = Path("/etc/resolv.conf")
_FILESYSTEMS = Path("/proc/filesystems")
"""Those that the kernel has loaded."""
_ROOT = (
    "the embedded cluster needs root (network namespaces, cgroups, mounts): run as root, "
    "or use a cluster of yours with `make demo KUBE_CONTEXT=name`"
)
MEMORY_GIB = 12
"""What the whole turn needs: control plane 1, vLLM 3, two ranks of 1.5, the tests themselves, and room."""


def _loads_when_needed(module: str) -> bool:
    """Whether the kernel has a module that the first mount loads; on a fresh machine nobody has mounted one yet."""
    if shutil.which("modprobe") is None:
        return False
    return subprocess.run(["modprobe", "--dry-run", "--quiet", module], check=False).returncode == 0


def _cgroups() -> str | None:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        found = (root / "cgroup.controllers").read_text().split()
    else:
        found = [p.name for p in root.iterdir()] if root.exists() else []
    missing = [c for c in _CONTROLLERS if c not in found]
    if missing:
        return (
            f"no cgroup controller {', '.join(missing)} under {root}: mount cgroups, or start the container with them"
        )
    # without root nothing of it can be written, which is said elsewhere
    if os.geteuid() == 0 and not os.access(
        root if (root / "cgroup.controllers").exists() else root / "memory", os.W_OK
    ):
        return f"{root} is read-only: the nodes need cgroups of their own (a container needs --privileged)"
    return None


def _missing_commands() -> list[str]:
    problems = [
        f"no command `{command}`: apt-get install {package}"
        for command, package in _COMMANDS.items()
        if shutil.which(command) is None
    ]
    if not _CNI.exists():
        problems.append(f"no {_CNI}: apt-get install containernetworking-plugins")
    return problems


def _missing_files() -> list[str]:
    problems = [
        f"{paths.binary(name)} is not built: run `make setup`"
        for names in paths.BINARIES.values()
        for name in names
        if not paths.binary(name).exists()
    ]
    if not (paths.venv() / "bin" / "python").exists():
        problems.append(f"{paths.venv()} is not installed: run `make setup`")
    return problems


def _address_in_use(cluster: Cluster) -> str | None:
    """Whether another machine or program already has what the instance wants; only asked while it is down."""
    for port, what in ((cluster.port(23790), "etcd"), (cluster.port(10257), "kcm"), (cluster.port(10259), "scheduler")):
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"port {port} of this machine is taken, {what} needs it: `ss -ltnp` shows by what"
    return None


def _in_use(bridge: str) -> Iterator[tuple[str, str]]:
    """Addresses and networks that the machine has to do with, but for those on the bridge, and what each is."""

    def ip(what: str) -> Any:
        done = subprocess.run(["ip", "-4", "-j", what], capture_output=True, text=True, check=True)
        return json.loads(done.stdout or "[]")

    for route in ip("route"):
        if route.get("dev") != bridge:
            yield route["dst"].replace("default", "0.0.0.0/0"), f"route {route['dst']} dev {route.get('dev', '-')}"
            if "gateway" in route:
                yield route["gateway"], f"gateway {route['gateway']}"
    for link in ip("addr"):
        for address in link.get("addr_info", ()) if link.get("ifname") != bridge else ():
            yield address["local"], f"address {address['local']} of {link['ifname']}"
    for line in _RESOLV_CONF.read_text().splitlines() if _RESOLV_CONF.exists() else ():
        match line.split():
            case ["nameserver", address, *_] if ":" not in address:
                yield address, f"nameserver {address} of {_RESOLV_CONF}"


def _conflicts(cluster: Cluster) -> list[str]:
    """What of the machine lies in the instance's networks and could not be reached, or would be replaced.

    A wider route, as 10.0.0.0/8 into a VPN, is none: it stays, without the instance's part.
    """
    ours = {f"{cluster.network}.0/24": "nodes", cluster.cluster_cidr: "pods", cluster.service_cidr: "Services"}
    return [
        f"{what} lies in {network} ({purpose})"
        for address, what in _in_use(cluster.bridge)
        for network, purpose in ours.items()
        if IPv4Network(address, strict=False).subnet_of(IPv4Network(network))
    ]


def _networks_in_use(cluster: Cluster) -> str | None:
    """Whether the machine has the instance's networks already; only asked while it is down."""
    conflicts = _conflicts(cluster) if shutil.which("ip") else []
    if not conflicts:
        return None
    # the highest first: the tests have 1 and 2
    free = [n for n in range(MAX_INSTANCE, -1, -1) if not _conflicts(Cluster(n))]
    mend = (
        f"set DPE_CLUSTER_INSTANCE={free[0]}, which has other networks, for this and every later command"
        if free
        else "no DPE_CLUSTER_INSTANCE has free networks: use a cluster of yours with `make demo KUBE_CONTEXT=name`"
    )
    return f"this machine uses networks of the cluster already: {'; '.join(conflicts)}: {mend}"


def machine(*, turn: bool = False) -> list[str]:
    """What no installation mends, a sentence each; setup asks for it before it begins. `turn`: for the whole turn."""
    problems = [] if os.geteuid() == 0 else [_ROOT]
    if "overlay" not in _FILESYSTEMS.read_text() and not _loads_when_needed("overlay"):
        problems.append("the kernel has no overlay file system: modprobe overlay")
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if turn and memory_gib < MEMORY_GIB:
        problems.append(f"this machine has {memory_gib:.0f} GiB of memory, the whole turn needs {MEMORY_GIB}")
    cgroups = _cgroups()
    return [*problems, cgroups] if cgroups else problems


def check(cluster: Cluster, *, down: bool, turn: bool = False) -> None:
    """ClusterError listing everything that is missing. `down`: nothing of the instance runs yet."""
    if os.geteuid() != 0:
        raise ClusterError(_ROOT)
    problems = [*_missing_commands(), *_missing_files(), *machine(turn=turn)]
    problems += [p for p in ((_address_in_use(cluster), _networks_in_use(cluster)) if down else ()) if p]
    if problems:
        raise ClusterError("this machine cannot run the embedded cluster:\n  " + "\n  ".join(problems))
