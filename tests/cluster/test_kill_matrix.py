"""Whatever dies, in whatever stage: nothing is lost, nothing done twice, nothing charged. Prints the table.

Six iterations are held in one stage each, on an instance of the embedded cluster of their own; every fault hits all of
them. Stages are doubles: that real ones flush and resume is tested where they are (tests/e2e, tests/training and
tests/cluster/test_diagnosis_kills.py). What a lost node does to real trainings is seen here, where a node may be lost.
"""

import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from dev import image as local_image
from dev.cluster import lifecycle, object_store
from dev.cluster.config import GPUS_PER_NODE, Cluster
from kubernetes import client, config
from kubernetes.client import ApiException
from tests import sharing
from tests.cluster import gangs, operators
from tests.cluster.conftest import CRDS
from tests.cluster.operators import ON_CPU, Lab
from tests.cluster.pods import wait_for
from tests.conftest import RESTRICTED
from tests.patience import deadline
from urllib3.exceptions import HTTPError

from dpe_api.launch import StoreAddress
from dpe_api.names import BATCH_STAGES, LABEL_ATTEMPT, LABEL_ITERATION, LABEL_STAGE, MANIFEST, Stage
from dpe_api.status import Phase, StageState
from dpe_jobs.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

OWN = Cluster(instance=2)
DOWN_S = 5.0  # how long API server, etcd, MinIO and DNS are away
LIMIT_S = 180.0
ATTEMPTS = 9  # more than any stage begins here
Sizes = tuple[int, int]


@dataclass(frozen=True)
class Cell:
    """What one fault did to the iteration that was in one stage."""

    seconds: float
    attempts: int
    """New attempts of all its stages."""
    charged: int


@dataclass
class Matrix:
    """The iterations, and what has happened to them."""

    lab: Lab
    cells: dict[tuple[str, Stage], Cell] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)
    looks: Counter[str] = field(default_factory=Counter)
    """Fault -> how often it was seen meanwhile whether a stage runs twice."""
    fault: str = ""
    """The one that is struck now."""
    lost: list[str] = field(default_factory=list)
    phases: dict[Stage, Phase] = field(default_factory=dict)

    def name(self, stage: Stage) -> str:
        return f"at-{stage}"

    def hold(self, stage: Stage, *, hold: bool) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            self.lab.wish(stage, attempt, self.name(stage), hold=hold)

    def pods(self, stage: Stage) -> list[client.V1Pod]:
        """Pods of the stage in which an iteration is held, those that run and are not told to stop."""
        chosen = f"{LABEL_ITERATION}={self.name(stage)},{LABEL_STAGE}={stage}"
        found = self.lab.core.list_namespaced_pod(self.lab.namespace, label_selector=chosen).items
        return [p for p in found if p.status.phase == "Running" and p.metadata.deletion_timestamp is None]

    def works(self, stage: Stage) -> bool:
        """It runs, and has learnt to stop when told (a held model server says nothing)."""
        entry = self.lab.status(self.name(stage)).stage_status(stage)
        return (
            entry.state is StageState.RUNNING and bool(self.pods(stage)) and (stage.is_serving or bool(entry.progress))
        )

    def counts(self, stage: Stage) -> Sizes:
        """Attempts and charged failures of all stages."""
        stages = self.lab.status(self.name(stage)).stages
        return sum(s.attempt for s in stages), sum(s.failures for s in stages)

    def manifests(self) -> dict[str, str]:
        """Digests of what is published."""
        found = {}
        for held in Stage:
            for stage in BATCH_STAGES:
                uri = f"{self.lab.root(self.name(held))}/{stage}/{MANIFEST}"
                data = self.lab.store.find(uri)
                if data is not None:
                    found[uri] = hashlib.sha256(data).hexdigest()
        return found

    def ask(self, stage: Stage, number: int) -> None:
        """Give the operator something to answer: that it looks at this iteration shows in observedGeneration."""
        self.lab.patch({"ttlSecondsAfterFinished": 100_000 + number}, self.name(stage))

    def is_looked_at(self, stage: Stage) -> bool:
        body = self.lab.body(self.name(stage))
        return bool(body["status"]["observedGeneration"] == body["metadata"]["generation"])


def quiet(what: Callable[[], bool]) -> bool:
    """Whether it holds; an API server or a store that is away says no."""
    try:
        return what()
    except (ApiException, HTTPError, OSError):
        return False


