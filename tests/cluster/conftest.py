"""The resource's definition, as the checkout has it."""

import time
from pathlib import Path

import pytest
import yaml
from kubernetes import client
from kubernetes.client import ApiException

from dpe_api.names import GROUP, PLURAL

CRD = Path(__file__).parents[2] / "crds" / "dpe.dev_dpeiterations.yaml"


@pytest.fixture(scope="session")
def crd(api: client.ApiClient) -> None:
    """Install or update the CustomResourceDefinition and wait until it is served. It stays: others may use it."""
    extensions, body, name = client.ApiextensionsV1Api(api), yaml.safe_load(CRD.read_text()), f"{PLURAL}.{GROUP}"
    try:
        extensions.create_custom_resource_definition(body)
    except ApiException as error:
        if error.status != 409:
            raise
        extensions.patch_custom_resource_definition(name, body, _content_type="application/merge-patch+json")
    deadline = time.monotonic() + 30
    while True:
        conditions = extensions.read_custom_resource_definition(name).status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            return
        assert time.monotonic() < deadline, conditions
        time.sleep(0.1)
