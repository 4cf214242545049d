"""The resources' definitions, as the checkout has them, and a namespace with an operator of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dev.cluster import object_store
from dev.cluster.config import Cluster
from kubernetes import client
from kubernetes.client import ApiException
from tests.cluster import operators
from tests.cluster.operators import Lab
from tests.patience import deadline

from dpe_api.names import GROUP, PLURAL, RUN_PLURAL, VERSION
from dpe_jobs.store import Store

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def crd(api: client.ApiClient) -> None:
    """Install or update the CustomResourceDefinitions and wait until they are served. They stay, others use them."""
    for plural in (PLURAL, RUN_PLURAL):
        define(api, plural)


def define(api: client.ApiClient, plural: str) -> None:
    """One of them."""
    body = yaml.safe_load((CRDS / f"{GROUP}_{plural}.yaml").read_text())
    extensions, name = client.ApiextensionsV1Api(api), f"{plural}.{GROUP}"
    try:
        extensions.create_custom_resource_definition(body)
    except ApiException as error:
        if error.status != 409:
            raise
        extensions.patch_custom_resource_definition(name, body, _content_type="application/merge-patch+json")
    end = deadline(30)
    while True:
        conditions = extensions.read_custom_resource_definition(name).status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            return
        assert time.monotonic() < end, conditions
        time.sleep(0.1)


@pytest.fixture
def idle(
    cluster: Cluster,
    api: client.ApiClient,
    crd: None,
    image: str,
    namespace: str,
    store: Store,
    bucket: str,
    tmp_path: Path,
) -> Iterator[Lab]:
    """A namespace in which nothing stands in the way but that no operator runs."""
    user = object_store.credentials(cluster)
    environment = {
        "DPE_S3_ACCESS_KEY": user.access_key,
        "DPE_S3_SECRET_KEY": user.secret_key,
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "PYTHONPATH": ":".join(str(operators.CHECKOUT / part) for part in ("crds", "operator", "jobs")),
    }
    facts = operators.platform(cluster.s3_endpoint, bucket, image)
    lab = Lab(api, namespace, store, bucket, tmp_path, facts, environment)
    operators.kubeconfig(tmp_path / "kubeconfig", Path(cluster.kubeconfig), operators.rights(lab))
    operators.give_secret(lab)
    operators.give_doubles(lab)
    lab.upload_inputs()
    yield lab
    for body in lab.custom.list_namespaced_custom_object(GROUP, VERSION, namespace, RUN_PLURAL)["items"]:
        lab.custom.delete_namespaced_custom_object(GROUP, VERSION, namespace, RUN_PLURAL, body["metadata"]["name"])
    for body in lab.custom.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL)["items"]:
        lab.custom.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body["metadata"]["name"])
    if lab.process is None:
        lab.start()
    for plural in (RUN_PLURAL, PLURAL):
        lab.until(
            lambda plural=plural: (
                not lab.custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"]
            )
        )
    # their last words go to the bucket
    lab.until(lambda: not lab.core.list_namespaced_pod(namespace).items)
    lab.stop()


@pytest.fixture
def lab(idle: Lab) -> Lab:
    """The same with an operator."""
    idle.start()
    operators.wait_until_healthy(idle)
    return idle
