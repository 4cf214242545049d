"""The operator's own queue, and Kueue's part played against a real API server and Job controller."""

import pytest
from tests.cluster.operators import MERGE, Lab, wait_until_healthy

from dpe_api.names import Stage
from dpe_api.status import Phase, StageState

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

QUEUE = {"kueue.x-k8s.io/queue-name": "gpus"}


def position(lab: Lab, name: str) -> int | None:
    queue = lab.status(name).queue
    return None if queue is None else queue.position


def test_iterations_beyond_the_limit_wait_by_priority_and_age_also_over_a_restart(idle: Lab) -> None:
    idle.platform["limits"] = {"iterationsPerNamespace": 1}
    idle.start()
    wait_until_healthy(idle)
    idle.wish(Stage.DIAGNOSIS, 1, hold=True)
    idle.create("first")
    idle.until(lambda: idle.status("first").resolved is not None)
    idle.create("low")
    idle.create("high", priority=5)
    idle.until(lambda: (position(idle, "high"), position(idle, "low")) == (1, 2))
    status, reason, message = idle.condition("Accepted", "low") or ("", "", "")
    assert (status, reason) == ("False", "Queued")
    assert message == f"position 2: namespace {idle.namespace} runs 1 of at most 1 iterations"
    assert [said for said, _ in idle.events("low")] == ["Queued"]
    idle.restart()
    idle.patch({"priority": 9}, "low")
    idle.until(lambda: (position(idle, "low"), position(idle, "high")) == (1, 2))
    assert idle.status("first").phase is Phase.DIAGNOSING
    idle.delete("first")
    idle.until(lambda: idle.status("low").resolved is not None)
    assert idle.status("low").queue is None
    assert idle.status("high").resolved is None
    idle.until(lambda: position(idle, "high") == 1)
    idle.patch({"suspend": True}, "low")
    idle.until(lambda: idle.status("high").resolved is not None)
    idle.patch({"suspend": False}, "low")
    idle.until(lambda: position(idle, "low") == 1)
    assert idle.condition("Suspended", "low")[:2] == ("True", "Queued")
    names = {name.rsplit("-", 3)[0] for name in idle.jobs()}
    assert names <= {"low", "high"}
    assert idle.metric(r"^dpe_iterations_queued 1.0")


class Kueue:
    """What Kueue does to Jobs, by hand."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def suspended(self) -> list[str]:
        found = self._lab.batch.list_namespaced_job(self._lab.namespace).items
        return sorted(j.metadata.name for j in found if j.spec.suspend)

    def admit(self, name: str) -> None:
        """Let it in, onto nodes of its choice."""
        placed = {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}}
        self._patch(name, {"suspend": False, **placed})

    def evict(self, name: str) -> None:
        """Take its place back."""
        self._patch(name, {"suspend": True})

    def _patch(self, name: str, spec: dict[str, object]) -> None:
        self._lab.batch.patch_namespaced_job(name, self._lab.namespace, {"spec": spec}, _content_type=MERGE)


def test_kueue_lets_jobs_in_and_takes_one_back_without_a_charge(lab: Lab) -> None:
    kueue = Kueue(lab)
    lab.wish(Stage.DIAGNOSIS, 1, hold=True)
    lab.create(labels=QUEUE, retry={"maxAttempts": 1})
    lab.until(lambda: kueue.suspended() == ["turn-serve-base-1"])
    lab.until(lambda: "suspended until its queue" in (lab.status().stage_status(Stage.SERVE_BASE).message or ""))
    assert not lab.core.list_namespaced_pod(lab.namespace).items
    kueue.admit("turn-serve-base-1")
    lab.until(lambda: kueue.suspended() == ["turn-diagnosis-1"])
    kueue.admit("turn-diagnosis-1")
    lab.until(lambda: lab.status().stage_status(Stage.DIAGNOSIS).progress is not None)
    kueue.evict("turn-diagnosis-1")
    lab.until(lambda: kueue.suspended() == ["turn-diagnosis-2"])
    lab.until(lambda: lab.status().stage_status(Stage.DIAGNOSIS).attempt == 2)  # written after the Job is there
    entry = lab.status().stage_status(Stage.DIAGNOSIS)
    assert (entry.failures, entry.disruptions) == (0, 1)
    lab.until(lambda: "Disrupted" in [reason for reason, _ in lab.events()])
    assert any("its queue has suspended the Job" in message for _, message in lab.events())

    def ends() -> bool:
        for name in kueue.suspended():
            kueue.admit(name)
        return lab.status().phase.is_final

    lab.until(ends, 150)
    assert lab.status().phase is Phase.SUCCEEDED
    assert all((s.state, s.failures) == (StageState.DONE, 0) for s in lab.status().stages)
