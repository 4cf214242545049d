"""What the machine must offer, checked before anything is started, with a sentence for each thing that is missing."""

import os
import shutil
import socket
from pathlib import Path

from dev import paths
from dev.cluster.config import Cluster, ClusterError

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
    if not os.access(root if (root / "cgroup.controllers").exists() else root / "memory", os.W_OK):
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


def check(cluster: Cluster, *, down: bool) -> None:
    """ClusterError listing everything that is missing. `down`: nothing of the instance runs yet."""
    if os.geteuid() != 0:
        raise ClusterError(
            "the embedded cluster needs root (network namespaces, cgroups, mounts): run as root, "
            "or use a cluster of yours with `make demo KUBE_CONTEXT=name`"
        )
    problems = [*_missing_commands(), *_missing_files()]
    if "overlay" not in Path("/proc/filesystems").read_text():
        problems.append("the kernel has no overlay file system: modprobe overlay")
    problems += [p for p in (_cgroups(), _address_in_use(cluster) if down else None) if p]
    if problems:
        raise ClusterError("this machine cannot run the embedded cluster:\n  " + "\n  ".join(problems))
