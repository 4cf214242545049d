"""Parts of the embedded cluster that need neither root nor a cluster."""

import fcntl
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from dev import paths
from dev import test as run_tests
from dev.cluster import control_plane, lifecycle, nodes, pki, preflight
from dev.cluster.config import Cluster, ClusterError
from dev.cluster.images import Image, write_archive
from dev.cluster.processes import Processes, locked, wait_until


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("DPE_CACHE", str(tmp_path))
    it = Cluster(4)
    it.state.mkdir()
    return it


@pytest.fixture
def processes(cluster: Cluster) -> Processes:
    it = Processes(cluster)
    it.prepare()
    return it


def sleeper(processes: Processes) -> int:
    """A process that does nothing, past the shell that recorded it."""
    assert processes.start("sleeper", ["sleep", "600"])
    pid = processes.alive("sleeper")
    assert pid is not None
    proc = Path(f"/proc/{pid}")  # the name is there before the environment, by which it is found
    assert wait_until(lambda: (proc / "comm").read_text() == "sleep\n" and (proc / "environ").read_bytes() != b"", 10)
    return pid


def test_without_root_the_cluster_says_what_else_can_be_done(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"needs root .* KUBE_CONTEXT"):
        preflight.check(cluster, down=True)


def test_everything_that_a_machine_lacks_is_said_at_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError) as caught:
        preflight.check(cluster, down=True)
    said = str(caught.value)
    assert "no command `runc`: apt-get install runc" in said
    assert "kubelet is not built: run `make setup`" in said


@pytest.mark.parametrize(("loadable", "said"), [("0", []), ("1", ["the kernel has no overlay file system"])])
def test_a_file_system_that_the_first_mount_loads_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loadable: str, said: list[str]
) -> None:
    modprobe = tmp_path / "modprobe"
    modprobe.write_text(f'#!/bin/sh\n[ "$*" = "--dry-run --quiet overlay" ] && exit {loadable}\n')
    modprobe.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "filesystems").write_text("nodev\tproc\n\text4\n")
    monkeypatch.setattr(preflight, "_FILESYSTEMS", tmp_path / "filesystems")
    assert [p.partition(":")[0] for p in preflight.machine() if "overlay" in p] == said


def a_machine_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, routes: object = (), addresses: object = (), names: str = ""
) -> None:
    """`ip` and resolv.conf as they would be there."""
    for what, found in (("route", routes), ("addr", addresses)):
        (folder / f"{what}.json").write_text(json.dumps(found))
    ip = folder / "ip"
    ip.write_text(f'#!/bin/sh\nfor what; do :; done\ncat {folder}/"$what".json\n')
    ip.chmod(0o755)
    (folder / "resolv.conf").write_text(names)
    monkeypatch.setenv("DPE_CACHE", str(folder))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(preflight, "_RESOLV_CONF", folder / "resolv.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 0)


FLANNEL = {"dst": "10.244.1.0/24", "gateway": "10.244.1.0", "dev": "flannel.1", "flags": ["onlink"]}
PODMAN = {"ifname": "podman1", "addr_info": [{"family": "inet", "local": "10.89.0.1", "prefixlen": 24}]}


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"routes": [FLANNEL]}, r"route 10\.244\.1\.0/24 dev flannel\.1 lies in 10\.244\.0\.0/16 \(pods\)"),
        ({"addresses": [{}, PODMAN]}, r"address 10\.89\.0\.1 of podman1 lies in 10\.89\.0\.0/24 \(nodes\)"),
        ({"names": "nameserver 10.96.0.10\n"}, r"nameserver 10\.96\.0\.10 of .* lies in 10\.96\.0\.0/16 \(Services\)"),
        ({"routes": [{"dst": "default", "gateway": "10.96.0.1", "dev": "eth0"}]}, r"gateway 10\.96\.0\.1 lies in"),
    ],
)
def test_networks_that_the_machine_uses_already_are_not_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: dict[str, object], said: str
) -> None:
    a_machine_with(tmp_path, monkeypatch, **machine)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=rf"{said}.*set DPE_CLUSTER_INSTANCE=4"):
        preflight.check(Cluster(0), down=True)


def test_where_no_instance_has_free_networks_a_cluster_of_ones_own_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_machine_with(tmp_path, monkeypatch, names="".join(f"nameserver 10.{96 + n}.0.10\n" for n in range(5)))
    with pytest.raises(ClusterError, match=r"no DPE_CLUSTER_INSTANCE .* KUBE_CONTEXT=name"):
        preflight.check(Cluster(0), down=True)


def test_what_an_interrupted_start_left_on_our_bridge_and_wider_routes_stand_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"dst": "10.244.1.0/24", "gateway": "10.89.0.11", "dev": "dpebr0"}
    wide = {"dst": "10.0.0.0/8", "gateway": "192.0.2.1", "dev": "tun0"}
    bridge = {"ifname": "dpebr0", "addr_info": [{"family": "inet", "local": "10.89.0.1", "prefixlen": 24}]}
    a_machine_with(tmp_path, monkeypatch, routes=[left, wide], addresses=[bridge], names="nameserver fd00::1\n")
    with pytest.raises(ClusterError) as caught:  # nothing is built here
        preflight.check(Cluster(0), down=True)
    assert "this machine uses networks" not in str(caught.value)


@pytest.mark.parametrize("value", ["9", "x", "-1"])
def test_a_wrong_instance_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DPE_CLUSTER_INSTANCE", value)
    with pytest.raises(ClusterError, match="DPE_CLUSTER_INSTANCE"):
        Cluster.from_env()


