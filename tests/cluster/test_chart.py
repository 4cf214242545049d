"""The chart, rendered by Helm and installed on a real API server."""

import json
import re
import subprocess
import time
from typing import Any

import pytest
import yaml
from dev.cluster import object_store
from dev.cluster.config import Cluster
from kubernetes import client
from tests.cluster.charts import CHART, MINIMAL, ROOT, helm, one, pods, refused, rendered
from tests.cluster.operators import RIGHTS
from tests.patience import deadline

from dpe_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION, Stage
from dpe_operator.platform import ModelCache, Platform

pytestmark = pytest.mark.cluster


def platform(*arguments: str) -> Platform:
    text = one(rendered(*arguments), "ConfigMap", "dpe-operator")["data"]["platform.yaml"]
    return Platform.model_validate(yaml.safe_load(text))


def test_helm_lint_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", str(CHART), *MINIMAL)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_reads_the_rendered_platform() -> None:
    found = platform()
    assert found.object_store.bucket == "experiments"
    assert found.object_store.credentials_secret == "s3-credentials"
    assert set(found.pools) == {"inference", "training"}
    assert found.jobs_pool is None
    images = {stage: found.container(stage).image.split(":")[0] for stage in Stage}
    assert images[Stage.SERVE_BASE] == "registry.example.org/dpe/serving"
    assert images[Stage.TRAINING] == "registry.example.org/dpe/training"
    assert images[Stage.DIAGNOSIS] == "registry.example.org/dpe/jobs"


