"""What the demo says about an iteration, on a real API server. The tests write the status, as an operator would."""

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev.cluster.config import Cluster
from examples.shapes import demo
from examples.shapes.target import Target, Unusable
from kubernetes import client
from rich.console import Console
from tests.patience import deadline

from dpe_api.names import GROUP, PLURAL, VERSION, round_name
from dpe_jobs.store import Store
from dpe_operator.platform import ObjectStore

pytestmark = pytest.mark.cluster

AGO = "2026-01-01T12:00:00Z"
CRD = Path(__file__).parents[2] / "charts" / "dpe" / "crds"


class Stage:
    """A demo in a namespace of its own, and the hand that writes the status."""

    def __init__(self, api: client.ApiClient, namespace: str, folder: Path) -> None:
        self.out = io.StringIO()
        self.target = Target(None, namespace)
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        console = Console(file=self.out, width=160)
        self.demo = demo.Demo(self.target, console, demo.Timings(folder / "timings.json"), deadline(60))

    def write(self, **status: Any) -> None:
        """Patch the status as the operator does."""
        self.custom.patch_namespaced_custom_object_status(
            GROUP, VERSION, self.target.namespace, PLURAL, "shapes-1", {"status": {"observedGeneration": 1, **status}}
        )

    def event(self, reason: str, message: str) -> None:
        """Post an Event about the iteration."""
        about = client.V1ObjectReference(kind="DPEIteration", name="shapes-1", namespace=self.target.namespace)
        self.core.create_namespaced_event(
            self.target.namespace,
            client.CoreV1Event(
                metadata=client.V1ObjectMeta(generate_name="shapes-1."),
                involved_object=about,
                reason=reason,
                message=message,
                type="Normal",
            ),
        )

    def meanwhile(self, *acts: tuple[str, Callable[[], None]]) -> threading.Thread:
        """Do each act once its words were printed."""

        def play() -> None:
            for words, act in acts:
                end = deadline(30)
                while words not in self.out.getvalue():
                    assert time.monotonic() < end, self.out.getvalue()
                    time.sleep(0.05)
                act()

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def stage(
    cluster: Cluster, api: client.ApiClient, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("DPE_NAMESPACE", namespace)
    monkeypatch.delenv("KUBE_CONTEXT", raising=False)
    monkeypatch.setattr(demo, "POLL_S", 0.1)
    monkeypatch.setattr(demo, "LOG_EVERY_S", 0.0)
    Target.from_env().kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    return Stage(api, namespace, tmp_path)


def running(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "diagnosis", "state": "Running", "attempt": 1, "startTime": AGO, **more}]


def test_an_iteration_is_applied_watched_and_reported(stage: Stage) -> None:
    progress = {"done": 50, "total": 238, "unit": "items", "rate": 10.0, "etaSeconds": 19.0}
    done = running(state="Done", completionTime="2026-01-01T12:00:30Z")
    stage.meanwhile(
        ("kubectl apply", lambda: None),
        ("Pending", lambda: stage.write(phase="Diagnosing", stages=running(progress=progress))),
        ("50/238 items", lambda: stage.event("StageDone", "diagnosis: accuracy 60%")),
        ("StageDone", lambda: stage.write(phase="Succeeded", stages=done)),
    )
    code = stage.demo.turn("shapes-1")
    said = stage.out.getvalue()
    assert code == 0, said
    assert "▶ kubectl apply -f examples/shapes/iteration-1.yaml (first time)" in said
    assert "10 items/s, 19 s left" in said
    assert "event StageDone: diagnosis: accuracy 60%" in said
    assert "shapes-1 succeeded" in said
    assert stage.demo.timings.seconds["diagnosis"] == 30.0


def test_started_again_it_says_that_it_is_done_and_changes_nothing(stage: Stage) -> None:
    stage.demo.apply("shapes-1")
    stage.write(phase="Rejected")
    before = stage.custom.get_namespaced_custom_object(GROUP, VERSION, stage.target.namespace, PLURAL, "shapes-1")
    assert stage.demo.turn("shapes-1") == 3
    assert "shapes-1 is done already; `make demo-clean` starts over." in stage.out.getvalue()
    after = stage.custom.get_namespaced_custom_object(GROUP, VERSION, stage.target.namespace, PLURAL, "shapes-1")
    assert after == before


def test_a_failure_tells_stage_and_the_pods_words_and_ends_with_1(stage: Stage) -> None:
    stage.demo.apply("shapes-1")
    stage.write(phase="Failed", stages=running(state="Failed", message="MissingColumns: pod p: no column answer"))
    assert stage.demo.turn("shapes-1") == 1
    said = stage.out.getvalue()
    assert "shapes-1 failed in stage diagnosis, attempt 1: MissingColumns: pod p: no column answer" in said
    assert "dpe.dev/iteration=shapes-1,dpe.dev/stage=diagnosis" in said
    assert "make demo-clean && make demo" in said


def test_an_iteration_that_is_deleted_while_watched_ends_the_demo(stage: Stage) -> None:
    stage.demo.apply("shapes-1")
    stage.meanwhile(("Pending", lambda: stage.target.kubectl("delete", "dpei", "shapes-1") and None))
    with pytest.raises(Unusable, match="shapes-1 was deleted"):
        stage.demo.turn("shapes-1")


def test_an_api_server_that_does_not_answer_is_said_and_given_up_after_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Target, name: str) -> None:
        raise ConnectionRefusedError("connection refused")

    watched = demo.Watched(stage.demo, "shapes-1")
    monkeypatch.setattr(Target, "status", away)
    watched.look()
    assert watched.trouble is not None
    assert "no answer from the API server" in watched.trouble
    monkeypatch.setattr(demo, "API_OUTAGE_S", 0.0)
    with pytest.raises(Unusable, match="no answer from the API server"):
        watched.look()


def test_cleaning_deletes_the_examples_artifacts_and_nothing_else(stage: Stage, store: Store, bucket: str) -> None:
    where = ObjectStore(endpoint="http://unused:1", bucket=bucket, prefix="team", credentials_secret="s")
    names = ("shapes-1", "shapes-2", "spiral-1", "spiral-12-1")  # two iterations, and rounds of the run
    ours = [f"s3://{bucket}/team/ns/{name}-0123abcd/diagnosis/manifest.json" for name in names]
    others = [
        f"s3://{bucket}/team/ns/shapes-3-0123abcd/manifest.json",
        f"s3://{bucket}/team/ns/shapes-1-notauid/manifest.json",
        f"s3://{bucket}/team/ns/spiral-0123abcd/manifest.json",
        f"s3://{bucket}/team/other/shapes-1-0123abcd/manifest.json",
        f"s3://{bucket}/data/shapes/probe/part-00000.parquet",
    ]
    for uri in [*ours, *others]:
        store.put(uri, b"x")
    assert demo.artifacts(store, where, "ns") == ours


def test_the_run_of_the_documents_does_not_meet_the_demos_iterations_and_is_cleaned_with_them(stage: Stage) -> None:
    run = yaml.safe_load((demo.CHECKOUT / demo.HERE / "run.yaml").read_text())
    assert run["metadata"]["name"] == demo.RUN
    assert round_name(demo.RUN, 1, 0) not in demo.NAMES
    stage.target.kubectl("apply", "-f", f"{demo.HERE}/run.yaml")
    stage.demo.clean()
    assert stage.target.kubectl("get", "dper", "-o", "name") == ""


def test_cleaning_where_nothing_was_installed_is_no_error(stage: Stage) -> None:
    assert stage.demo.clean() == 0
    assert "The chart is not installed" in stage.out.getvalue()
