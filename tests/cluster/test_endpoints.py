"""Keys of endpoints on a real API server: what an iteration waits for, and where the keys never show."""

import json
import secrets
from typing import Any

import pytest
from kubernetes import client
from tests.cluster.operators import KEYS, Lab

from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import Phase

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

EYE = {"name": "eye", "url": "http://eye.example.org/v1", "model": "eye-7b"}
USERS: dict[str, Any] = {"diagnosis": {"judge": {"endpoint": "judge"}, "attribution": {"endpoint": "eye"}}}


def judge(secret: str = KEYS) -> dict[str, Any]:
    key = {"name": secret, "key": "judge"}
    return {"name": "judge", "url": "https://judge.example.org/v1", "model": "judge-7b", "apiKeySecretRef": key}


def accepted(lab: Lab) -> tuple[str, str, str]:
    return lab.condition("Accepted") or ("", "", "")


def everything(lab: Lab) -> str:
    """All that the namespace shows to whoever may not read Secrets."""
    seen = [
        lab.core.list_namespaced_config_map(lab.namespace),
        lab.core.list_namespaced_event(lab.namespace),
        lab.core.list_namespaced_pod(lab.namespace),
        lab.batch.list_namespaced_job(lab.namespace),
    ]
    serialise = client.ApiClient().sanitize_for_serialization
    return json.dumps([serialise(o) for o in seen] + [lab.body()]) + lab.log()


def test_an_iteration_waits_for_the_key_of_its_judge_and_the_key_shows_nowhere(lab: Lab) -> None:
    value = secrets.token_hex(16)
    lab.create(**USERS, endpoints=[EYE, judge()])
    lab.until(lambda: accepted(lab)[:2] == ("False", "SecretNotFound"))
    assert f"spec.endpoints[1].apiKeySecretRef.name is {KEYS}: no such Secret" in accepted(lab)[2]
    assert "create it with key judge" in accepted(lab)[2]
    lab.core.create_namespaced_secret(lab.namespace, {"metadata": {"name": KEYS}, "stringData": {"jugde": value}})
    lab.until(lambda: accepted(lab)[1] == "SecretIncomplete")
    assert f"apiKeySecretRef.key is judge: Secret {KEYS} has jugde" in accepted(lab)[2]
    assert lab.jobs() == []
    lab.core.patch_namespaced_secret(KEYS, lab.namespace, {"stringData": {"judge": value}})
    lab.until(lambda: lab.status().phase.is_final, 150)
    assert lab.status().phase is Phase.SUCCEEDED

    reference = {"name": "DPE_ENDPOINT_KEY_JUDGE", "valueFrom": {"secretKeyRef": {"name": KEYS, "key": "judge"}}}
    for stage in BATCH_STAGES:
        job = client.ApiClient().sanitize_for_serialization(
            lab.batch.read_namespaced_job(f"turn-{stage}-1", lab.namespace)
        )
        (container,) = job["spec"]["template"]["spec"]["containers"]
        keys = [e for e in container["env"] if e["name"].startswith("DPE_ENDPOINT")]
        assert keys == ([reference] if stage in (Stage.DIAGNOSIS, Stage.EVALUATION) else [])
    shown = everything(lab)
    assert "judge-7b" in shown
    assert value not in shown


def test_a_secret_that_the_operator_may_not_read_is_not_given_to_a_pod_either(lab: Lab) -> None:
    lab.core.create_namespaced_secret(lab.namespace, {"metadata": {"name": "others"}, "stringData": {"judge": "x"}})
    lab.create(**USERS, endpoints=[EYE, judge("others")])
    lab.until(lambda: accepted(lab)[:2] == ("False", "SecretForbidden"))
    assert "spec.endpoints[1].apiKeySecretRef.name is others" in accepted(lab)[2]
    assert "list it in the Helm value endpointSecrets" in accepted(lab)[2]
    assert lab.jobs() == []
    lab.core.create_namespaced_secret(lab.namespace, {"metadata": {"name": KEYS}, "stringData": {"judge": "x"}})
    lab.patch({"endpoints": [EYE, judge()]})
    lab.until(lambda: accepted(lab)[0] == "True")
