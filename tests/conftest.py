"""The embedded cluster and what tests on it share. Started by the first test that asks for it, left as it was found.

With several workers (`pytest -n 2 --dist loadscope`) tests that share something expensive run in one of them, one after
the other.
"""

import os
import secrets
from collections.abc import Iterator

import pytest
from dev import image as local_image
from dev.cluster import lifecycle, object_store
from dev.cluster.config import Cluster
from hypothesis import settings
from kubernetes import client, config
from selenium.webdriver.remote.webdriver import WebDriver

from dpe_api.launch import StoreAddress
from dpe_jobs.store import Store
from tests import sharing
from tests.browser.chromium import chromium
from tests.groups import Groups, group

# other workers take the processor: a slow example is no finding
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Called where there are several workers."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group, the whole turn, starts first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: group(item.path) != "e2e")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The embedded cluster, up and whole. Tests that break it mend it; the last worker that used it stops it."""
    it = Cluster.from_env()
    with sharing.alone(it) as users:
        sharing.arrive(it, users)
        try:
            lifecycle.up(it)
        except BaseException:  # also an interrupt from the keyboard
            sharing.give_up(it, users)
            raise
        sharing.use(it, users)
    yield it
    with sharing.alone(it) as users:
        if sharing.leave(users):
            lifecycle.down(it, keep=(users / "had-state").exists())


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[client.ApiClient]:
    """An administrator's client."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as it:
        yield it


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """Name of the image that holds the checkout as it is, imported into both nodes."""
    return local_image.build(cluster)


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    """A namespace of the test's own that enforces the restricted profile, like every namespace of this project."""
    name = f"t-{secrets.token_hex(4)}"
    core = client.CoreV1Api(api)
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=RESTRICTED)))
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def bucket(cluster: Cluster) -> Iterator[str]:
    """A bucket of the session's own."""
    minio, name = object_store.client(cluster), f"t-{secrets.token_hex(4)}"
    minio.make_bucket(name)
    yield name
    for found in minio.list_objects(name, recursive=True):
        minio.remove_object(name, str(found.object_name))
    minio.remove_bucket(name)


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Store:
    """MinIO as the stages see it."""
    user = object_store.credentials(cluster)
    return Store(StoreAddress(endpoint=cluster.s3_endpoint), user.access_key, user.secret_key)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """A browser for looking at pages from the disk."""
    with chromium(tmp_path_factory.mktemp("profile")) as it:
        yield it
