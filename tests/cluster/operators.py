"""A namespace with an operator process that has exactly the rights it asks for, and stages that do as they are told."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from tests.cluster.pods import wait_for
from tests.patience import deadline
from tests.unit.operator import given

from dpe_api.names import BATCH_STAGES, GROUP, LABEL_STAGE, PLURAL, RUN_PLURAL, VERSION, Stage, artifact_root
from dpe_api.run_status import RunStatus
from dpe_api.status import Status
from dpe_jobs.store import Store

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SECRET = "store"
KEYS = "keys"
"""The Secret that iterations may take API keys from."""
SERVICE_ACCOUNT = "operator"
ON_CPU = {"nodes": 1, "gpusPerNode": 0, "rolloutEngine": "transformers"}
"""A training of one pod that asks for no GPU."""
MERGE = "application/merge-patch+json"

# the list at the top of gateway.py, as a Role
RIGHTS = [
    (GROUP, PLURAL, "get list watch create patch delete"),
    (GROUP, RUN_PLURAL, "get list watch patch delete"),
    (GROUP, f"{PLURAL}/status", "patch"),
    (GROUP, f"{RUN_PLURAL}/status", "patch"),
    ("batch", "jobs", "get list watch create delete"),
    ("", "configmaps", "get create delete"),
    ("", "services", "get create delete"),
    ("", "pods", "list watch"),
    ("", "events", "create"),
]


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as it:
        it.bind((host, 0))
        port: int = it.getsockname()[1]
        return port


@dataclass
class Lab:
    """One namespace under test."""

    api: client.ApiClient
    namespace: str
    store: Store
    bucket: str
    folder: Path
    platform: dict[str, Any]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    beside: tuple[str, ...] = ()
    """Further namespaces that the operator looks after."""
    health_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    @property
    def custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    @property
    def batch(self) -> client.BatchV1Api:
        return client.BatchV1Api(self.api)

    # the operator

    def start(self) -> None:
        """Start an operator process."""
        (self.folder / "platform.yaml").write_text(yaml.safe_dump(self.platform))
        command = [sys.executable, "-m", "dpe_operator"]
        command += [part for name in (*self.beside, self.namespace) for part in ("--namespace", name)]
        command += ["--platform", str(self.folder / "platform.yaml")]
        command += ["--health-port", str(self.health_port), "--metrics-port", str(self.metrics_port)]
        with (self.folder / "operator.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.environment})

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def restart(self) -> None:
        """Kill it and start another."""
        self.stop(signal.SIGKILL)
        self.start()

    def log(self) -> str:
        """What operators wrote."""
        return (self.folder / "operator.log").read_text()

    # the resource

    def create(self, name: str = "turn", *, labels: dict[str, str] | None = None, **changes: Any) -> None:
        """Create an iteration with the spec of the unit tests, on this lab's addresses."""
        spec = given.spec(
            model={"uri": f"s3://{self.bucket}/{self.namespace}/base"},
            probe={"uri": f"s3://{self.bucket}/{self.namespace}/probe"},
            evaluation={"benchmarks": [{"name": "test", "uri": f"s3://{self.bucket}/{self.namespace}/test"}]},
        )
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DPEIteration",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {k: v for k, v in {**spec.wire(), **changes}.items() if v is not None},
        }
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)

    def create_at(self, stage: Stage, name: str, **changes: Any) -> None:
        """Create an iteration that begins with a stage: what comes before lies in the store already."""
        self.create(name, suspend=True, **changes)
        before = list(Stage)[: list(Stage).index(stage)]
        for done in BATCH_STAGES:
            if done in before:
                self.store.publish(f"{self.root(name)}/{done}", given.manifest(done))
        if Stage.TRAINING in before:
            self.store.put(f"{self.root(name)}/{Stage.TRAINING}/model/config.json", b"{}")
        self.patch({"suspend": False}, name)

    def delete(self, name: str = "turn") -> None:
        """Delete it; it is gone when its operator has let go of it."""
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)

    def patch(self, spec: dict[str, Any], name: str = "turn") -> None:
        """Change its spec."""
        self.custom.patch_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURAL, name, {"spec": spec}, _content_type=MERGE
        )

    def body(self, name: str = "turn") -> dict[str, Any]:
        """The iteration as the API server has it."""
        found: dict[str, Any] = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)
        return found

    def status(self, name: str = "turn") -> Status:
        """Its status."""
        return Status.model_validate(self.body(name).get("status") or {})

    def condition(self, kind: str, name: str = "turn") -> tuple[str, str, str] | None:
        """Status, reason and message of a condition."""
        found = [c for c in self.status(name).conditions if c.type == kind]
        return (found[0].status, found[0].reason, found[0].message) if found else None

    def until(self, what: Callable[[], object], deadline_s: float = 60) -> None:
        """Wait, and show all there is when it takes too long."""
        try:
            wait_for(what, deadline_s, "")
        except AssertionError:
            pods = [(p.metadata.name, p.status.phase) for p in self.core.list_namespaced_pod(self.namespace).items]
            raise AssertionError(f"{pods}\n{self.log()[-6000:]}") from None

    def events(self, name: str = "turn", kind: str = "DPEIteration") -> list[tuple[str, str]]:
        """Reason and message of its Events."""
        chosen = f"involvedObject.kind={kind},involvedObject.name={name}"
        found = self.core.list_namespaced_event(self.namespace, field_selector=chosen).items
        return [(e.reason, e.message) for e in found]

    def jobs(self) -> list[str]:
        """Names of its Jobs."""
        return sorted(j.metadata.name for j in self.batch.list_namespaced_job(self.namespace).items)

    def pods(self, stage: Stage) -> list[Any]:
        """Pods of a stage that run."""
        found = self.core.list_namespaced_pod(self.namespace, label_selector=f"{LABEL_STAGE}={stage}").items
        return [p for p in found if p.status.phase == "Running" and p.metadata.deletion_timestamp is None]

    def serves(self, stage: Stage) -> bool:
        """A pod of a model server is ready. One that only starts has not learnt to stop when told: that takes 30 s."""
        return any(p.status.container_statuses[0].ready for p in self.pods(stage))

    # a run of several

    def create_run(self, name: str = "spiral", science: dict[str, Any] | None = None, **changes: Any) -> None:
        """Create a run whose rounds are as `create` makes them. `science`: sections of the template."""
        spec = given.spec(
            probe={"uri": f"s3://{self.bucket}/{self.namespace}/probe"},
            evaluation={"benchmarks": [{"name": "test", "uri": f"s3://{self.bucket}/{self.namespace}/test"}]},
        )
        template = {k: v for k, v in spec.wire().items() if k not in ("model", "suspend")} | (science or {})
        model = {"uri": f"s3://{self.bucket}/{self.namespace}/base"}
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DPERun",
            "metadata": {"name": name},
            "spec": {"model": model, "template": template, **changes},
        }
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, RUN_PLURAL, body)

    def run_body(self, name: str = "spiral") -> dict[str, Any]:
        """The run as the API server has it."""
        where = (GROUP, VERSION, self.namespace, RUN_PLURAL)
        found: dict[str, Any] = self.custom.get_namespaced_custom_object(*where, name)
        return found

    def run_status(self, name: str = "spiral") -> RunStatus:
        """Its status."""
        return RunStatus.model_validate(self.run_body(name).get("status") or {})

    def patch_run(self, patch: dict[str, Any], name: str = "spiral", *, status: bool = False) -> None:
        """Change it, or its status."""
        where = (GROUP, VERSION, self.namespace, RUN_PLURAL)
        change = (
            self.custom.patch_namespaced_custom_object_status if status else self.custom.patch_namespaced_custom_object
        )
        change(*where, name, patch, _content_type=MERGE)

    def table(self, plural: str) -> list[Any]:
        """What kubectl prints of the only resource of a kind."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{plural}"
        headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        request = self.api.param_serialize("GET", path, header_params=headers, auth_settings=["BearerToken"])
        (row,) = json.loads(self.api.call_api(*request).read())["rows"]
        return list(row["cells"])

    def delete_run(self, name: str = "spiral") -> None:
        """Delete it; its iterations go with it."""
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, RUN_PLURAL, name)

    # the stages

    def wish(self, stage: Stage, attempt: int, iteration: str | None = None, **wanted: Any) -> None:
        """What an attempt of a stage shall do, of every iteration or of one."""
        self.tell(stage, str(attempt), wanted, iteration)

    def tell(self, stage: Stage, name: str, document: dict[str, Any], iteration: str | None = None) -> None:
        """Leave something for the double of a stage."""
        where = f"{stage}/{iteration}/{name}" if iteration else f"{stage}/{name}"
        self.store.put(f"s3://{self.bucket}/tests/{self.namespace}/{where}.json", json.dumps(document).encode())

    def root(self, name: str = "turn") -> str:
        """Folder of the iteration's artifacts."""
        return artifact_root(self.bucket, "", self.namespace, name, self.body(name)["metadata"]["uid"])

    def upload_inputs(self) -> None:
        """A model, a probe and a benchmark as far as the operator looks at them."""
        for path in ("base/config.json", "probe/part.parquet", "test/part.parquet"):
            self.store.put(f"s3://{self.bucket}/{self.namespace}/{path}", b"{}")

    def metric(self, pattern: str) -> list[str]:
        """Lines of /metrics that match."""
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return [line for line in answer.read().decode().splitlines() if re.search(pattern, line)]


