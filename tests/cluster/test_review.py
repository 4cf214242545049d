"""A person between generation and training: what the API server, the nodes and kubectl show of the wait."""

import pytest
from tests.cluster.operators import MERGE, Lab

from dpe_api.names import ANNOTATION_REVIEW, GROUP, PLURAL, VERSION, Stage
from dpe_api.status import Phase, StageState

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def annotate(lab: Lab, word: str) -> None:
    """What `kubectl annotate --overwrite` sends."""
    body = {"metadata": {"annotations": {ANNOTATION_REVIEW: word}}}
    lab.custom.patch_namespaced_custom_object(GROUP, VERSION, lab.namespace, PLURAL, "turn", body, _content_type=MERGE)


def wait_for_reviewer(lab: Lab) -> None:
    """Until it asks for a person, and nothing of it runs any more."""
    lab.create(generation={"review": "required"})
    lab.until(lambda: lab.status().phase is Phase.AWAITING_REVIEW, 90)
    lab.until(lambda: not any(lab.pods(stage) for stage in Stage))


def test_it_waits_without_pods_survives_its_operator_and_trains_once_accepted(lab: Lab) -> None:
    wait_for_reviewer(lab)
    assert "AwaitingReview" in lab.table(PLURAL)
    (told,) = (message for reason, message in lab.events() if reason == "AwaitingReview")
    command = f"kubectl -n {lab.namespace} annotate --overwrite {PLURAL} turn {ANNOTATION_REVIEW}=accepted"
    assert command in told
    lab.restart()
    annotate(lab, "acepted")
    lab.until(
        lambda: (
            "is 'acepted': write accepted or rejected" in (lab.status().stage_status(Stage.GENERATION).message or "")
        )
    )
    assert lab.status().stage_status(Stage.TRAINING).attempt == 0
    annotate(lab, "accepted")
    lab.until(lambda: lab.status().phase.is_final, 150)
    assert lab.status().phase is Phase.SUCCEEDED
    assert all((s.state, s.failures) == (StageState.DONE, 0) for s in lab.status().stages)
    assert lab.store.manifest(f"{lab.root()}/{Stage.GENERATION}") is not None


def test_a_refusal_ends_it_and_keeps_the_draft(lab: Lab) -> None:
    wait_for_reviewer(lab)
    annotate(lab, "rejected")
    lab.until(lambda: lab.status().phase is Phase.FAILED)
    assert (lab.condition("Failed") or ("", "", ""))[1] == "ReviewRejected"
    assert lab.store.manifest(f"{lab.root()}/{Stage.GENERATION}/draft") is not None
    assert lab.store.manifest(f"{lab.root()}/{Stage.GENERATION}") is None
