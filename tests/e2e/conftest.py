"""An operator installed by the chart on the embedded cluster, with the example's real data in the store.

All of it ends with the last test of the folder: what runs on costs those that come after it.
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
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
from tests.fakes.otlp import Collector, collecting
from tests.monitoring.scraping import Prometheus, scrape
from tests.patience import deadline
from tests.proxy import Proxy, proxy


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


@pytest.fixture(scope="package")
def way(cluster: Cluster) -> Iterator[Proxy]:
    """What is between the pods and the object store."""
    parts = urlsplit(cluster.s3_endpoint)
    with proxy(str(parts.hostname), (str(parts.hostname), int(parts.port or 80))) as it:
        yield it


@pytest.fixture(scope="package")
def collector(cluster: Cluster) -> Iterator[Collector]:
    """Where operator and pods send their spans."""
    with collecting(str(urlsplit(cluster.s3_endpoint).hostname)) as it:
        yield it


@pytest.fixture(scope="package")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this machine that both nodes see, for pods to keep models in."""
    folder = tmp_path_factory.mktemp("models")
    folder.chmod(0o777)
    return folder


def make_claim(target: Target, folder: Path) -> None:
    """What docs/install.md asks for: a claim of a volume that all nodes share."""
    everybody = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": target.namespace},
        "spec": everybody
        | {
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": target.namespace, "name": "models"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": everybody | {"volumeName": target.namespace, "resources": {"requests": {"storage": "1Gi"}}},
    }
    target.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([volume, claim]))


def tell_chart(target: Target, collector: Collector) -> None:
    """Values beside the demo's: the cache of models, and where traces go."""
    values = {
        "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}},
        "tracing": {"endpoint": collector.url},
    }
    upgrade = ("upgrade", "dpe", "charts/dpe", "--skip-crds", "--reuse-values", "--wait", "--timeout", "5m", "-f", "-")
    target.helm(*upgrade, stdin=yaml.safe_dump(values))


@pytest.fixture(scope="package")
def world(
    cluster: Cluster,
    api: client.ApiClient,
    image: str,
    store: Store,
    way: Proxy,
    model_cache: Path,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """What `make demo` installs, a cache of models and traces, in a namespace of its own that is gone afterwards."""
    namespace = f"e2e-{secrets.token_hex(3)}"
    environment = lifecycle.environment(cluster) | {
        "DPE_NAMESPACE": namespace,
        "DPE_IMAGE": image,
        "DPE_S3_ENDPOINT": way.address,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("KUBE_CONTEXT", raising=False)
        timings = Timings(tmp_path_factory.mktemp("demo") / "timings.json")
        demo = Demo(Target.from_env(), Console(file=sys.stderr), timings, deadline(600))
        demo.install()
        make_claim(demo.target, model_cache)
        tell_chart(demo.target, collector)
        demo.upload()
        yield World(api, namespace, store, BUCKET)
        if os.environ.get("KEEP_E2E"):  # for a look at what a failed test left behind
            return
        demo.target.kubectl("delete", "dpei", "--all", "--timeout=120s")
        demo.target.helm("uninstall", "dpe", "--wait", "--timeout", "2m")
        demo.target.kubectl("delete", "namespace", namespace, "--wait=false")
        demo.target.kubectl("delete", "persistentvolume", namespace, "--wait=false")
        store.delete(found.uri for found in store.list(f"s3://{BUCKET}/{namespace}"))


@pytest.fixture(scope="package")
def prometheus(cluster: Cluster, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes operator and stages from before the first turn on."""
    with scrape(cluster.kubeconfig, world.namespace, tmp_path_factory.mktemp("prometheus")) as it:
        yield it


@pytest.fixture(scope="package")
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
