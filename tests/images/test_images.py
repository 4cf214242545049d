"""The images that a cluster of one's own needs, as far as they can be built without a registry of images.

The serving and training images are not: they need vLLM's own image and gigabytes of CUDA. docs/embedded-cluster.md
says what was built and what was not.
"""

from pathlib import Path

import pytest
from dev.cluster import nodes
from dev.cluster.config import Cluster
from kubernetes import client
from tests.cluster.pods import manifest, output
from tests.images import builder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

PROGRAM = """
import os, importlib, importlib.metadata, importlib.util, sys
importlib.import_module(sys.argv[1])
print(importlib.metadata.version("dpe"), os.getuid(), [m for m in sys.argv[2:] if importlib.util.find_spec(m)])
"""


@pytest.fixture(scope="session")
def base() -> None:
    """The base image."""
    builder.ensure_base()


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("part", "module", "others"),
    [
        ("operator", "dpe_operator.main", ["torch", "pyarrow", "pytest"]),
        ("jobs", "dpe_jobs.diagnosis.run", ["torch", "kopf", "pytest"]),
    ],
)
def test_a_built_image_holds_its_part_and_nothing_of_the_others(
    cluster: Cluster, api: client.ApiClient, namespace: str, tmp_path: Path, part: str, module: str, others: list[str]
) -> None:
    archive = tmp_path / f"{part}.tar"
    name = builder.build(part, archive)
    inside = nodes.enter(cluster, "n1")
    builder.run(*inside, "ctr", "-n", "k8s.io", "images", "import", archive)
    try:
        pod = manifest(part, name, ["python3", "-c", PROGRAM, module, *others], nodeName="n1", runtimeClassName=None)
        said = output(client.CoreV1Api(api), namespace, pod, deadline_s=120)
    finally:
        builder.run(*inside, "ctr", "-n", "k8s.io", "images", "rm", name)
    assert said.strip() == "0.1.0 65532 []"
