"""What a patch of an iteration's status costs the API server: `python -m tests.bench.operator.patches`. As root.

The operator patches a status some fourteen times an iteration, and the API server evaluates the whole definition each
time. Beside the definition as it is: without its transition rule, without any rule, and as it is once more.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml
from dev.cluster.config import Cluster as Instance
from dev.cluster.processes import Processes
from kubernetes import client, config
from tests.bench.operator.playing import Cluster
from tests.bench.operator.scale import CRD, NAMESPACE, cpu_s, on_own_instance, prepare
from tests.unit.operator import given

from dpe_api.names import API_VERSION, GROUP, KIND, PLURAL

RULES = "x-kubernetes-validations"
Json = dict[str, Any]


def without(definition: Any, unwanted: Callable[[Json], bool]) -> Any:
    """The definition without some of its rules."""
    if isinstance(definition, list):
        return [without(part, unwanted) for part in definition]
    if not isinstance(definition, dict):
        return definition
    found = {key: without(value, unwanted) for key, value in definition.items() if key != RULES}
    kept = [rule for rule in definition.get(RULES, []) if not unwanted(rule)]
    return found | ({RULES: kept} if kept else {})


DEFINITIONS: dict[str, Callable[[Json], bool]] = {
    "as it is": lambda _: False,
    "without the transition rule": lambda rule: "oldSelf" in rule["rule"],
    "without any rule": lambda _: True,
    "as it is, again": lambda _: False,
}


def define(instance: Instance, definition: Json) -> None:
    """Replace the definition, and wait until the API server has taken it in."""
    api = client.ApiextensionsV1Api(config.new_client_from_config(str(instance.kubeconfig)))
    held = api.read_custom_resource_definition(f"{PLURAL}.{GROUP}")
    wanted = copy.deepcopy(definition)
    wanted["metadata"]["resourceVersion"] = held.metadata.resource_version
    api.replace_custom_resource_definition(f"{PLURAL}.{GROUP}", wanted)
    time.sleep(4)  # nothing tells when its handler has been replaced


async def cost(cluster: Cluster, server: psutil.Process, name: str, patches: int) -> dict[str, float]:
    """Milliseconds of processor and of the clock for one patch, on an iteration that has begun."""
    spec = given.spec().wire()
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    await cluster.call("POST", cluster.path(PLURAL), body)
    path = f"{cluster.path(PLURAL)}/{name}/status"
    resolved = {"round": 1, "modelUri": "s3://dpe/models/base", "spec": spec}
    await cluster.call("PATCH", path, {"status": {"phase": "Pending", "resolved": resolved}})

    async def patch(count: int) -> None:
        for number in range(count):
            await cluster.call("PATCH", path, {"status": {"message": f"message {number}"}})

    await patch(30)  # what is compiled at first use
    used, began = cpu_s(server), time.monotonic()
    await patch(patches)
    spent = {"processor_ms": cpu_s(server) - used, "clock_ms": time.monotonic() - began}
    return {kind: round(1000 * seconds / patches, 1) for kind, seconds in spent.items()}


async def measure(arguments: argparse.Namespace, instance: Instance, _folder: Path) -> dict[str, Any]:
    """Cost of a patch by definition."""
    prepare(instance)
    pid = Processes(instance).alive("apiserver")
    assert pid is not None
    figures: dict[str, Any] = {"patches": arguments.patches}
    async with Cluster(instance.kubeconfig, NAMESPACE) as cluster:
        for number, (kind, unwanted) in enumerate(DEFINITIONS.items()):
            define(instance, without(yaml.safe_load(CRD.read_text()), unwanted))
            figures[kind] = await cost(cluster, psutil.Process(pid), f"i{number}", arguments.patches)
    return figures


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=500, help="of each definition (default: %(default)s)")
    parser.add_argument("--instance", type=int, default=3, help="number of the embedded cluster")
    on_own_instance(measure, parser.parse_args())


if __name__ == "__main__":
    main()