def rights(lab: Lab) -> str:
    """A service account with the operator's rights in this namespace; returns a token."""
    lab.core.create_namespaced_service_account(lab.namespace, {"metadata": {"name": SERVICE_ACCOUNT}})
    bind(lab, lab.namespace)
    request = {"spec": {"expirationSeconds": 3600, "audiences": []}}
    token = lab.core.create_namespaced_service_account_token(SERVICE_ACCOUNT, lab.namespace, request)
    return str(token.status.token)


def bind(lab: Lab, namespace: str) -> None:
    """Give that service account the operator's rights in a namespace."""
    rbac, meta = client.RbacAuthorizationV1Api(lab.api), {"name": SERVICE_ACCOUNT}
    rules = [{"apiGroups": [g], "resources": [r], "verbs": v.split()} for g, r, v in RIGHTS]
    rules.append({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET, KEYS], "verbs": ["get"]})
    rbac.create_namespaced_role(namespace, {"metadata": meta, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": lab.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SERVICE_ACCOUNT}
    rbac.create_namespaced_role_binding(namespace, {"metadata": meta, "roleRef": role, "subjects": [subject]})


def kubeconfig(path: Path, admin: Path, token: str) -> None:
    """A kubeconfig of the same cluster for a token."""
    known = yaml.safe_load(admin.read_text())
    known["users"] = [{"name": known["users"][0]["name"], "user": {"token": token}}]
    path.write_text(yaml.safe_dump(known))


def give_secret(lab: Lab) -> None:
    """The object store's credentials."""
    keys = {"accessKey": lab.environment["DPE_S3_ACCESS_KEY"], "secretKey": lab.environment["DPE_S3_SECRET_KEY"]}
    lab.core.create_namespaced_secret(lab.namespace, {"metadata": {"name": SECRET}, "stringData": keys})


def give_doubles(lab: Lab) -> None:
    """The stages' script, and the summaries that they publish."""
    script = (HERE / "stage_double.py").read_text()
    lab.core.create_namespaced_config_map(
        lab.namespace, {"metadata": {"name": "doubles"}, "data": {"stage_double.py": script}}
    )
    for stage in BATCH_STAGES:
        summary = given.summary(stage).wire()
        lab.store.put(f"s3://{lab.bucket}/tests/{lab.namespace}/{stage}/summary.json", json.dumps(summary).encode())


def platform(endpoint: str, bucket: str, image: str) -> dict[str, Any]:
    """Platform facts: short waits, and the double for every stage."""
    container = {
        "image": image,
        "pullPolicy": "Never",
        "command": ["/opt/venv/bin/python", "/doubles/stage_double.py"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
    }
    return {
        "objectStore": {"endpoint": endpoint, "bucket": bucket, "credentialsSecret": SECRET},
        "jobs": container,
        "serving": container,
        "training": container,
        "pods": {
            "runtimeClassName": "devhost",
            "extraVolumes": [{"name": "doubles", "configMap": {"name": "doubles"}}],
            "extraVolumeMounts": [{"name": "doubles", "mountPath": "/doubles", "readOnly": True}],
        },
        "pools": {
            "inference": {"nodeSelector": {"pool.dpe.dev/inference": "true"}, "sharedMemory": "64Mi"},
            "training": {"nodeSelector": {"pool.dpe.dev/training": "true"}, "sharedMemory": "64Mi"},
        },
        "backoff": {"base": 0.2, "cap": 1},
        "deadlines": {"scheduling": 240, "imagePull": 240, "startup": 240, "noProgress": 240},
        "resyncSeconds": 2,
        "pollSeconds": 1,
    }


def wait_until_healthy(lab: Lab) -> None:
    """The process serves /healthz."""
    import urllib.error
    import urllib.request

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{lab.health_port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    end = deadline(30)
    while not healthy():
        assert time.monotonic() < end, lab.log()[-4000:]
        time.sleep(0.1)
