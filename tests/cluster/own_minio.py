"""A MinIO of a test's own."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import urllib3
from dev import paths
from tests.patience import deadline

from dpe_api.launch import StoreAddress
from dpe_jobs.store import Store


class Minio:
    """A MinIO that may be stopped and started; its data stays."""

    def __init__(self, data: Path, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """`within` begins the server's command line: `ip netns exec NAME` for a network of its own, where `host` is."""
        self._within = within
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"{host}:{free.getsockname()[1]}"
        self.data, self.key, self.secret = data, "tester", secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {**os.environ, "MINIO_ROOT_USER": self.key, "MINIO_ROOT_PASSWORD": self.secret, "MINIO_BROWSER": "off"}
        minio = str(paths.binary("minio"))
        command = [*self._within, minio, "server", "--quiet", "--address", self.address, str(self.data)]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = deadline(60)
        while not self._ready():
            assert time.monotonic() < end, "MinIO does not start"
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            found = urllib3.request("GET", f"http://{self.address}/minio/health/ready", timeout=1, retries=False)
        except urllib3.exceptions.HTTPError:
            return False
        return found.status == 200

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def store(self, outage_s: float = 60, secret: str | None = None) -> Store:
        return Store(StoreAddress(endpoint=f"http://{self.address}"), self.key, secret or self.secret, outage_s)

    def bucket(self, name: str) -> str:
        """Make a bucket: a folder is one to a single MinIO, and our client has no call for it."""
        (self.data / name).mkdir()
        return f"s3://{name}"
