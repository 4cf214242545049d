"""MinIO as a process of the machine, at an address that pods and the machine reach alike.

What is not of the standard library is imported where it is used: the cluster is taken down without it, too.
"""

import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dev import paths
from dev.cluster.config import BUCKET, Cluster, ClusterError
from dev.cluster.processes import Processes, wait_until

if TYPE_CHECKING:
    from minio import Minio


@dataclass(frozen=True, slots=True)
class Credentials:
    """MinIO's root user."""

    access_key: str
    secret_key: str


def credentials(cluster: Cluster) -> Credentials:
    """The instance's credentials, made at the first call."""
    path = cluster.state / "minio.json"
    if not path.exists():
        part = path.with_name("minio.json.new")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            json.dump({"access_key": "dpe", "secret_key": secrets.token_hex(20)}, handle)
        part.replace(path)
    return Credentials(**json.loads(path.read_text()))


def start(cluster: Cluster) -> bool:
    """Start MinIO unless it runs; whether it was started."""
    user = credentials(cluster)
    data = cluster.state / "minio"
    data.mkdir(exist_ok=True)
    address = urlsplit(cluster.s3_endpoint).netloc
    console = f"{cluster.gateway}:9001"
    return Processes(cluster).start(
        "minio",
        [paths.binary("minio"), "server", "--quiet", "--address", address, "--console-address", console, data],
        {
            "MINIO_ROOT_USER": user.access_key,
            "MINIO_ROOT_PASSWORD": user.secret_key,
            "MINIO_BROWSER_REDIRECT": "off",
            "MINIO_UPDATE": "off",
        },
    )


def client(cluster: Cluster) -> "Minio":
    """A client with the instance's credentials."""
    import urllib3
    from minio import Minio

    user = credentials(cluster)
    http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False)
    address = urlsplit(cluster.s3_endpoint).netloc
    return Minio(address, user.access_key, user.secret_key, secure=False, region="us-east-1", http_client=http)


def wait_ready(cluster: Cluster, limit_s: float = 60) -> None:
    """Return when MinIO answers and the bucket exists; ClusterError when it ends or takes too long."""
    import urllib3
    from minio.error import ServerError

    processes, minio = Processes(cluster), client(cluster)
    url = f"{cluster.s3_endpoint}/minio/health/ready"
    http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=5), retries=False)

    def ready() -> bool:
        processes.require("minio")
        try:
            if http.request("GET", url).status != 200:
                return False
            if not minio.bucket_exists(BUCKET):
                minio.make_bucket(BUCKET)
        except (urllib3.exceptions.HTTPError, ServerError):  # 503, also just after it has said that it is ready
            return False
        return True

    if not wait_until(ready, limit_s, 0.1):
        raise ClusterError(f"MinIO is not ready after {limit_s:.0f} s: see {processes.log('minio')}")
