"""The object store's secret key goes through every pod of a whole turn, and shows nowhere."""

import json
from collections.abc import Iterator

import pytest
from dev.cluster import object_store
from dev.cluster.config import Cluster
from kubernetes import client

from tests.e2e.conftest import Turn
from tests.e2e.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


def shown(world: World, turn: Turn) -> Iterator[tuple[str, bytes]]:
    """Everything that whoever may not read Secrets can read, and what the turn left in the store."""
    core, batch = client.CoreV1Api(world.api), client.BatchV1Api(world.api)
    serialise = client.ApiClient().sanitize_for_serialization
    lists = {
        "ConfigMaps": core.list_namespaced_config_map,
        "Events": core.list_namespaced_event,
        "Pods": core.list_namespaced_pod,
        "Jobs": batch.list_namespaced_job,
        "Deployments": client.AppsV1Api(world.api).list_namespaced_deployment,
    }
    for kind, listed in lists.items():
        yield kind, json.dumps(serialise(listed(world.namespace))).encode()
    yield "the resource", json.dumps(world.get(turn.name)).encode()
    for pod in [*world.pods(turn.name), *filter(None, [world.operator_pod()])]:
        for container in [*(pod.spec.init_containers or []), *pod.spec.containers]:
            said = core.read_namespaced_pod_log(pod.metadata.name, world.namespace, container=container.name)
            yield f"log of {pod.metadata.name}/{container.name}", said.encode()
    for found in world.store.list(turn.root):
        yield found.uri, world.store.get(found.uri)


def test_the_stores_secret_key_shows_in_no_object_log_event_or_artifact(
    first_turn: Turn, world: World, cluster: Cluster
) -> None:
    canary = object_store.credentials(cluster).secret_key.encode()
    seen = dict(shown(world, first_turn))
    assert len(seen) > 30, sorted(seen)
    assert [name for name in seen if name.startswith("log of") and seen[name]], "no pod has said anything"
    assert [name for name, data in seen.items() if canary in data] == []
