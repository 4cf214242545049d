"""What people, other controllers and a second operator may do to an iteration: it converges, or says why not."""

from dataclasses import replace

import pytest
from tests.cluster.operators import MERGE, ON_CPU, Lab, free_port, wait_until_healthy

from dpe_api.names import GROUP, LABEL_ITERATION, PLURAL, VERSION, Stage
from dpe_api.status import Phase, StageState, StageStatus

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def works(lab: Lab, stage: Stage, attempt: int = 1) -> bool:
    entry = lab.status().stage_status(stage)
    return (entry.state, entry.attempt) == (StageState.RUNNING, attempt) and entry.progress is not None


def attempts(lab: Lab, name: str = "turn") -> dict[Stage, tuple[int, int, int]]:
    return {s.name: (s.attempt, s.failures, s.disruptions) for s in lab.status(name).stages}


def patch_job(lab: Lab, name: str, body: dict[str, object]) -> None:
    lab.batch.patch_namespaced_job(name, lab.namespace, body, _content_type=MERGE)


def set_status(lab: Lab, status: object, name: str = "turn") -> None:
    lab.custom.patch_namespaced_custom_object_status(
        GROUP, VERSION, lab.namespace, PLURAL, name, {"status": status}, _content_type=MERGE
    )


def test_children_deleted_and_edited_by_hand_cost_attempts_and_no_charge(lab: Lab) -> None:
    for attempt in (1, 2, 3):
        lab.wish(Stage.DIAGNOSIS, attempt, hold=True)
    lab.create(retry={"maxAttempts": 1})
    lab.until(lambda: works(lab, Stage.DIAGNOSIS))
    # the pod has its launch already
    lab.core.delete_namespaced_config_map("turn-diagnosis-1", lab.namespace)
    lab.batch.delete_namespaced_job("turn-diagnosis-1", lab.namespace, propagation_policy="Background")
    lab.until(lambda: works(lab, Stage.DIAGNOSIS, 2))
    patch_job(lab, "turn-diagnosis-2", {"spec": {"suspend": True}})
    lab.until(lambda: works(lab, Stage.DIAGNOSIS, 3))
    # a Job that the operator knows no more: its pod is still known, goes on, and nothing runs beside it
    patch_job(lab, "turn-diagnosis-3", {"metadata": {"labels": {"dpe.dev/stage": None}}})
    lab.patch({"retry": {"maxAttempts": 2}})  # something to look at
    lab.until(lambda: lab.status().observed_generation == lab.body()["metadata"]["generation"])
    lab.wish(Stage.DIAGNOSIS, 3)
    lab.until(lambda: lab.status().stage_status(Stage.GENERATION).attempt == 1, 90)
    assert all(failures == 0 for _, failures, _ in attempts(lab).values())
    assert attempts(lab)[Stage.DIAGNOSIS] == (3, 0, 2)
    told = [message for reason, message in lab.events() if reason == "Disrupted"]
    assert len(told) == 2


def test_a_status_that_is_wiped_comes_back_and_nothing_is_repeated(lab: Lab) -> None:
    lab.wish(Stage.GENERATION, 1, hold=True)
    lab.create()
    lab.until(lambda: works(lab, Stage.GENERATION), 90)
    before, root = lab.jobs(), lab.root()
    set_status(lab, None)
    lab.until(lambda: lab.status().stage_status(Stage.DIAGNOSIS).state is StageState.DONE)
    lab.until(lambda: works(lab, Stage.GENERATION))
    assert lab.jobs() == before
    assert (lab.status().artifacts, lab.status().accuracy_before) == (root, "62.2%")
    lab.wish(Stage.GENERATION, 1)
    lab.until(lambda: lab.status().stage_status(Stage.TRAINING).attempt == 1, 90)
    begun = list(Stage)[: list(Stage).index(Stage.TRAINING) + 1]
    assert {stage: attempts(lab)[stage] for stage in begun} == dict.fromkeys(begun, (1, 0, 0))


def test_a_status_of_another_version_is_left_alone_and_told(lab: Lab) -> None:
    lab.wish(Stage.DIAGNOSIS, 1, hold=True)
    lab.create()
    lab.until(lambda: works(lab, Stage.DIAGNOSIS))
    set_status(lab, {"resolved": {"spec": {"training": {"newerThanThis": 1}}}})
    lab.until(lambda: "UnreadableStatus" in [reason for reason, _ in lab.events()])
    (message,) = (text for reason, text in lab.events() if reason == "UnreadableStatus")
    assert "status.resolved.spec.training.newerThanThis is 1" in message
    assert lab.pods(Stage.DIAGNOSIS), "what runs goes on"
    set_status(lab, {"resolved": {"spec": {"training": {"newerThanThis": None}}}})
    lab.wish(Stage.DIAGNOSIS, 1)
    lab.until(lambda: lab.status().stage_status(Stage.DIAGNOSIS).state is StageState.DONE)


