"""Addresses, folders and names of one instance of the cluster."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dev import paths

GPUS_PER_NODE = 2
GPU_RESOURCE = "nvidia.com/gpu"
BUCKET = "dpe"
CONTROL_PLANE = ("etcd", "apiserver", "kcm", "scheduler")
"""Processes of the control plane, in the order of their start."""
MAX_INSTANCE = 4


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    index: int
    ip: str
    pod_cidr: str
    veth: str
    """The end of its cable that is plugged into the bridge."""
    labels: str


@dataclass(frozen=True)
class Cluster:
    """One instance. Several can run beside each other: number 0 is the developer's, the tests start number 1."""

    instance: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.instance <= MAX_INSTANCE:
            raise ClusterError(f"DPE_CLUSTER_INSTANCE is {self.instance}: write a number from 0 to {MAX_INSTANCE}")

    @classmethod
    def from_env(cls) -> "Cluster":
        """The instance that DPE_CLUSTER_INSTANCE names, 0 when it is not set."""
        text = os.environ.get("DPE_CLUSTER_INSTANCE", "0")
        if not text.isdecimal():
            raise ClusterError(f"DPE_CLUSTER_INSTANCE is {text!r}: write a number from 0 to {MAX_INSTANCE}")
        return cls(int(text))

    @cached_property
    def state(self) -> Path:
        """Everything that the instance keeps on disk."""
        return paths.cache() / ("cluster" if self.instance == 0 else f"cluster-{self.instance}")

    @property
    def lock_file(self) -> Path:
        """Beside the state and not in it, so that taking the cluster down can remove the state under the lock."""
        return self.state.with_name(self.state.name + ".lock")

    @property
    def pki(self) -> Path:
        """Certificates, keys and kubeconfigs."""
        return self.state / "pki"

    @property
    def conf(self) -> Path:
        """Rendered configuration files, one folder per node."""
        return self.state / "conf"

    @property
    def run(self) -> Path:
        """Records of processes."""
        return self.state / "run"

    @property
    def log(self) -> Path:
        """Output of processes outside the nodes."""
        return self.state / "log"

    @property
    def images(self) -> Path:
        """OCI archives that every node imports."""
        return self.state / "images"

    @property
    def disks(self) -> Path:
        """The nodes' disks."""
        return self.state / "nodes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.pki / "admin.kubeconfig"

    @property
    def bridge(self) -> str:
        """The bridge that joins the nodes and the machine."""
        return f"dpebr{self.instance}"

    @property
    def network(self) -> str:
        """First three numbers of the bridge's /24."""
        return f"10.{89 + self.instance}.0"

    @property
    def gateway(self) -> str:
        """The machine's address on the bridge: API server and MinIO listen here."""
        return f"{self.network}.1"

    @property
    def server(self) -> str:
        """Address of the API server."""
        return f"https://{self.gateway}:6443"

    @property
    def s3_endpoint(self) -> str:
        """Address of MinIO, the same for pods and for the machine."""
        return f"http://{self.gateway}:9000"

    @property
    def cluster_cidr(self) -> str:
        """Addresses of pods."""
        return f"10.{244 + self.instance}.0.0/16"

    @property
    def service_cidr(self) -> str:
        """Addresses of Services."""
        return f"10.{96 + self.instance}.0.0/16"

    @property
    def dns(self) -> str:
        """Address of the cluster's DNS Service."""
        return f"10.{96 + self.instance}.0.10"

    def port(self, base: int) -> int:
        """A loopback port of the control plane."""
        return base + 100 * self.instance

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """n1 is in the pools inference and training, n2 in training alone.

        A gang of two pods spreads over two nodes, so the training pool needs both; serving stays on the first.
        """
        pools = {"n1": ("inference", "training"), "n2": ("training",)}
        return {
            name: Node(
                name=name,
                index=i,
                ip=f"{self.network}.{10 + i}",
                pod_cidr=f"10.{244 + self.instance}.{i}.0/24",
                veth=f"dpev{self.instance}{i}",
                labels=",".join(f"pool.dpe.dev/{pool}=true" for pool in pools[name]),
            )
            for i, name in enumerate(pools, start=1)
        }

    def cgroup(self, node: str) -> str:
        """Name of the node's root cgroup."""
        return f"dpe-{node}" if self.instance == 0 else f"dpe{self.instance}-{node}"
