"""Prometheus and an operator installed by the chart, whose stages are played by tests/cluster/stage_double.py."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dev.cluster import object_store
from dev.cluster.config import Cluster
from kubernetes import client
from tests.cluster.charts import CHART, ROOT, helm
from tests.cluster.operators import Lab, give_doubles
from tests.monitoring.scraping import Prometheus, scrape, silent
from tests.patience import deadline

from dpe_api.names import BATCH_STAGES, MANIFEST, Stage
from dpe_api.status import Phase
from dpe_jobs.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

DOUBLE = {"command": ["/opt/venv/bin/python", "/doubles/stage_double.py"]}
OF_REAL_STAGES = (
    "vllm:",
    "dpe_training_",
    "dpe_requests_total",
    "dpe_request_errors_total",
    'dpe_tokens_total{job="dpe-stages"',
)
"""Series that a double of a stage does not have; tests/e2e/test_monitoring.py looks at a real turn."""


@pytest.fixture
def lab(
    cluster: Cluster,
    api: client.ApiClient,
    namespace: str,
    image: str,
    store: Store,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lab]:
    """The chart in a namespace, with doubles for the stages."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    user = object_store.credentials(cluster)
    values = {part: {"image": image, **DOUBLE} for part in ("jobs", "serving", "training")}
    values["operator"] = {"image": image}
    values["pods"] = {
        "extraVolumes": [{"name": "doubles", "configMap": {"name": "doubles"}}],
        "extraVolumeMounts": [{"name": "doubles", "mountPath": "/doubles", "readOnly": True}],
    }
    values["objectStore"] = {
        "endpoint": cluster.s3_endpoint,
        "bucket": bucket,
        "accessKey": user.access_key,
        "secretKey": user.secret_key,
    }
    for part in ("jobs", "serving", "training"):
        values[part]["resources"] = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    lab = Lab(api, namespace, store, bucket, tmp_path, {}, {})
    give_doubles(lab)
    lab.upload_inputs()
    crds = ["kubectl", "apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds")]
    subprocess.run(crds, check=True, capture_output=True)
    files = ["-f", str(ROOT / "dev" / "values.yaml"), "-f", "-"]
    done = helm("install", "dpe", str(CHART), "-n", namespace, "--skip-crds", *files, stdin=yaml.safe_dump(values))
    assert done.returncode == 0, done.stderr
    yield lab
    helm("uninstall", "dpe", "-n", namespace, "--wait", "--timeout", "100s")


@pytest.fixture
def prometheus(cluster: Cluster, lab: Lab, tmp_path: Path) -> Iterator[Prometheus]:
    with scrape(cluster.kubeconfig, lab.namespace, tmp_path) as it:
        yield it


def until(what, prometheus: Prometheus, deadline_s: float = 90) -> None:
    end = deadline(deadline_s)
    while not what():
        targets = [(t["labels"], t["health"], t["lastError"]) for t in prometheus.targets()]
        assert time.monotonic() < end, json.dumps(targets, indent=1)
        time.sleep(0.5)


def diagnosed(lab: Lab) -> str:
    """Address of the diagnosis' manifest."""
    return f"{lab.root()}/{Stage.DIAGNOSIS}/{MANIFEST}"


def upgrade(lab: Lab) -> None:
    """`helm upgrade` with another value: another operator, which starts what comes next."""
    before = {pod.metadata.uid for pod in operators_of(lab)}
    changed = ("--reuse-values", "--set", "deadlines.noProgress=1234", "--wait", "--timeout", "100s")
    done = helm("upgrade", "dpe", str(CHART), "-n", lab.namespace, "--skip-crds", *changed)
    assert done.returncode == 0, done.stdout + done.stderr
    lab.until(lambda: operators_of(lab) and not before & {pod.metadata.uid for pod in operators_of(lab)})


def operators_of(lab: Lab) -> list[client.V1Pod]:
    """Pods of the operator."""
    found: list[client.V1Pod] = lab.core.list_namespaced_pod(
        lab.namespace, label_selector="app.kubernetes.io/component=operator"
    ).items
    return found


def test_prometheus_sees_a_turn_with_an_upgrade_in_its_middle_fills_the_panels_and_misses_an_operator_that_goes_away(
    lab: Lab, prometheus: Prometheus, api: client.ApiClient
) -> None:
    start = time.time()
    until(lambda: prometheus.query('up{job="dpe-operator"} == 1'), prometheus)
    for stage in BATCH_STAGES:
        lab.wish(stage, 1, hold=True)
    lab.create()
    for stage in BATCH_STAGES:
        own = f'namespace="{lab.namespace}",iteration="turn",stage="{stage}"'
        until(lambda own=own: prometheus.query(f'dpe_stage_items_total{{job="dpe-stages",{own}}} == 10'), prometheus)
        until(
            lambda own=own: prometheus.query(f'dpe_stage_progress_ratio{{job="dpe-operator",{own}}} == 0'), prometheus
        )
        if stage is Stage.GENERATION:
            before = lab.body()["metadata"]["uid"], lab.status().artifacts, lab.store.get(diagnosed(lab))
            upgrade(lab)
        lab.wish(stage, 1)
    lab.until(lambda: lab.status().phase is Phase.SUCCEEDED, 120)
    assert {(s.attempt, s.failures, s.disruptions) for s in lab.status().stages} == {(1, 0, 0)}
    assert {name[-2:] for name in lab.jobs()} == {"-1"}
    assert (lab.body()["metadata"]["uid"], lab.status().artifacts, lab.store.get(diagnosed(lab))) == before
    done = f'dpe_iteration_phase{{namespace="{lab.namespace}",iteration="turn",phase="Succeeded"}} == 1'
    until(lambda: prometheus.query(done), prometheus)
    served = prometheus.over(f'up{{job="dpe-stages",stage="{Stage.SERVE_BASE}"}}', start, time.time())
    assert served[0][0]["attempt"] == "1"
    found = silent(prometheus, lab.namespace, "turn", start, time.time())
    unexpected = [text for text in found if not any(name in text for name in OF_REAL_STAGES)]
    # the doubles' samples are in the status, their pods count none
    assert [text for text in unexpected if "Candidates per second" not in text] == []
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
    firing = {rule["name"] for rule in prometheus.rules() if rule.get("state") == "firing"}
    assert firing == set()

    def down() -> str:
        return next(rule["state"] for rule in prometheus.rules() if rule["name"] == "DPEOperatorDown")

    assert down() == "inactive"
    scale = {"spec": {"replicas": 0}}
    client.AppsV1Api(api).patch_namespaced_deployment_scale("dpe-operator", lab.namespace, scale)
    until(lambda: down() == "pending", prometheus)  # it fires after five minutes: rules_test.yaml plays that
    scale["spec"]["replicas"] = 1  # the hook before the uninstall needs it
    client.AppsV1Api(api).patch_namespaced_deployment_scale("dpe-operator", lab.namespace, scale)
