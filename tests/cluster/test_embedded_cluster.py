"""The embedded cluster itself, on an instance of its own beside the developer's: these tests break it on purpose."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dev import image as local_image
from dev import paths
from dev.cluster import lifecycle, nodes
from dev.cluster.config import GPU_RESOURCE, GPUS_PER_NODE, Cluster
from dev.cluster.processes import Processes, wait_until
from kubernetes import client, config
from tests import sharing
from tests.cluster.pods import PYTHON, manifest, output, phase, wait_for
from tests.conftest import RESTRICTED

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

OWN = Cluster(instance=1)


def traces() -> list[str]:
    """What the instance has on the machine, outside its folder: processes, links, routes, mounts, cgroups."""
    mark = f"DPE_CLUSTER_STATE={OWN.state}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(f"process {folder.name} {(folder / 'comm').read_text().strip()}")
        except OSError:  # ended while it was looked at
            continue
    text = subprocess.run("ip -o link; ip -o route; ip -o addr", shell=True, capture_output=True, text=True).stdout
    found += [line for line in text.splitlines() if OWN.bridge in line or "dpev1" in line or OWN.network in line]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(OWN.state) in line]
    found += [str(p) for depth in ("*", "*/*") for p in Path("/sys/fs/cgroup").glob(f"{depth}/dpe1-*")]
    return found


def pids() -> dict[str, int | None]:
    """Process ids by name."""
    return {name: Processes(OWN).alive(name) for name in lifecycle.process_names(OWN)}


def command(*arguments: str) -> subprocess.Popen[str]:
    """`python -m dev.cluster` on the instance, as a shell runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "dev.cluster", *arguments],
        env={**os.environ, "DPE_CLUSTER_INSTANCE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def reserved() -> Iterator[None]:
    with sharing.own(OWN):
        yield


@pytest.fixture(scope="module")
def own(reserved: None) -> Iterator[Cluster]:
    lifecycle.down(OWN)
    assert traces() == []
    lifecycle.up(OWN)
    yield OWN
    lifecycle.down(OWN)


@pytest.fixture
def core(own: Cluster) -> Iterator[client.CoreV1Api]:
    with config.new_client_from_config(str(own.kubeconfig)) as api:
        yield client.CoreV1Api(api)


@pytest.fixture(scope="module")
def own_image(own: Cluster) -> str:
    return local_image.build(own)


@pytest.fixture
def room(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace that enforces the restricted profile and has its default service account."""
    name = f"t-{secrets.token_hex(4)}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=RESTRICTED)))
    accounts = lambda: core.list_namespaced_service_account(name).items  # noqa: E731
    wait_for(accounts, 30, "no default service account")
    yield name
    core.delete_namespace(name)


def node_is(core: client.CoreV1Api, name: str, ready: str) -> bool:
    conditions = core.read_node(name).status.conditions or []
    return any(c.type == "Ready" and c.status == ready for c in conditions)


def containers(core: client.CoreV1Api) -> set[str]:
    """Containers of the cluster's own pods, once both replicas of CoreDNS are ready."""

    def ready() -> list[client.V1ContainerStatus]:
        pods = core.list_namespaced_pod("kube-system").items
        return [s for pod in pods for s in pod.status.container_statuses or [] if s.ready]

    wait_for(lambda: len(ready()) == 2, 60, "CoreDNS is not ready on both nodes")
    return {status.container_id for status in ready()}


def test_a_second_cluster_up_changes_nothing(own: Cluster, core: client.CoreV1Api) -> None:
    before = pids(), containers(core)
    lifecycle.up(own)
    assert (pids(), containers(core)) == before
    assert all(before[0].values())


def test_two_cluster_ups_at_once_both_end_well_and_change_nothing(own: Cluster) -> None:
    before = pids()
    both = [command("up"), command("up")]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert pids() == before


def test_nodes_carry_their_pools_and_gpus(core: client.CoreV1Api) -> None:
    found = {node.metadata.name: node for node in core.list_node().items}
    pools = {name: {k for k in n.metadata.labels if k.startswith("pool.dpe.dev/")} for name, n in found.items()}
    assert pools == {
        "n1": {"pool.dpe.dev/inference", "pool.dpe.dev/training"},
        "n2": {"pool.dpe.dev/training"},
    }
    assert {n.status.allocatable[GPU_RESOURCE] for n in found.values()} == {str(GPUS_PER_NODE)}


def test_a_restricted_pod_imports_torch_and_this_project(core: client.CoreV1Api, room: str, own_image: str) -> None:
    program = "import os, torch, dpe_api, dpe_jobs; print(torch.ones(2).sum().item(), os.getuid(), dpe_jobs.__file__)"
    said = output(core, room, manifest("imports", own_image, [PYTHON, "-c", program]), deadline_s=120)
    assert said.split() == ["2.0", "65532", "/app/dpe_jobs/__init__.py"]


def test_a_restricted_pod_can_read_what_vllm_found_out_of_the_served_models(
    core: client.CoreV1Api, room: str, own_image: str
) -> None:
    configs = [paths.CHECKOUT / folder / "config.json" for folder in ("examples/shapes/base", "tests/e2e/qwen3")]
    names = [json.loads(path.read_text())["architectures"][0] for path in configs]
    command = " && ".join(f"cat /opt/venv/share/vllm/modelinfos/*-{name}.json" for name in names)
    said = output(core, room, manifest("reads", own_image, ["/bin/sh", "-c", command]))
    assert re.findall(r'"architecture": "(\w+)"', said) == names


def test_the_restricted_profile_refuses_a_host_path(core: client.CoreV1Api, room: str, own_image: str) -> None:
    pod = manifest("host", own_image, [PYTHON], volumes=[{"name": "tmp", "hostPath": {"path": "/"}}])
    with pytest.raises(client.ApiException, match="restricted volume types"):
        core.create_namespaced_pod(room, pod)


def test_gpus_are_exhausted_and_come_back(core: client.CoreV1Api, room: str, own_image: str) -> None:
    sleep = [PYTHON, "-c", "import time; time.sleep(600)"]
    holder = manifest("holder", own_image, sleep, node_pool="inference", gpus=GPUS_PER_NODE)
    core.create_namespaced_pod(room, holder)
    wait_for(lambda: phase(core, room, "holder") == "Running", 60, "a pod with all GPUs of a node does not start")
    core.create_namespaced_pod(room, manifest("waiter", own_image, sleep, node_pool="inference", gpus=1))

    def refused() -> bool:
        conditions = core.read_namespaced_pod("waiter", room).status.conditions or []
        return any("Insufficient nvidia.com/gpu" in (c.message or "") for c in conditions)

    wait_for(refused, 30, "the scheduler gave a GPU away twice")
    core.delete_namespaced_pod("holder", room)
    wait_for(lambda: phase(core, room, "waiter") == "Running", 60, "a returned GPU is not given to who waits")


def test_pods_on_two_nodes_meet_by_the_name_of_a_headless_service(
    core: client.CoreV1Api, room: str, own_image: str
) -> None:
    service = {"clusterIP": None, "publishNotReadyAddresses": True, "selector": {"app": "gang"}}
    body = {"metadata": {"name": "gang"}, "spec": {**service, "clusterIP": "None", "ports": [{"port": 29500}]}}
    core.create_namespaced_service(room, body)
    listen = "import socket; s = socket.create_server(('', 29500)); c, _ = s.accept(); c.sendall(b'met'); c.close()"
    names = {"labels": {"app": "gang"}, "subdomain": "gang"}
    server = manifest("server", own_image, [PYTHON, "-c", listen], nodeName="n1", hostname="server", **names)
    core.create_namespaced_pod(room, server)
    wait_for(lambda: phase(core, room, "server") == "Running", 60, "the server does not run")
    dial = (
        "import socket, time\n"
        "for _ in range(100):\n"
        "    try:\n"
        "        print(socket.create_connection(('server.gang', 29500), 2).recv(3).decode()); break\n"
        "    except OSError: time.sleep(0.2)\n"
    )
    said = output(core, room, manifest("client", own_image, [PYTHON, "-c", dial], nodeName="n2"))
    assert said.strip() == "met"


def test_a_pod_reaches_minio(own: Cluster, core: client.CoreV1Api, room: str, own_image: str) -> None:
    program = f"from urllib.request import urlopen; print(urlopen('{own.s3_endpoint}/minio/health/ready').status)"
    assert output(core, room, manifest("s3", own_image, [PYTHON, "-c", program])).strip() == "200"


def test_a_dead_kubelet_comes_back_and_the_gpus_stay(own: Cluster, core: client.CoreV1Api) -> None:
    kubelet = [*nodes.enter(own, "n1"), "cat", "/run/services/kubelet.pid"]
    before = subprocess.check_output(kubelet)
    nodes.service(own, "n1", "kill", "kubelet")
    wait_for(lambda: subprocess.check_output(kubelet) != before, 30, "nobody started the kubelet again")
    lifecycle.up(own)
    assert core.read_node("n1").status.allocatable[GPU_RESOURCE] == str(GPUS_PER_NODE)


@pytest.mark.parametrize("name", ["etcd", "apiserver", "minio"])
def test_a_killed_server_is_started_again_without_harm(own: Cluster, core: client.CoreV1Api, name: str) -> None:
    before = containers(core)
    lifecycle.stop_control_plane(own, name, hard=True)
    assert Processes(own).alive(name) is None
    lifecycle.start_control_plane(own, name)
    assert containers(core) == before


def test_a_power_cut_is_noticed_and_the_node_comes_back(own: Cluster, core: client.CoreV1Api) -> None:
    def on_n2() -> set[str]:
        pods = core.list_namespaced_pod("kube-system", field_selector="spec.nodeName=n2").items
        return {s.container_id for pod in pods for s in pod.status.container_statuses or []}

    before = on_n2()
    lifecycle.kill_node(own, "n2")
    wait_for(lambda: node_is(core, "n2", "Unknown"), 60, "a node without power is still Ready")
    lifecycle.start_node(own, "n2")
    assert node_is(core, "n2", "True")
    assert core.read_node("n2").status.allocatable[GPU_RESOURCE] == str(GPUS_PER_NODE)
    wait_for(lambda: before.isdisjoint(on_n2()), 60, "what ran on the node is said to run still")


@pytest.mark.parametrize("moment", ["pki", "run/etcd", "run/node-n1", "run/kcm"])
def test_an_interrupted_cluster_up_is_repaired_by_the_next(own: Cluster, moment: str) -> None:
    lifecycle.down(own)
    interrupted = command("up")
    assert wait_until((own.state / moment).exists, 60, 0.002), moment
    interrupted.kill()
    assert interrupted.wait() == -signal.SIGKILL, "it was done before it could be interrupted"
    lifecycle.up(own)
    assert all(pids().values())
    etcds = [t for t in traces() if t.startswith("process") and t.endswith(" etcd")]
    assert len(etcds) == 1


def test_cluster_down_and_up_with_kept_data_goes_on(own: Cluster) -> None:
    def annotations() -> dict[str, str]:
        with config.new_client_from_config(str(own.kubeconfig)) as api:
            return dict(client.CoreV1Api(api).read_namespace("default").metadata.annotations or {})

    with config.new_client_from_config(str(own.kubeconfig)) as api:
        body = {"metadata": {"annotations": {"dpe.dev/mark": "kept"}}}
        client.CoreV1Api(api).patch_namespace("default", body)
    lifecycle.down(own, keep=True)
    assert traces() == []
    lifecycle.up(own)
    assert annotations()["dpe.dev/mark"] == "kept"


def test_cluster_down_leaves_nothing_behind(own: Cluster) -> None:
    assert traces() != []
    lifecycle.down(own)
    assert traces() == []
    assert not own.state.exists()


def test_cluster_down_stops_what_lost_its_records(own: Cluster) -> None:
    lifecycle.up(own)
    for record in own.run.iterdir():
        record.unlink()
    lifecycle.down(own)
    assert traces() == []
