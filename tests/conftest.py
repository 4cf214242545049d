"""The embedded cluster and what tests on it share. Started by the first test that asks for it, left as it was found."""

import secrets
from collections.abc import Iterator

import pytest
from dev import image as local_image
from dev.cluster import lifecycle, object_store
from dev.cluster.config import Cluster
from kubernetes import client, config

from dpe_api.launch import StoreAddress
from dpe_jobs.store import Store

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The embedded cluster, up and whole. Tests that break it mend it."""
    it = Cluster.from_env()
    was_up, had_state = lifecycle.is_up(it), it.state.exists()
    lifecycle.up(it)
    yield it
    if not was_up:
        lifecycle.down(it, keep=had_state)


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