def test_names_that_somebody_else_has_are_reported_and_theirs_are_left_alone(lab: Lab) -> None:
    taken = {"config_map": {"data": {"launch.json": "{}"}}, "service": {"spec": {"ports": [{"port": 1}]}}}
    for kind, body in taken.items():
        name = f"{kind.replace('_', '-')}-serve-base-1"
        getattr(lab.core, f"create_namespaced_{kind}")(lab.namespace, {"metadata": {"name": name}} | body)
    for kind in taken:
        name = kind.replace("_", "-")
        lab.create(name)

        def entry(name: str = name) -> StageStatus:
            return lab.status(name).stage_status(Stage.SERVE_BASE)

        lab.until(lambda entry=entry: "NameTaken" in (entry().message or ""))
        assert lab.jobs() == []
        found = getattr(lab.core, f"read_namespaced_{kind}")(f"{name}-serve-base-1", lab.namespace)
        assert not found.metadata.owner_references
        getattr(lab.core, f"delete_namespaced_{kind}")(f"{name}-serve-base-1", lab.namespace)
        lab.until(lambda entry=entry: entry().state is StageState.RUNNING)
        lab.delete(name)
        lab.until(lambda: not lab.jobs())


def test_two_operators_by_mistake_do_nothing_twice(lab: Lab) -> None:
    other = replace(lab, process=None, health_port=free_port(), metrics_port=free_port())
    other.start()
    wait_until_healthy(other)
    try:
        lab.wish(Stage.DIAGNOSIS, 1, exit=75, reason="Told", message="as told")
        lab.create()
        lab.until(lambda: lab.status().phase.is_final, 180)
        assert lab.status().phase is Phase.SUCCEEDED
        wanted = {stage: (2, 1, 0) if stage is Stage.DIAGNOSIS else (1, 0, 0) for stage in Stage}
        assert attempts(lab) == wanted
        said = [reason for reason, _ in lab.events()]
        assert {r: said.count(r) for r in said} == {
            "Accepted": 1,
            "StageStarted": 6,
            "AttemptFailed": 1,
            "Retrying": 1,
            "StageDone": 4,
            "GateAccepted": 1,
        }
        lab.delete()
        lab.until(lambda: not remains(lab, "turn"))
    finally:
        other.stop()


def remains(lab: Lab, name: str) -> list[str]:
    """What there still is of an iteration."""
    chosen = {"label_selector": f"{LABEL_ITERATION}={name}"}
    lists = (
        lab.batch.list_namespaced_job,
        lab.core.list_namespaced_pod,
        lab.core.list_namespaced_config_map,
        lab.core.list_namespaced_service,
    )
    found = [thing.metadata.name for listed in lists for thing in listed(lab.namespace, **chosen).items]
    there = lab.custom.list_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL)["items"]
    return [*found, *(body["metadata"]["name"] for body in there if body["metadata"]["name"] == name)]


def begin(lab: Lab, name: str, when: Stage | str) -> None:
    """Create an iteration that comes to a stage and stays there, or runs to its end."""
    stage = Stage.EVALUATION if when == "end" else Stage(when)
    if when != "end":
        lab.wish(stage, 1, name, hold=True)
    lab.create_at(stage, name, training=ON_CPU, serving={"gpusPerReplica": 0})


def has_come(lab: Lab, name: str, when: Stage | str) -> bool:
    status = lab.status(name)
    return status.phase.is_final if when == "end" else status.stage_status(Stage(when)).attempt > 0


def test_deletion_at_any_stage_leaves_no_orphan(lab: Lab) -> None:
    """Side by side, each deleted when it has come to its stage: one before anything was started, one at its end."""
    whens = [*Stage, "end"]
    lab.create("gone-at-once")
    lab.delete("gone-at-once")
    for when in whens:
        begin(lab, f"gone-at-{when}", when)
    for when in whens:
        lab.until(lambda when=when: has_come(lab, f"gone-at-{when}", when), 120)
        lab.delete(f"gone-at-{when}")
    for when in ("once", *whens):
        lab.until(lambda when=when: not remains(lab, f"gone-at-{when}"))
