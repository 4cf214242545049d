"""The chart as Helm renders it, and who may reach whom by the NetworkPolicies in it."""

import ipaddress
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

Document = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dpe"
MINIMAL = ["-f", str(CHART / "ci" / "minimal-values.yaml")]
PROMETHEUS_API = ["--api-versions", "monitoring.coreos.com/v1"]


def helm(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm."""
    path = shutil.which("helm")
    if path is None:
        pytest.fail("helm is not on PATH: `make test-cluster` builds it and puts it there")
    return subprocess.run([path, *arguments], input=stdin, capture_output=True, text=True, check=False)


def rendered(*arguments: str, namespace: str = "science") -> list[Document]:
    """Everything that a release called dpe is made of, hooks and tests included."""
    done = helm("template", "dpe", str(CHART), "-n", namespace, *MINIMAL, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def notes(*arguments: str) -> str:
    """What `helm install` tells whoever installs it; no cluster is asked."""
    done = helm("install", "dpe", str(CHART), "-n", "science", "--dry-run=client", *MINIMAL, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def refused(*arguments: str) -> str:
    """Why Helm does not render it."""
    done = helm("template", "dpe", str(CHART), "-n", "science", *arguments)
    assert done.returncode != 0
    return done.stderr


def some(documents: list[Document], kind: str) -> dict[str, Document]:
    """Documents of a kind by name; of equal names in several namespaces the last."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def one(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """The only document of a kind, or the one of that name."""
    (found,) = [d for n, d in some(documents, kind).items() if name in (None, n)]
    return found


def pods(documents: list[Document]) -> dict[str, Document]:
    """Every pod of the chart itself by name: metadata and spec."""
    found = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Pod"}
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            found[document["metadata"]["name"]] = document["spec"]["template"]
    return found


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside of the cluster."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    address: str | None = None


def _chosen(selector: Document, labels: Mapping[str, str]) -> bool:
    equal = all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items())
    for term in selector.get("matchExpressions") or []:
        assert term["operator"] == "In"
        equal = equal and labels.get(term["key"]) in term["values"]
    return equal


def _is(peer: Peer, wanted: Document, namespace: str) -> bool:
    if "ipBlock" in wanted:
        block = ipaddress.ip_network(wanted["ipBlock"]["cidr"])
        left_out = [ipaddress.ip_network(cidr) for cidr in wanted["ipBlock"].get("except") or []]
        address = None if peer.address is None else ipaddress.ip_address(peer.address)
        return address is not None and address in block and not any(address in cidr for cidr in left_out)
    if peer.namespace is None:
        return False
    if "namespaceSelector" in wanted:
        right_place = _chosen(wanted["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
    else:
        right_place = peer.namespace == namespace
    return right_place and _chosen(wanted.get("podSelector") or {}, peer.labels)


def _lets(policies: list[Document], end: Peer, other: Peer, port: int, protocol: str, direction: str) -> bool:
    """Whether the policies that select `end` let it be connected in a direction; those that select it not, do."""
    kind, side = ("Ingress", "from") if direction == "ingress" else ("Egress", "to")
    bound = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == end.namespace
        and _chosen(policy["spec"]["podSelector"], end.labels)
        and kind in policy["spec"]["policyTypes"]
    ]
    rules = [rule for spec in bound for rule in spec.get(direction) or []]
    return not bound or any(
        (side not in rule or any(_is(other, peer, str(end.namespace)) for peer in rule[side]))
        and ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
        for rule in rules
    )


def connects(policies: list[Document], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether NetworkPolicies allow a connection (networking.k8s.io/v1: both ends must allow it)."""
    return _lets(policies, source, target, port, protocol, "egress") and _lets(
        policies, target, source, port, protocol, "ingress"
    )
