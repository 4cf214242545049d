"""Several rounds, with a real API server, real pods and a real MinIO; the stages are played."""

import pytest
from kubernetes.client import ApiException
from tests.cluster.operators import Lab
from tests.unit.operator import given

from dpe_api.names import BATCH_STAGES, GROUP, PLURAL, RUN_PLURAL, VERSION, Stage
from dpe_api.run_status import RunPhase
from dpe_api.status import Phase

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def phases(lab: Lab) -> list[tuple[str, Phase]]:
    return [(r.iteration, r.phase) for r in lab.run_status().rounds]


def ended(lab: Lab) -> bool:
    return lab.run_status().phase.is_complete


def condition(lab: Lab, kind: str) -> tuple[str, str] | None:
    found = [c for c in lab.run_status().conditions if c.type == kind]
    return (found[0].status, found[0].reason) if found else None


def uids(lab: Lab) -> dict[str, str]:
    items = lab.custom.list_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL)["items"]
    return {i["metadata"]["name"]: i["metadata"]["uid"] for i in items}


def reject(lab: Lab, iteration: str) -> None:
    """The gate will say no to this iteration's candidate."""
    lab.tell(Stage.EVALUATION, "summary", given.summary(Stage.EVALUATION, accepted=False).wire(), iteration)


def test_a_rejected_round_is_followed_by_one_that_starts_from_the_accepted_model(lab):
    reject(lab, "spiral-2")
    lab.create_run(maxIterations=3)
    lab.until(lambda: ended(lab), 400)
    status = lab.run_status()
    assert phases(lab) == [
        ("spiral-1", Phase.SUCCEEDED),
        ("spiral-2", Phase.REJECTED),
        ("spiral-3", Phase.SUCCEEDED),
    ]
    first, second, third = (lab.status(f"spiral-{n}").resolved for n in (1, 2, 3))
    accepted = f"{lab.root('spiral-1')}/training/model"
    assert (first.model_uri, second.model_uri) == (f"s3://{lab.bucket}/{lab.namespace}/base", accepted)
    assert third.model_uri == accepted
    assert (first.round, second.round, third.round) == (0, 1, 2)  # each draws other probe rows
    assert status.phase is RunPhase.SUCCEEDED
    assert condition(lab, "Complete") == ("True", "MaxIterations")
    assert (status.progress, status.accuracy_first, status.accuracy_latest) == ("3/3", "62.2%", "80.0%")
    assert (status.model.uri, status.model.round) == (f"{lab.root('spiral-3')}/training/model", 3)
    said = [reason for reason, _ in lab.events("spiral", "DPERun")]
    assert sorted(said) == sorted(
        [*["RoundStarted"] * 3, "RoundAccepted", "RoundRejected", "RoundAccepted", "Complete"]
    )
    assert lab.table(RUN_PLURAL)[:6] == ["spiral", "3/3", "Succeeded", "62.2%", "80.0%", "MaxIterations"]
    lab.delete_run()
    lab.until(lambda: not uids(lab))  # its iterations go with it


def test_a_run_survives_what_happens_to_operator_status_and_iterations(lab):
    for stage in BATCH_STAGES:
        lab.wish(stage, 1, "spiral-2", hold=True)
    lab.create_run(maxIterations=2)
    lab.until(lambda: phases(lab)[-1:] == [("spiral-2", Phase.DIAGNOSING)], 200)
    before = uids(lab)
    lab.restart()
    lab.patch_run({"status": None}, status=True)
    lab.until(lambda: phases(lab) == [("spiral-1", Phase.SUCCEEDED), ("spiral-2", Phase.DIAGNOSING)])
    assert uids(lab) == before  # nothing was begun again
    lab.patch_run({"spec": {"suspend": True}})
    lab.until(lambda: lab.status("spiral-2").phase is Phase.SUSPENDED)
    lab.until(lambda: condition(lab, "Suspended") == ("True", "SuspendRequested"))
    lab.until(lambda: not lab.pods(Stage.SERVE_BASE))
    lab.patch_run({"spec": {"suspend": False}})
    lab.until(lambda: lab.status("spiral-2").phase is Phase.DIAGNOSING)
    lab.delete("spiral-2")
    lab.until(lambda: uids(lab).get("spiral-2") not in (None, before["spiral-2"]))
    lab.until(lambda: "IterationDeleted" in [reason for reason, _ in lab.events("spiral", "DPERun")])
    for stage in BATCH_STAGES:
        lab.wish(stage, 1, "spiral-2")
    lab.until(lambda: ended(lab), 200)
    assert phases(lab) == [("spiral-1", Phase.SUCCEEDED), ("spiral-2", Phase.SUCCEEDED)]


def test_an_iteration_of_somebody_else_is_reported_and_not_touched(lab):
    lab.create("spiral-1", suspend=True)
    uid = lab.body("spiral-1")["metadata"]["uid"]
    lab.create_run(maxIterations=1)
    lab.until(lambda: "is not this run's" in (lab.run_status().message or ""))
    assert lab.run_status().rounds == []
    assert "NameTaken" in [reason for reason, _ in lab.events("spiral", "DPERun")]
    assert lab.body("spiral-1")["metadata"]["uid"] == uid
    lab.delete("spiral-1")
    lab.until(lambda: uids(lab).get("spiral-1") not in (None, uid))  # mended, it begins by itself


def test_a_failed_round_fails_the_run_with_its_reason(lab):
    lab.wish(Stage.GENERATION, 1, exit=65, reason="NoSamples", message="none of 9 candidates was kept")
    lab.create_run()
    lab.until(lambda: condition(lab, "Failed") == ("True", "NoSamples"), 120)
    assert lab.run_status().phase is RunPhase.FAILED
    assert len(uids(lab)) == 1
    with pytest.raises(ApiException, match="immutable once the run has begun"):
        lab.patch_run({"spec": {"onRejected": "stop"}})
    lab.patch_run({"spec": {"maxIterations": 9, "stop": {"noGainRounds": 2}}})
