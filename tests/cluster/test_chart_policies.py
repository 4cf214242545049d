"""What the chart adds around the operator: NetworkPolicies, budgets, priorities, and pods that `restricted` admits.

The embedded cluster enforces no NetworkPolicy: who may reach whom is computed here from the rendered policies.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from tests.cluster import charts
from tests.cluster.charts import CHART, MINIMAL, PROMETHEUS_API, ROOT, Peer, connects, one, rendered, some
from tests.unit.monitoring.test_rules import promtool
from tests.unit.operator import given

from dpe_api.names import Stage
from dpe_api.status import Resolved
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt
from dpe_operator.platform import Platform

pytestmark = pytest.mark.cluster

HERE = "science"
ASKING = (Stage.DIAGNOSIS, Stage.GENERATION, Stage.EVALUATION)
SERVING = (Stage.SERVE_BASE, Stage.SERVE_CANDIDATE)


def stage_pod(stage: Stage, platform: Platform) -> dict[str, Any]:
    """The pod template of a stage, as the operator makes it."""
    resolved = Resolved(round=0, model_uri="s3://dpe/models/base", spec=given.spec().resolve())
    server = None if stage.is_serving or stage is Stage.TRAINING else "shapes-1-serve-base-1"
    attempt = Attempt(given.ITERATION, platform, resolved, "s3://dpe/lab/shapes-1-01234567", stage, 1, server)
    (job,) = [child.body for child in build(attempt) if child.kind == "Job"]
    found: dict[str, Any] = job["spec"]["template"]
    return found


def platform_of(documents: list[dict[str, Any]]) -> Platform:
    text = one(documents, "ConfigMap", "dpe-operator")["data"]["platform.yaml"]
    return Platform.model_validate(yaml.safe_load(text))


class Net:
    """Pods of a rendered chart and its policies."""

    def __init__(self, *arguments: str) -> None:
        documents = rendered(*arguments)
        self.policies = [d for d in documents if d["kind"] == "NetworkPolicy"]
        pods = charts.pods(documents)
        facts = platform_of(documents)
        self.stages = {s: Peer(stage_pod(s, facts)["metadata"]["labels"], HERE) for s in Stage}
        self.operator = Peer(pods["dpe-operator"]["metadata"]["labels"], HERE)
        self.hooks = [Peer(pods[n]["metadata"]["labels"], HERE) for n in ("dpe-test", "dpe-uninstall")]
        self.prometheus = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
        self.stranger = Peer({"app": "notebook"}, HERE)
        self.dns = Peer({"k8s-app": "kube-dns"}, "kube-system")

    def connects(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        return connects(self.policies, source, target, port, protocol)


STORE = "--set=objectStore.endpoint=http://192.0.2.9:9000"
INTERNET = Peer(address="198.51.100.7")


def test_stages_reach_names_the_store_and_nothing_else_outside() -> None:
    net = Net(STORE)
    for pod in net.stages.values():
        assert net.connects(pod, net.dns, 53, "UDP")
        assert net.connects(pod, Peer(address="192.0.2.9"), 9000)
        assert not net.connects(pod, Peer(address="192.0.2.9"), 22)
        assert not net.connects(pod, Peer(address="169.254.169.254"), 80)
        assert not net.connects(pod, INTERNET, 443)
        assert not net.connects(pod, net.operator, 9090)
        assert not net.connects(pod, net.stranger, 8000)


def test_stages_that_ask_reach_the_model_server_and_listed_endpoints_and_no_other_stage_does() -> None:
    listed = json.dumps([{"to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": [443]}])
    net = Net(STORE, "--set-json", f"networkPolicy.endpoints={listed}")
    for stage, pod in net.stages.items():
        assert net.connects(pod, INTERNET, 443) is (stage in ASKING)
        assert not net.connects(pod, INTERNET, 80)
        for server in SERVING:
            assert net.connects(pod, net.stages[server], 8000) is (stage in ASKING)


def test_generation_alone_reaches_the_web_and_only_where_it_is_opened() -> None:
    private = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.0.0/16"]}}
    listed = json.dumps([{"to": [private], "ports": [80, 443]}])
    net, shut = Net(STORE, "--set-json", f"networkPolicy.downloads={listed}"), Net(STORE)
    for stage, pod in net.stages.items():
        for port in (80, 443):
            assert net.connects(pod, INTERNET, port) is (stage is Stage.GENERATION)
            assert not net.connects(pod, Peer(address="10.96.0.1"), port)
            assert not net.connects(pod, Peer(address="169.254.169.254"), port)
            assert not shut.connects(shut.stages[stage], INTERNET, port)
        assert not net.connects(pod, INTERNET, 22)


def test_the_operator_is_told_how_the_platform_downloads() -> None:
    facts = platform_of(
        rendered("--set-json", 'downloads={"userAgent": "lab/1 (+a@b.example)", "allow": ["10.1.0.0/16"]}')
    )
    assert (facts.downloads.user_agent, facts.downloads.allow) == ("lab/1 (+a@b.example)", ["10.1.0.0/16"])


def test_only_a_gangs_ranks_reach_each_other_at_any_port() -> None:
    net = Net(STORE)
    ranks = net.stages[Stage.TRAINING]
    assert net.connects(ranks, ranks, 29500)
    assert net.connects(ranks, ranks, 43210)
    for stage, pod in net.stages.items():
        if stage is not Stage.TRAINING:
            assert not net.connects(pod, ranks, 29500)
            assert not net.connects(pod, pod, 43210)


def test_prometheus_alone_reaches_metrics() -> None:
    net = Net(STORE)
    assert net.connects(net.prometheus, net.operator, 9090)
    assert not net.connects(net.prometheus, net.operator, 8080)
    assert not net.connects(net.stranger, net.operator, 9090)
    for stage, pod in net.stages.items():
        assert net.connects(net.prometheus, pod, 9090)
        assert net.connects(net.prometheus, pod, 8000) is (stage in SERVING)
        for port in (8000, 9090, 29500):
            assert not net.connects(net.stranger, pod, port)
            assert not net.connects(Peer(net.prometheus.labels | {"app.kubernetes.io/name": "x"}, "else"), pod, port)


def test_the_operator_and_the_hooks_reach_the_api_server_and_the_store() -> None:
    api = Peer(address="203.0.113.5")
    for arguments in ([], ["--set=networkPolicy.apiServer.cidrs={203.0.113.5/32}"]):
        net = Net(STORE, *arguments)
        for pod in (net.operator, *net.hooks):
            assert net.connects(pod, api, 6443)
            assert net.connects(pod, net.dns, 53)
            assert net.connects(pod, Peer(address="192.0.2.9"), 9000)
            assert net.connects(pod, INTERNET, 443) is (not arguments)
            assert not net.connects(pod, INTERNET, 80)
        for hook in net.hooks:
            assert net.connects(hook, net.operator, 8080)
            assert not net.connects(net.stranger, hook, 8080)


@pytest.mark.parametrize(
    ("arguments", "reached", "not_reached"),
    [
        (["http://minio.storage.svc:80"], (Peer({}, "storage"), 9000), (Peer({}, "other"), 9000)),
        (["http://minio.storage.svc.cluster.local:9000"], (Peer({}, "storage"), 9000), (INTERNET, 9000)),
        (["https://s3.example.org"], (INTERNET, 443), (INTERNET, 80)),
        (["http://s3.example.org:9000"], (INTERNET, 9000), (INTERNET, 443)),
        (
            ["https://s3.example.org", '--set-json=networkPolicy.objectStore.to=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]'],
            (Peer(address="192.0.2.1"), 443),
            (INTERNET, 443),
        ),
    ],
)
def test_the_way_to_the_store_follows_its_address(
    arguments: list[str], reached: tuple[Peer, int], not_reached: tuple[Peer, int]
) -> None:
    net = Net(f"--set=objectStore.endpoint={arguments[0]}", *arguments[1:])
    pod = net.stages[Stage.DIAGNOSIS]
    assert net.connects(pod, *reached)
    assert not net.connects(pod, *not_reached)


@pytest.mark.parametrize(
    ("arguments", "open_ports"),
    [
        (["--set=objectStore.endpoint=https://s3.example.org"], "443"),
        (["--set=objectStore.endpoint=http://s3.example.org:9000"], "9000"),
        (["--set=networkPolicy.objectStore.ports={443,9000}"], "443, 9000"),
        ([STORE], None),
        (["--set=objectStore.endpoint=http://minio.storage.svc:9000"], None),
        (['--set-json=networkPolicy.objectStore.to=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]'], None),
        (["--set=networkPolicy.enabled=false"], None),
        ([STORE, "--set=tracing.endpoint=https://otlp.example.org"], "443"),
        ([STORE, "--set=tracing.endpoint=http://otel.monitoring.svc:4318"], None),
        (
            [
                *(STORE, "--set=tracing.endpoint=https://otlp.example.org"),
                '--set-json=networkPolicy.tracing.to=[{"ipBlock":{"cidr":"192.0.2.0/24"}}]',
            ],
            None,
        ),
    ],
)
def test_the_notes_warn_of_a_way_to_store_or_collector_that_leads_anywhere(
    arguments: list[str], open_ports: str | None
) -> None:
    told = charts.notes(*arguments)
    assert "The DPE operator works on DPEIterations in: science" in told
    if open_ports is None:
        assert "WARNING" not in told
    else:
        assert f"WARNING: every pod of this release reaches any address at port {open_ports}, also" in told


@pytest.mark.parametrize(
    ("arguments", "collector", "port"),
    [
        (["tracing.endpoint=http://otel.tracing.svc:4318"], Peer({"app": "otel"}, "tracing"), 4318),
        (["tracing.endpoint=https://203.0.113.5:4320"], Peer(address="203.0.113.5"), 4320),
        (
            [
                "tracing.endpoint=http://otel.example.org:4318",
                "networkPolicy.tracing.to[0].ipBlock.cidr=203.0.113.5/32",
            ],
            Peer(address="203.0.113.5"),
            4318,
        ),
    ],
)
def test_pods_and_operator_reach_the_collector_of_traces_only_where_there_is_one(
    arguments: list[str], collector: Peer, port: int
) -> None:
    net, shut = Net(STORE, "--set", ",".join(arguments)), Net(STORE)
    for pod, other in zip((*net.stages.values(), net.operator), (*shut.stages.values(), shut.operator), strict=True):
        assert net.connects(pod, collector, port)
        assert not shut.connects(other, collector, port)
        assert not net.connects(pod, INTERNET, port)
    assert not net.connects(net.hooks[0], collector, port)


def test_policies_stand_in_every_watched_namespace_and_can_be_switched_off() -> None:
    watched = rendered("--set", "watchNamespaces={vision,speech}")
    places = {(d["metadata"]["name"], d["metadata"]["namespace"]) for d in watched if d["kind"] == "NetworkPolicy"}
    stages = {(f"dpe-{n}", ns) for n in ("stages", "asking", "serving", "training") for ns in ("vision", "speech")}
    assert places == stages | {("dpe-operator", HERE), ("dpe-hooks", HERE)}
    assert not some(rendered("--set", "networkPolicy.enabled=false"), "NetworkPolicy")


def test_monitors_and_rules_come_with_the_api_that_knows_them_and_dashboards_always() -> None:
    kinds = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    dashboards = "dpe-dashboard-"
    without, with_api = rendered(), rendered(*PROMETHEUS_API)
    assert not kinds & {d["kind"] for d in without}
    assert kinds <= {d["kind"] for d in with_api}
    assert not kinds & {d["kind"] for d in rendered(*PROMETHEUS_API, "--set", "monitoring.enabled=false")}
    assert not some(rendered(*PROMETHEUS_API, "--set", "monitoring.rules=false"), "PrometheusRule")
    maps = [d for n, d in some(without, "ConfigMap").items() if n.startswith(dashboards)]
    assert all(d["metadata"]["labels"]["grafana_dashboard"] == "1" for d in maps)
    off = rendered("--set", "monitoring.dashboards.enabled=false")
    assert not [n for n in some(off, "ConfigMap") if n.startswith(dashboards)]


def test_alerts_carry_the_labels_and_the_runbook_of_the_values() -> None:
    arguments = ["--set", "monitoring.alertLabels.team=vision,monitoring.runbookUrl=https://wiki.example.org/ops"]
    rule = one(rendered(*PROMETHEUS_API, *arguments), "PrometheusRule")
    alerts = [r for group in rule["spec"]["groups"] for r in group["rules"] if "alert" in r]
    for alert in alerts:
        assert alert["labels"]["team"] == "vision"
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example.org/ops#{alert['alert'].lower()}"


def test_each_monitor_gives_its_series_the_release_that_the_rules_ask_for() -> None:
    documents = rendered(*PROMETHEUS_API)
    endpoints = one(documents, "ServiceMonitor")["spec"]["endpoints"]
    endpoints += one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert len(endpoints) == 3
    for endpoint in endpoints:
        assert {"targetLabel": "dpe_release", "replacement": "science/dpe"} in endpoint["relabelings"]


def test_of_two_releases_under_one_prometheus_each_tells_of_its_own_alone(tmp_path: Path) -> None:
    for namespace in ("science", "physics"):
        arguments = [*PROMETHEUS_API, "--set", f"monitoring.alertLabels.team={namespace}"]
        groups = one(rendered(*arguments, namespace=namespace), "PrometheusRule")["spec"]["groups"]
        path = tmp_path / f"{namespace}.yaml"
        path.write_text(yaml.safe_dump({"groups": [{**g, "name": f"{namespace} {g['name']}"} for g in groups]}))
    promtool("check", "rules", str(tmp_path / "science.yaml"))
    shutil.copy(Path(__file__).with_name("two_releases_test.yaml"), tmp_path)
    promtool("test", "rules", str(tmp_path / "two_releases_test.yaml"))


def test_priority_classes_are_used_where_they_are_created() -> None:
    assert platform_of(rendered()).pods.priority_class_name is None
    documents = rendered("--set", "priorityClasses.create=true")
    classes = some(documents, "PriorityClass")
    assert platform_of(documents).pods.priority_class_name == "science-dpe-stages"
    assert classes["science-dpe-stages"]["preemptionPolicy"] == "Never"
    operator = charts.pods(documents)["dpe-operator"]["spec"]["priorityClassName"]
    assert classes[operator]["value"] > classes["science-dpe-stages"]["value"]
    own = rendered("--set", "priorityClasses.create=true,pods.priorityClassName=mine")
    assert platform_of(own).pods.priority_class_name == "mine"
    assert charts.pods(own)["dpe-operator"]["spec"]["priorityClassName"] == "mine"


def test_every_pod_of_the_chart_has_labels_annotations_and_priority_of_the_values() -> None:
    arguments = ["--set", "pods.labels.team=vision,pods.annotations.a=b", "--set", "priorityClasses.create=true"]
    own = charts.pods(rendered(*arguments, "--set", "pods.priorityClassName=mine"))
    assert set(own) == {"dpe-operator", "dpe-test", "dpe-uninstall"}
    for pod in own.values():
        assert pod["metadata"]["labels"]["team"] == "vision"
        assert pod["metadata"]["annotations"]["a"] == "b"
        assert pod["spec"]["priorityClassName"] == "mine"
    created = charts.pods(rendered(*arguments))
    assert {pod["spec"]["priorityClassName"] for pod in created.values()} == {"science-dpe-operator"}
    assert not [pod for pod in charts.pods(rendered()).values() if "priorityClassName" in pod["spec"]]


def test_of_a_label_and_an_annotation_for_all_pods_the_operators_own_come_first() -> None:
    of_all = 'pods={"labels": {"team": "vision", "app.kubernetes.io/part-of": "lab"}, "annotations": {"a": "b"}}'
    own = 'operator={"podLabels": {"team": "platform"}, "podAnnotations": {"a": "c"}}'
    found = charts.pods(rendered("--set-json", of_all, "--set-json", own))
    metadata = found["dpe-operator"]["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["a"]) == ("platform", "c")
    assert metadata["labels"]["app.kubernetes.io/part-of"] == "lab"
    assert found["dpe-test"]["metadata"]["labels"]["team"] == "vision"


def test_the_notes_say_when_no_alert_watches_the_release() -> None:
    assert "No alert watches this release" in charts.notes("--set", "monitoring.rules=false")
    assert "No alert" not in charts.notes()


def test_the_notes_say_how_iterations_that_are_kept_are_deleted_in_every_namespace() -> None:
    kept = ["--set", "uninstall.iterations=keep", "--set", "watchNamespaces={vision,speech}"]
    lines = charts.notes(*kept).splitlines()
    where = [line.split()[2] for line in lines if "delete dper,dpei --all" in line]
    assert where == ["speech", "vision"]
    assert "delete dper,dpei" not in charts.notes()


MATRIX = {
    "the least": [],
    "the embedded cluster": ["-f", str(ROOT / "dev" / "values.yaml")],
    "everything": [
        *("--set", "pods.runAsUser=1000660000,operator.podDisruptionBudget.maxUnavailable=50%"),
        *("--set-json", 'pods.extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]'),
        *("--set-json", 'pods.extraVolumeMounts=[{"name":"ca","mountPath":"/ca"}]'),
        *("--set-json", 'jobs.env=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]'),
        *("--set", "jobsPool=inference,objectStore.endpoint=http://minio.storage.svc:9000"),
        *("--set", "pods.annotations.a=b,pods.labels.team=vision,operator.podLabels.x=y"),
    ],
    "a uid of the namespace's own": ["--set", "pods.runAsUser=null"],
    "keys in the values": ["--set", "objectStore.credentialsSecret=,objectStore.accessKey=a,objectStore.secretKey=b"],
}


@pytest.mark.parametrize("values", MATRIX)
def test_every_object_is_accepted_and_every_pod_admitted_where_restricted_is_enforced(
    api: client.ApiClient, cluster: Any, namespace: str, values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server-side dry run of all objects, and of all pods as pods: a template is admitted unseen."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    documents = rendered(*MATRIX[values], "--set", "priorityClasses.create=true", namespace=namespace)
    templates = charts.pods(documents)
    facts = platform_of(documents)
    templates |= {f"stage-{stage}": stage_pod(stage, facts) for stage in Stage}
    pods = []
    for name, template in templates.items():
        spec = {k: v for k, v in template["spec"].items() if k not in ("priorityClassName", "serviceAccountName")}
        metadata = {"name": f"pod-{name}", "namespace": namespace, "labels": template["metadata"]["labels"]}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    others = [d for d in documents if d["kind"] != "Pod"]
    done = subprocess.run(
        ["kubectl", "create", "--dry-run=server", "-f", "-"],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*others, *pods]}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert done.stdout.count("created (server dry run)") == len(others) + len(pods)
    assert len(pods) == len(Stage) + 3


def test_a_pod_that_restricted_refuses_is_seen_by_that_dry_run(
    cluster: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    spec = {"containers": [{"name": "main", "image": "x"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": namespace}, "spec": spec}
    command = ["kubectl", "create", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(pod), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr


def test_values_that_are_wrong_in_the_new_parts_are_named() -> None:
    for wrong, place in {
        "networkPolicy.endpoints[0].ports={443}": "/networkPolicy/endpoints/0",
        "uninstall.iterations=suspend": "/uninstall/iterations",
        "monitoring.interval=often": "/monitoring/interval",
    }.items():
        assert place in charts.refused(*MINIMAL, "--set", wrong)
    assert (CHART / "README.md").exists()
