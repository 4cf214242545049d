"""An operator installed by the chart on the embedded cluster, with the example's real data in the store."""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dev.cluster import lifecycle
from dev.cluster.config import Cluster
from examples.shapes.demo import BUCKET, Demo, Timings
from examples.shapes.target import Target
from kubernetes import client
from rich.console import Console

from dpe_api.names import Stage
from dpe_api.status import Phase, Status
from dpe_jobs.store import Store
from tests.e2e.timeline import Timeline
from tests.e2e.world import World, example, wait_for
from tests.monitoring.scraping import Prometheus, scrape
from tests.patience import deadline


@dataclass(frozen=True)
class Turn:
    """One finished iteration."""

    name: str
    root: str
    status: Status
    timeline: Timeline
    start: float
    end: float
    """From when to when it was watched, seconds since the epoch."""


@pytest.fixture(scope="session")
def world(
    cluster: Cluster,
    api: client.ApiClient,
    image: str,
    store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """What `make demo` installs, in a namespace of its own; gone afterwards, artifacts included."""
    namespace = f"e2e-{secrets.token_hex(3)}"
    environment = {**lifecycle.environment(cluster), "DPE_NAMESPACE": namespace, "DPE_IMAGE": image}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("KUBE_CONTEXT", raising=False)
        timings = Timings(tmp_path_factory.mktemp("demo") / "timings.json")
        demo = Demo(Target.from_env(), Console(file=sys.stderr), timings, deadline(600))
        demo.install()
        demo.upload()
        yield World(api, namespace, store, BUCKET)
        if os.environ.get("KEEP_E2E"):  # for a look at what a failed test left behind
            return
        demo.target.kubectl("delete", "dpei", "--all", "--timeout=120s")
        demo.target.helm("uninstall", "dpe", "--wait", "--timeout", "2m")
        demo.target.kubectl("delete", "namespace", namespace, "--wait=false")
        store.delete(found.uri for found in store.list(f"s3://{BUCKET}/{namespace}"))


@pytest.fixture(scope="session")
def prometheus(cluster: Cluster, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes operator and stages from before the first turn on."""
    with scrape(cluster.kubeconfig, world.namespace, tmp_path_factory.mktemp("prometheus")) as it:
        yield it


@pytest.fixture(scope="session")
def first_turn(world: World, prometheus: Prometheus) -> Turn:
    """The example's first iteration, run once for all tests that look at it; the operator dies while it diagnoses."""
    name, start = "shapes-1", time.time()
    with Timeline(world.api, world.namespace) as timeline:
        world.create(name, example("iteration-1.yaml"))
        world.wait_stage_running(name, Stage.DIAGNOSIS, deadline_s=300)
        world.kill_operator()
        status = world.wait_phase(name, Phase.SUCCEEDED, deadline_s=1200)
    # what the operator counts comes a moment after the status
    done = f'dpe_iteration_phase{{namespace="{world.namespace}",iteration="{name}",phase="{Phase.SUCCEEDED}"}}'
    wait_for(lambda: prometheus.query(done), 30, lambda: "Prometheus does not see the end of the turn")
    return Turn(name, world.artifacts(name), status, timeline, start, time.time())