@dataclass(frozen=True)
class Instance:
    """The cluster that is broken here."""

    api: client.ApiClient
    store: Store
    bucket: str
    image: str
    user: object_store.Credentials

    @contextmanager
    def operated(self, namespace: str, folder: Path, *, real: bool = False) -> Iterator[Lab]:
        """A namespace with an operator. `real`: trainings are no doubles."""
        meta = client.V1ObjectMeta(name=namespace, labels=RESTRICTED)
        client.CoreV1Api(self.api).create_namespace(client.V1Namespace(metadata=meta))
        facts = operators.platform(OWN.s3_endpoint, self.bucket, self.image)
        for pool in facts["pools"].values():
            pool["nodeSelector"] = {"pool.dpe.dev/training": "true"}  # both nodes
        facts["jobsPool"] = "training"
        facts["deadlines"] = dict.fromkeys(("scheduling", "imagePull", "startup", "noProgress"), 1800)
        environment = {
            "DPE_S3_ACCESS_KEY": self.user.access_key,
            "DPE_S3_SECRET_KEY": self.user.secret_key,
            "KUBECONFIG": str(folder / "kubeconfig"),
            "PYTHONPATH": ":".join(str(operators.CHECKOUT / part) for part in ("crds", "operator", "jobs")),
        }
        lab = Lab(self.api, namespace, self.store, self.bucket, folder, facts, environment)
        operators.kubeconfig(folder / "kubeconfig", Path(OWN.kubeconfig), operators.rights(lab))
        operators.give_secret(lab)
        operators.give_doubles(lab)
        lab.upload_inputs()
        if real:
            gangs.make_real(facts)
            gangs.give_model(lab)
        lab.start()
        operators.wait_until_healthy(lab)
        try:
            yield lab
        finally:
            lab.stop()


@pytest.fixture(scope="module")
def reserved() -> Iterator[None]:
    with sharing.own(OWN):
        yield


@pytest.fixture(scope="module")
def instance(reserved: None) -> Iterator[Instance]:
    lifecycle.down(OWN)
    try:
        lifecycle.up(OWN)
        image = local_image.build(OWN)
        user, bucket = object_store.credentials(OWN), f"t-{secrets.token_hex(4)}"
        object_store.client(OWN).make_bucket(bucket)
        store = Store(StoreAddress(endpoint=OWN.s3_endpoint), user.access_key, user.secret_key)
        with config.new_client_from_config(str(OWN.kubeconfig)) as api:
            for file in CRDS.glob("*.yaml"):
                client.ApiextensionsV1Api(api).create_custom_resource_definition(yaml.safe_load(file.read_text()))
            yield Instance(api, store, bucket, image, user)
    finally:
        lifecycle.down(OWN)


