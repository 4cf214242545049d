"""The control plane: etcd, API server, controller manager and scheduler as processes of the machine."""

import subprocess
from pathlib import Path

from dev import paths
from dev.cluster.config import Cluster, ClusterError
from dev.cluster.processes import Processes, wait_until, without_proxy


def _etcd(cluster: Cluster) -> list[str]:
    client, peer = f"https://127.0.0.1:{cluster.port(23790)}", f"http://127.0.0.1:{cluster.port(23800)}"
    pki = cluster.pki
    return [
        str(paths.binary("etcd")),
        "--name=dev",
        f"--data-dir={cluster.state}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=dev={peer}",
        f"--cert-file={pki}/etcd.crt",
        f"--key-file={pki}/etcd.key",
        f"--trusted-ca-file={pki}/etcd-ca.crt",
        "--client-cert-auth",
        "--unsafe-no-fsync",
        "--auto-compaction-retention=1",
        "--log-level=warn",
    ]


def _apiserver(cluster: Cluster) -> list[str]:
    pki = cluster.pki
    return [
        str(paths.binary("kube-apiserver")),
        f"--advertise-address={cluster.gateway}",
        f"--bind-address={cluster.gateway}",
        "--secure-port=6443",
        f"--etcd-servers=https://127.0.0.1:{cluster.port(23790)}",
        f"--etcd-cafile={pki}/etcd-ca.crt",
        f"--etcd-certfile={pki}/etcd-client.crt",
        f"--etcd-keyfile={pki}/etcd-client.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-cluster-ip-range={cluster.service_cidr}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        # webhooks and aggregated APIs are dialled at pod addresses: no kube-proxy is needed on the machine itself
        "--enable-aggregator-routing=true",
        "--default-not-ready-toleration-seconds=10",
        "--default-unreachable-toleration-seconds=10",
        "--v=1",
    ]


def _client_flags(cluster: Cluster, stem: str, port: int) -> list[str]:
    config = f"{cluster.pki}/{stem}.kubeconfig"
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={cluster.port(port)}",
        "--leader-elect=false",
        "--v=1",
    ]


def _controller_manager(cluster: Cluster) -> list[str]:
    return [
        str(paths.binary("kube-controller-manager")),
        *_client_flags(cluster, "kcm", 10257),
        "--use-service-account-credentials=true",
        f"--root-ca-file={cluster.pki}/ca.crt",
        f"--service-account-private-key-file={cluster.pki}/sa.key",
        f"--cluster-signing-cert-file={cluster.pki}/ca.crt",
        f"--cluster-signing-key-file={cluster.pki}/ca.key",
        f"--cluster-cidr={cluster.cluster_cidr}",
        "--allocate-node-cidrs=false",
        # 20 by default, of which each Job of one pod takes six: iterations side by side waited for it, not for us
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=8s",
    ]


def _scheduler(cluster: Cluster) -> list[str]:
    return [str(paths.binary("kube-scheduler")), *_client_flags(cluster, "scheduler", 10259)]


_COMMANDS = {"etcd": _etcd, "apiserver": _apiserver, "kcm": _controller_manager, "scheduler": _scheduler}


# a quarter of the API server's processor time went into collecting garbage of which a machine has room for more
_GO = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}


def start(cluster: Cluster, name: str) -> bool:
    """Start one of the four unless it runs; whether it was started."""
    return Processes(cluster).start(name, _COMMANDS[name](cluster), _GO)


def kubectl(
    cluster: Cluster, *arguments: str, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run kubectl as administrator. ClusterError with its own words when it fails and `check` holds."""
    done = subprocess.run(
        [str(paths.binary("kubectl")), f"--kubeconfig={cluster.kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=without_proxy(),
    )
    if check and done.returncode:
        raise ClusterError(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip()}")
    return done


def apply(cluster: Cluster, manifest: Path) -> None:
    """Apply a file of manifests; @NAME@ is filled in with the instance's addresses."""
    kubectl(cluster, "apply", "-f", "-", stdin=manifest.read_text().replace("@DNS@", cluster.dns))


def wait_ready(cluster: Cluster, limit_s: float = 120) -> None:
    """Return when the API server is ready; ClusterError when it ends or takes too long."""
    processes = Processes(cluster)

    def ready() -> bool:
        processes.require("etcd")
        processes.require("apiserver")
        return kubectl(cluster, "get", "--raw", "/readyz", "--request-timeout=5s", check=False).returncode == 0

    if not wait_until(ready, limit_s, 0.2):
        raise ClusterError(f"the API server is not ready after {limit_s:.0f} s: see {processes.log('apiserver')}")
