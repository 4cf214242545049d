"""An object store of one's own on a loopback port."""

import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest
import urllib3
from dev import paths
from minio import Minio
from tests.training.support import HOST, World, free_port, wait_for

from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY
from dpe_jobs.store import Store


@pytest.fixture(scope="session")
def store_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreAddress]:
    """A MinIO server for the session; its credentials are in the environment."""
    folder, port = tmp_path_factory.mktemp("minio"), free_port()
    user, password = "training", secrets.token_hex(16)
    env = {**os.environ, "MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password}
    server = subprocess.Popen(
        [
            paths.binary("minio"),
            "server",
            "--quiet",
            "--address",
            f"{HOST}:{port}",
            "--console-address",
            f"{HOST}:{free_port()}",
            folder,
        ],
        env=env,
        stdout=(folder.parent / "minio.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    http = urllib3.PoolManager(retries=False, timeout=1)

    def ready() -> bool:
        try:
            return http.request("GET", f"http://{HOST}:{port}/minio/health/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    before = {name: os.environ.get(name) for name in (ENV_ACCESS_KEY, ENV_SECRET_KEY)}
    try:
        wait_for("MinIO is ready", ready)
        os.environ |= {ENV_ACCESS_KEY: user, ENV_SECRET_KEY: password}
        Minio(f"{HOST}:{port}", user, password, secure=False).make_bucket("dpe")
        yield StoreAddress(endpoint=f"http://{HOST}:{port}")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def world(store_address: StoreAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Base model and samples in the store, ready for runs under names of their own."""
    it = World(
        Store.from_env(
            store_address,
        ),
        store_address,
        tmp_path_factory.mktemp("pods"),
    )
    it.fill()
    yield it
    for process in it.pods:
        if process.poll() is None:
            process.kill()
            process.wait()