@pytest.fixture(scope="module")
def lab(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with instance.operated("matrix", tmp_path_factory.mktemp("matrix")) as it:
        yield it


def cordon(lab: Lab, node: str, *, yes: bool) -> None:
    lab.core.patch_node(node, {"spec": {"unschedulable": yes}})


def control_plane(name: str) -> Callable[[Matrix], None]:
    def away(matrix: Matrix) -> None:
        lifecycle.stop_control_plane(OWN, name, hard=True)
        end = time.monotonic() + DOWN_S
        wait_for(lambda: time.monotonic() >= end, 2 * DOWN_S, "time passes")
        lifecycle.start_control_plane(OWN, name)

    return away


def dns(matrix: Matrix) -> None:
    apps = client.AppsV1Api(matrix.lab.api)
    (found,) = [d for d in apps.list_namespaced_deployment("kube-system").items if "dns" in d.metadata.name]
    for replicas in (0, found.spec.replicas):
        apps.patch_namespaced_deployment_scale(found.metadata.name, "kube-system", {"spec": {"replicas": replicas}})
        end = time.monotonic() + (DOWN_S if replicas == 0 else 0)
        wait_for(lambda end=end: time.monotonic() >= end, 2 * DOWN_S, "time passes")


def stage_pods(matrix: Matrix) -> None:
    for stage in Stage:
        matrix.lab.core.delete_namespaced_pod(
            matrix.pods(stage)[0].metadata.name, matrix.lab.namespace, grace_period_seconds=0
        )


def node(matrix: Matrix) -> None:
    """Everything is on n2 by now, but for those that were there already; then its power is cut."""
    cordon(matrix.lab, "n2", yes=False)
    lifecycle.kill_node(OWN, "n1")


FAULTS: dict[str, Callable[[Matrix], None]] = {
    "operator": lambda matrix: matrix.lab.restart(),
    "API server": control_plane("apiserver"),
    "etcd": control_plane("etcd"),
    "MinIO": control_plane("minio"),
    "DNS": dns,
    "stage pod": stage_pods,
    "node": node,
}
TAKES_PODS = ("stage pod", "node")


def strike(matrix: Matrix, fault: str, number: int) -> None:
    """One fault, and how long each iteration took to be as before."""
    before = {stage: matrix.counts(stage) for stage in Stage}
    old = {stage: {p.metadata.uid for p in matrix.pods(stage)} for stage in Stage}
    began, end, open_ = time.monotonic(), deadline(LIMIT_S), set(Stage)
    FAULTS[fault](matrix)
    for stage in Stage:
        wait_for(lambda stage=stage: quiet(lambda: matrix.ask(stage, number) is None), LIMIT_S, f"{fault}: no answer")

    def well(stage: Stage) -> bool:
        now = {p.metadata.uid for p in matrix.pods(stage)}
        same = bool(now) and (now.isdisjoint(old[stage]) if fault in TAKES_PODS else now == old[stage])
        return same and matrix.works(stage) and matrix.is_looked_at(stage)

    while open_:
        assert time.monotonic() < end, f"{fault}: {open_} not recovered\n{matrix.lab.log()[-4000:]}"
        for stage in sorted(open_):
            if quiet(lambda stage=stage: well(stage)):
                after = matrix.counts(stage)
                seconds = time.monotonic() - began
                gained = (after[0] - before[stage][0], after[1] - before[stage][1])
                matrix.cells[fault, stage] = Cell(seconds, *gained)
                open_.discard(stage)
        time.sleep(0.25)


@pytest.fixture(scope="module")
def matrix(lab: Lab) -> Matrix:
    """All faults, one after the other, and then the end of all iterations."""
    it = Matrix(lab)
    over = threading.Event()

    def look(core: client.CoreV1Api) -> bool:
        it.twice |= twins(core, lab.namespace)
        it.looks[it.fault] += 1
        return True

    def look_for_twins() -> None:
        with config.new_client_from_config(str(OWN.kubeconfig)) as api:
            while not over.wait(0.5):
                quiet(lambda: look(client.CoreV1Api(api)))

    cordon(lab, "n2", yes=True)  # what a lost node takes must be on it
    for stage in Stage:
        it.hold(stage, hold=True)
        lab.create_at(stage, it.name(stage), training=ON_CPU, serving={"gpusPerReplica": 0})
    for stage in Stage:
        lab.until(lambda stage=stage: it.works(stage), LIMIT_S)
    watcher = threading.Thread(target=look_for_twins, daemon=True)
    watcher.start()
    published = it.manifests()
    for number, it.fault in enumerate(FAULTS):
        strike(it, it.fault, number)
    lifecycle.start_node(OWN, "n1")
    for stage in Stage:
        it.hold(stage, hold=False)
    for stage in Stage:
        lab.until(lambda stage=stage: lab.status(it.name(stage)).phase.is_final, LIMIT_S)
        it.phases[stage] = lab.status(it.name(stage)).phase
    after = it.manifests()
    it.lost = [uri for uri, digest in published.items() if after.get(uri) != digest]
    over.set()
    watcher.join(10)
    return it


def twins(core: client.CoreV1Api, namespace: str) -> set[str]:
    """Stages of which two attempts run at the same time."""
    running: dict[str, set[str]] = {}
    for pod in core.list_namespaced_pod(namespace, label_selector=LABEL_ITERATION).items:
        if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
            labels = pod.metadata.labels
            running.setdefault(f"{labels[LABEL_ITERATION]}/{labels[LABEL_STAGE]}", set()).add(labels[LABEL_ATTEMPT])
    return {stage for stage, attempts in running.items() if len(attempts) > 1}


def table(matrix: Matrix) -> str:
    """Seconds to recover, and new attempts where there are any."""
    lines = [f"{'':12}" + "".join(f"{stage:>19}" for stage in Stage)]
    for fault in FAULTS:
        cells = [matrix.cells[fault, stage] for stage in Stage]
        shown = [f"{c.seconds:.0f} s" + (f", {c.attempts} anew" if c.attempts else "") for c in cells]
        lines.append(f"{fault:12}" + "".join(f"{text:>19}" for text in shown))
    charged = sum(c.charged for c in matrix.cells.values())
    return "\n".join([*lines, f"charged {charged}, artifacts lost {len(matrix.lost)}, run twice {len(matrix.twice)}"])


def test_every_iteration_survives_every_fault(matrix: Matrix, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{table(matrix)}")
    assert matrix.phases == dict.fromkeys(Stage, Phase.SUCCEEDED)
    assert len(matrix.cells) == len(FAULTS) * len(Stage)


def test_no_fault_is_charged(matrix: Matrix) -> None:
    assert {key: cell.charged for key, cell in matrix.cells.items() if cell.charged} == {}


def test_only_faults_that_take_pods_cost_attempts(matrix: Matrix) -> None:
    costly = {fault for (fault, _), cell in matrix.cells.items() if cell.attempts}
    assert costly == set(TAKES_PODS)


def test_nothing_is_lost_and_nothing_runs_twice(matrix: Matrix) -> None:
    assert (matrix.lost, matrix.twice) == ([], set())
    assert [fault for fault in FAULTS if not matrix.looks[fault]] == [], "nobody saw whether a stage ran twice"


def ready(core: client.CoreV1Api, node: str) -> bool:
    """Whether the API server calls the node Ready."""
    return any(c.type == "Ready" and c.status == "True" for c in core.read_node(node).status.conditions)


def test_trainings_whose_node_is_lost_go_on_where_there_is_room_and_else_wait_for_it_and_equal_an_undisturbed_one(
    instance: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with instance.operated("gangs", tmp_path, real=True) as lab:
        gangs.train(lab, "roomy", gpus=0)
        gangs.train(lab, "tight", gpus=GPUS_PER_NODE)  # a whole node for each of its two pods
        for name in ("roomy", "tight"):
            lab.until(lambda name=name: gangs.saved(lab, name) >= 2, LIMIT_S)
        for name in ("roomy", "tight"):
            assert gangs.nodes(lab, name) == ["n1", "n2"], "pods spread where there is room"
        lifecycle.kill_node(OWN, "n2")
        cut, seen = time.monotonic(), {}

        def note(what: str) -> None:
            seen[what] = round(time.monotonic() - cut)

        lab.until(lambda: not ready(lab.core, "n2"), LIMIT_S)
        note("the node is not Ready")
        gangs.train(lab, "calm", gpus=0)
        lab.until(lambda: "Insufficient nvidia.com/gpu" in (gangs.stage(lab, "tight").message or ""), LIMIT_S)
        note("tight says what it waits for")
        assert (gangs.stage(lab, "tight").message or "").startswith("Unschedulable: ")
        lab.until(lambda: gangs.nodes(lab, "roomy") == ["n1", "n1"], LIMIT_S)
        note("roomy runs on the other node")
        assert gangs.summary(lab, "tight") is None
        lifecycle.start_node(OWN, "n2")
        note("the node is back")
        lab.until(lambda: gangs.nodes(lab, "tight") == ["n1", "n2"], LIMIT_S)
        note("tight runs on both nodes")
        lab.until(lambda: all(gangs.summary(lab, name) for name in ("roomy", "tight", "calm")), LIMIT_S)
        note("all are trained")
        with capsys.disabled():
            print("\nseconds after the power cut:", seen)
        calm = gangs.metrics(lab, "calm")
        assert [row["step"] for row in calm] == list(range(1, gangs.STEPS + 1))
        for name in ("roomy", "tight"):
            entry, summary = gangs.stage(lab, name), gangs.summary(lab, name)
            assert (entry.failures, summary.resumed_from_step >= 2, summary.world_size) == (0, True, 2), name
            for ours, other in zip(gangs.metrics(lab, name), calm, strict=True):
                same = {key: pytest.approx(other[key], abs=1e-4) for key in gangs.DECISIVE}
                assert {key: ours[key] for key in gangs.DECISIVE} == same, f"{name}, step {other['step']}"
        for name in ("roomy", "tight", "calm"):
            lab.delete(name)