def test_every_knob_reaches_the_operator() -> None:
    values = {
        "image": {"registry": "registry.example.org/dpe", "tag": "1.2.3", "pullPolicy": "Always"},
        "serving": {"image": "vllm:mine", "env": [{"name": "A", "value": "1"}], "command": ["serve"]},
        "pods": {
            "runtimeClassName": "nvidia",
            "runAsUser": 1000660000,
            "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        },
        "pools": {
            "h200": {
                "nodeSelector": {"gpu": "h200"},
                "gpuResource": "amd.com/gpu",
                "sharedMemory": "64Gi",
                "env": [{"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}],
            }
        },
        "jobsPool": "h200",
        "deadlines": {"startup": 7},
        "backoff": {"base": 0.5},
        "objectStore.prefix": "team-a",
    }
    found = platform(*_set(values))
    assert found.jobs.image == "registry.example.org/dpe/jobs:1.2.3"
    assert (found.serving.image, found.serving.command, found.serving.pull_policy) == ("vllm:mine", ["serve"], "Always")
    assert (found.pods.runtime_class_name, found.pods.run_as_user) == ("nvidia", 1000660000)
    assert found.pods.extra_volume_mounts == [{"name": "scratch", "mountPath": "/scratch"}]
    pool = found.pools["h200"]
    assert (pool.node_selector, pool.gpu_resource, pool.shared_memory) == ({"gpu": "h200"}, "amd.com/gpu", "64Gi")
    assert pool.env == [{"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}]
    assert (found.jobs_pool, found.deadlines.startup, found.backoff.base) == ("h200", 7, 0.5)
    assert found.object_store.prefix == "team-a"


def test_a_registry_is_asked_for_only_where_a_part_names_no_image_of_its_own() -> None:
    own = ("operator", "jobs", "serving", "training")
    whole = ["--set", ",".join(["image.registry=", *(f"{part}.image={part}:mine" for part in own)])]
    assert platform(*whole).training.image == "training:mine"
    lent = ["--set", "lmmsEval.data.persistentVolumeClaim.claimName=benchmarks"]
    assert "or set lmmsEval.image" in refused(*MINIMAL, *whole, *lent)
    assert platform(*whole, *lent, "--set", "lmmsEval.image=lmms-eval:mine").lmms_eval is not None


def _set(values: dict[str, object]) -> list[str]:
    return [argument for name, value in values.items() for argument in ("--set-json", f"{name}={json.dumps(value)}")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "objectStore.endpoint is empty: set it to http(s)://HOST[:PORT]"),
        (["--set", "objectStore.endpoint=http://s3"], "objectStore.bucket is empty"),
        (["--set", "objectStore.endpoint=http://s3,objectStore.bucket=dpe"], "objectStore has no credentials"),
        ([*MINIMAL, "--set", "image.registry="], "image.registry is empty: set it to the registry and folder to which"),
        ([*MINIMAL, "--set", "objectStore.accessKey=a"], "either credentialsSecret or accessKey and secretKey"),
        (
            [*MINIMAL, "--set-json", 'pods.labels={"app.kubernetes.io/name": "x"}'],
            "pods.labels has app.kubernetes.io/name, which pods are found by",
        ),
        (
            [*MINIMAL, "--set-json", 'operator.podLabels={"dpe.dev/stage": "training"}'],
            "operator.podLabels has dpe.dev/stage, which pods are found by",
        ),
        ([*MINIMAL, "--set", "jobsPool=gpu"], 'jobsPool is "gpu", which pools does not have: it has inference'),
        ([*MINIMAL, "--set", "objectStore.endpoint=s3.example.org"], "/objectStore/endpoint"),
        ([*MINIMAL, "--set", "pools.training.nodeselector.a=b"], "additional properties 'nodeselector' not allowed"),
        ([*MINIMAL, "--set", "pods.runAsUser=0"], "/pods/runAsUser"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(arguments: list[str], words: str) -> None:
    assert words in refused(*arguments)


def test_rights_and_credentials_go_to_every_watched_namespace_and_nowhere_else() -> None:
    credentials = "objectStore.credentialsSecret=,objectStore.accessKey=a,objectStore.secretKey=b"
    documents = rendered("--set", "watchNamespaces={vision,speech}", "--set", credentials)
    places = {kind: set() for kind in ("Role", "RoleBinding", "Secret", "Deployment", "ServiceAccount")}
    for document in documents:
        if document["kind"] in places:
            places[document["kind"]].add(document["metadata"]["namespace"])
    assert places["Role"] == places["RoleBinding"] == {"vision", "speech"}
    assert places["Secret"] == {"vision", "speech", "science"}
    assert places["Deployment"] == places["ServiceAccount"] == {"science"}
    assert not [d for d in documents if d["kind"].startswith("Cluster")]


def rights(rules: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Verbs by resource."""
    return {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}


def test_the_rights_in_the_security_page_are_those_of_the_role_and_of_the_operators_in_tests() -> None:
    page = (ROOT / "docs" / "security.md").read_text().partition("\n## Rights\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|.*\|$", page, re.MULTILINE)
    said = {
        resource: set(verbs.split(", "))
        for resources, verbs in rows
        for resource in resources.removesuffix(", by name").split(", ")
        if (resource, verbs) != ("resource", "verbs")
    }
    rules = one(rendered("--set", "endpointSecrets={keys}"), "Role")["rules"]
    assert rights(rules) == said
    (of_secrets,) = [rule for rule in rules if "secrets" in rule["resources"]]
    assert of_secrets["resourceNames"] == ["s3-credentials", "keys"]
    in_tests = {resource: set(verbs.split()) for _, resource, verbs in RIGHTS} | {"secrets": {"get"}}
    assert in_tests == {resource: verbs for resource, verbs in said.items() if not resource.endswith("/finalizers")}


def test_values_of_a_release_from_before_the_cache_of_models_have_none() -> None:
    """`helm upgrade --reuse-values` brings no defaults of the new chart."""
    assert platform("--set", "modelCache=null").model_cache == ModelCache()


def test_public_benchmarks_come_with_a_volume_and_an_image_of_their_own() -> None:
    assert platform().lmms_eval is None
    assert platform("--set", "lmmsEval=null").lmms_eval is None
    lent = platform("--set", "lmmsEval.data.persistentVolumeClaim.claimName=benchmarks").lmms_eval
    assert lent is not None
    assert lent.image.rsplit("/", 1)[1].startswith("lmms-eval:")
    assert lent.data == {"persistentVolumeClaim": {"claimName": "benchmarks"}}
    assert lent.resources["limits"]["memory"]


@pytest.mark.parametrize(("uid", "asked"), [("65532", 65532), ("1000660000", 1000660000), ("null", None)])
def test_the_charts_pods_ask_for_the_uid_of_the_values_or_for_none_and_the_operator_is_told_so(
    uid: str, asked: int | None
) -> None:
    documents = rendered("--set", f"pods.runAsUser={uid}")
    for pod in pods(documents).values():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context.keys() & {"runAsUser", "runAsGroup", "fsGroup"} == (
            set() if asked is None else {"runAsUser", "runAsGroup", "fsGroup"}
        )
        assert {context.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {asked}
        assert context.get("fsGroupChangePolicy") == (None if asked is None else "OnRootMismatch")
    told = yaml.safe_load(one(documents, "ConfigMap", "dpe-operator")["data"]["platform.yaml"])["pods"]
    assert told["runAsUser"] == asked  # KeyError where it is missing: the operator's default would be a uid


def test_a_change_of_the_platform_restarts_the_operator_and_nothing_else_does() -> None:
    def template(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = one(rendered(*arguments), "Deployment")["spec"]["template"]
        return found

    before = template()
    assert template("--set", "operator.nodeSelector=null") == before
    changed = template("--set", "deadlines.startup=99")
    assert changed["metadata"]["annotations"] != before["metadata"]["annotations"]
    assert changed["spec"] == before["spec"]


def test_the_operator_reads_the_stores_keys_from_its_volume_and_nothing_in_its_pod_tells_of_them() -> None:
    def template(key: str) -> dict[str, Any]:
        values = f"objectStore.credentialsSecret=,objectStore.accessKey=a,objectStore.secretKey={key}"
        found: dict[str, Any] = one(rendered("--set", values), "Deployment")["spec"]["template"]
        return found

    found = template("one")
    assert template("another") == found
    (container,) = found["spec"]["containers"]
    assert [e["name"] for e in container["env"] if e["name"].startswith("DPE_S3")] == ["DPE_S3_KEYS"]
    for name in ("dpe-test", "dpe-uninstall"):
        (hook,) = pods(rendered())[name]["spec"]["containers"]
        assert {"DPE_S3_ACCESS_KEY", "DPE_S3_SECRET_KEY"} <= {e["name"] for e in hook["env"]}


@pytest.fixture
def release(cluster: Cluster, namespace: str, image: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Namespace of an installed chart, with the values of the embedded cluster."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    user = object_store.credentials(cluster)
    values = {part: {"image": image} for part in ("operator", "jobs", "serving", "training")}
    values["endpointSecrets"] = ["keys"]
    values["objectStore"] = {
        "endpoint": cluster.s3_endpoint,
        "bucket": "dpe",
        "accessKey": user.access_key,
        "secretKey": user.secret_key,
    }
    for arguments in (
        ["kubectl", "apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds")],
        ["kubectl", "wait", "--for=condition=Established", "-f", str(CHART / "crds"), "--timeout=30s"],
    ):
        subprocess.run(arguments, check=True, capture_output=True, text=True)
    files = ["-f", str(ROOT / "dev" / "values.yaml"), "-f", "-"]
    done = helm(*("install", "dpe", str(CHART), "-n", namespace, "--skip-crds", *files), stdin=yaml.safe_dump(values))
    assert done.returncode == 0, done.stderr
    assert f"kubectl -n {namespace} get dpei -w" in done.stdout
    return namespace


def wait_ready(api: client.ApiClient, namespace: str) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    end = deadline(90)
    while not apps.read_namespaced_deployment("dpe-operator", namespace).status.ready_replicas:
        events = [f"{e.reason}: {e.message}" for e in core.list_namespaced_event(namespace).items]
        assert time.monotonic() < end, "\n".join(events)
        time.sleep(0.5)


def test_the_operator_becomes_ready_in_a_namespace_that_enforces_restricted_and_helm_test_says_so(
    api: client.ApiClient, release: str
) -> None:
    wait_ready(api, release)
    (pod,) = client.CoreV1Api(api).list_namespaced_pod(release).items
    assert pod.status.container_statuses[0].restart_count == 0
    done = helm("test", "dpe", "-n", release, "--logs", "--timeout", "90s")
    assert done.returncode == 0, done.stdout + done.stderr
    left = client.CoreV1Api(api).list_namespaced_config_map(release).items
    assert "dpe-test" not in [it.metadata.name for it in left], "an uninstall leaves what helm test leaves"
    for line in (
        "ok      operator",
        f"ok      DPEIterations and DPERuns: 0 in {release}",
        "ok      object store: dpe at",
    ):
        assert line in done.stdout


class Account:
    """What the API server lets a ServiceAccount do."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str) -> None:
        self._review, self._namespace = client.AuthorizationV1Api(api), namespace
        self._user = f"system:serviceaccount:{namespace}:{name}"

    def may(
        self, verb: str, resource: str, group: str = "", namespace: str | None = None, name: str | None = None
    ) -> bool:
        resource, _, subresource = resource.partition("/")
        attributes = client.V1ResourceAttributes(
            verb=verb,
            resource=resource,
            subresource=subresource,
            group=group,
            namespace=self._namespace if namespace is None else namespace,
            name=name,
        )
        spec = client.V1SubjectAccessReviewSpec(
            user=self._user, groups=["system:serviceaccounts", "system:authenticated"], resource_attributes=attributes
        )
        answer = self._review.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
        return bool(answer.status.allowed)


def test_accounts_may_do_what_they_must_and_no_more(api: client.ApiClient, release: str) -> None:
    may = Account(api, release, "dpe-operator").may

    for plural in ("dpeiterations", "dperuns"):
        assert may("watch", plural, "dpe.dev")
        assert may("patch", f"{plural}/status", "dpe.dev")
    assert may("create", "dpeiterations", "dpe.dev")
    assert may("create", "jobs", "batch")
    assert may("get", "secrets", name="dpe-object-store")
    assert may("get", "secrets", name="keys")
    assert not may("get", "secrets", name="another")
    assert not may("list", "secrets")
    assert not may("create", "pods")
    assert not may("create", "pods/exec")
    assert not may("create", "dperuns", "dpe.dev")
    assert not may("create", "rolebindings", "rbac.authorization.k8s.io")
    assert not may("list", "dpeiterations", "dpe.dev", namespace="default")
    assert not may("list", "nodes", namespace="")
    assert not may("patch", "jobs", "batch")
    assert not may("get", "secrets", namespace="kube-system", name="dpe-object-store")
    stages = Account(api, release, "default").may
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete"):
        for resource, group in (("secrets", ""), ("pods", ""), ("jobs", "batch"), ("dpeiterations", "dpe.dev")):
            assert not stages(verb, resource, group), f"a stage may {verb} {resource}"
    assert not stages("create", "pods/exec")


def test_installing_again_changes_nothing_and_uninstalling_leaves_nothing(api: client.ApiClient, release: str) -> None:
    wait_ready(api, release)
    before = client.AppsV1Api(api).read_namespaced_deployment("dpe-operator", release).metadata.generation
    done = helm("upgrade", "dpe", str(CHART), "-n", release, "--skip-crds", "--reuse-values")
    assert done.returncode == 0, done.stderr
    assert client.AppsV1Api(api).read_namespaced_deployment("dpe-operator", release).metadata.generation == before
    custom = client.CustomObjectsApi(api)
    spec = {"model": {"uri": "s3://no-such-bucket/model"}, "probe": {"uri": "s3://no-such-bucket/probe"}}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "left"}, "spec": spec}
    custom.create_namespaced_custom_object(GROUP, VERSION, release, PLURAL, body)
    done = helm("uninstall", "dpe", "-n", release, "--wait", "--timeout", "100s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not custom.list_namespaced_custom_object(GROUP, VERSION, release, PLURAL)["items"]
    everything = "deploy,job,svc,cm,secret,sa,role,rolebinding,networkpolicy,pdb"
    names = subprocess.run(
        ["kubectl", "-n", release, "get", everything, "-o", "name"], check=True, capture_output=True, text=True
    ).stdout
    assert [n for n in names.splitlines() if "dpe" in n] == []