def test_instances_share_no_address_port_or_name() -> None:
    def owned(c: Cluster) -> set[object]:
        networks = {c.network, c.cluster_cidr, c.service_cidr, c.bridge, c.state, c.lock_file}
        ports = {c.port(base) for base in (23790, 23800, 10257, 10259)}
        return networks | ports | {n.veth for n in c.nodes.values()} | {c.cgroup(n) for n in c.nodes}

    both = [owned(Cluster(i)) for i in range(5)]
    assert len(set().union(*both)) == sum(map(len, both))


def test_a_process_is_started_once_and_stopped_by_its_record(processes: Processes) -> None:
    pid = sleeper(processes)
    assert not processes.start("sleeper", ["sleep", "600"])
    processes.stop("sleeper")
    assert processes.alive("sleeper") is None
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()  # nobody waits for it here


def test_a_process_id_that_went_to_another_program_is_not_signalled(cluster: Cluster, processes: Processes) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stat = Path(f"/proc/{bystander.pid}/stat").read_text()
        head, tail = stat.rsplit(")", 1)
        fields = tail.split()
        fields[19] = "1"  # started at another time
        (cluster.run / "sleeper").write_text(f"{head}) {' '.join(fields)}")
        processes.stop("sleeper", signal.SIGKILL)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_records_from_before_a_reboot_are_forgotten(cluster: Cluster, processes: Processes) -> None:
    sleeper(processes)
    record = (cluster.run / "sleeper").read_text()
    try:
        (cluster.state / "boot_id").write_text("another")
        processes.prepare()
        assert processes.alive("sleeper") is None
    finally:
        (cluster.run / "sleeper").write_text(record)
        processes.stop("sleeper")


def test_processes_without_a_record_are_found_and_killed(cluster: Cluster, processes: Processes) -> None:
    sleeper(processes)
    (cluster.run / "sleeper").unlink()
    assert processes.kill_strays() == 1
    assert processes.kill_strays() == 0


def test_a_program_that_ends_at_once_is_reported_with_its_words(processes: Processes) -> None:
    processes.start("broken", ["sh", "-c", "echo no such port >&2; exit 1"])
    assert wait_until(lambda: processes.alive("broken") is None, 10)
    with pytest.raises(ClusterError, match="no such port"):
        processes.require("broken")


def test_a_command_that_waits_too_long_for_the_lock_says_who_holds_it(cluster: Cluster) -> None:
    with cluster.lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ClusterError, match="lslocks"), locked(cluster, wait_s=0.1):
            pass


def test_whoever_waits_for_the_lock_says_so_beside_its_output_which_is_the_images_name(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster.lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ClusterError), locked(cluster, wait_s=0):
            pass
    assert capsys.readouterr() == ("", "waiting for another command on this cluster to finish\n")


PROXIES = ("http_proxy", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reaches the Internet by a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, "http://proxy.example.org:3128")


def test_what_talks_to_the_cluster_does_not_ask_the_proxy(
    cluster: Cluster, processes: Processes, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.start("printer", ["env"])
    assert wait_until(lambda: processes.alive("printer") is None, 10)
    kubectl = paths.binary("kubectl")
    kubectl.parent.mkdir(parents=True)
    kubectl.write_text("#!/bin/sh\nenv\n")
    kubectl.chmod(0o755)
    printed_by = (
        processes.log("printer").read_text(),
        control_plane.kubectl(cluster, "version").stdout,
        nodes.run("env").stdout,
    )
    for printed in printed_by:
        assert "PATH=" in printed
        assert "proxy.example.org" not in printed


def test_shells_of_the_cluster_reach_it_beside_the_proxy(
    cluster: Cluster, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.pki.mkdir()
    cluster.kubeconfig.touch()
    monkeypatch.setenv("NO_PROXY", "localhost,10.93.0.1")
    found = lifecycle.environment(cluster)
    expected = "localhost,10.93.0.1,127.0.0.1,10.93.0.0/24,10.248.0.0/16,10.100.0.0/16"
    assert found["NO_PROXY"] == found["no_proxy"] == expected
    monkeypatch.setenv("NO_PROXY", found["NO_PROXY"])
    assert lifecycle.environment(cluster)["NO_PROXY"] == found["NO_PROXY"], "a second eval adds nothing"
    for name in PROXIES:
        monkeypatch.delenv(name)
    assert "NO_PROXY" not in lifecycle.environment(cluster)


def test_tests_reach_every_cluster_of_theirs_and_this_machine_beside_the_proxy(
    proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    monkeypatch.setattr(os, "chdir", lambda _: None)
    handed_on: dict[str, str] = {}
    monkeypatch.setattr(os, "execv", lambda *_: handed_on.update(os.environ))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    run_tests.main([])
    reached = {Cluster.from_env().gateway, Cluster(1).gateway, Cluster(2).gateway, "127.0.0.1"}
    assert reached <= set(handed_on["no_proxy"].split(","))
    assert handed_on["HTTPS_PROXY"], "packages may need it"


def test_an_interrupted_making_of_certificates_leaves_none(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pki, "_kubeconfig", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pki.ensure(cluster)
    assert not cluster.pki.exists()
    assert pki.ensure(cluster)
    assert not pki.ensure(cluster)
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    found = json.loads(cluster.kubeconfig.read_text())
    assert found["clusters"][0]["cluster"]["server"] == "https://10.93.0.1:6443"


def test_the_same_content_makes_the_same_archive(tmp_path: Path) -> None:
    image = Image({"app/a.py": (b"1", 0o644)}, {"bin": "usr/bin"}, ("usr",), ("/bin/sh",), "65532", ("A=1",))
    for name in ("one", "two"):
        write_archive(tmp_path / name, "localhost/x:1", image)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/x:1"
