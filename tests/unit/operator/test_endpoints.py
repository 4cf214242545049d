"""Models of others: who is told of them, where their keys come from, and what keeps an iteration from starting."""

import json
import re
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.unit.operator import given

from dpe_api.endpoints import Endpoint, key_variable
from dpe_api.fields import Name
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch, GenerationLaunch, parse_launch
from dpe_api.names import Stage
from dpe_api.spec import Spec
from dpe_api.status import ModelStatus, Phase, Resolved, Status
from dpe_operator.conditions import condition
from dpe_operator.decide import decide
from dpe_operator.gateway import Forbidden
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt
from dpe_operator.plan import Plan
from dpe_operator.preconditions import outside_problems
from dpe_operator.world import Observed, Previous, Problem

ASKING = (Stage.DIAGNOSIS, Stage.EVALUATION)
KEYS = {"judge": {"name": "keys", "key": "judge"}, "eye-2": {"name": "other", "key": "token"}}


def endpoint(name: str, **more: Any) -> dict[str, Any]:
    reference = {"apiKeySecretRef": KEYS[name]} if name in KEYS else {}
    return {"name": name, "url": f"https://{name}.example.org/v1", "model": f"{name}-7b", **reference, **more}


LISTED = [endpoint("unused", apiKeySecretRef={"name": "nowhere", "key": "x"}), endpoint("eye-2"), endpoint("judge")]
USERS: dict[str, Any] = {
    "probe": {"uri": "s3://dpe/data/probe", "categorise": {"endpoint": "eye-2"}},
    "diagnosis": {"judge": {"endpoint": "judge"}, "attribution": {"endpoint": "eye-2"}},
    "generation": {
        "sources": [{"kind": "render", "program": "shapes"}, {"kind": "edit", "endpoint": "editor"}],
        "planner": {"endpoint": "teacher"},
        "validator": {"endpoint": "teacher", "blindEndpoint": "judge"},
    },
    "endpoints": [*LISTED, endpoint("teacher"), endpoint("editor")],
}


def bodies(stage: Stage) -> dict[str, dict[str, Any]]:
    resolved = Resolved(round=0, model_uri="s3://dpe/models/base", spec=given.spec(**USERS).resolve())
    server = None if stage.is_serving or stage is Stage.TRAINING else "shapes-1-serve-base-1"
    attempt = Attempt(given.ITERATION, given.platform(), resolved, "s3://dpe/lab/x", stage, 1, server)
    return {child.kind: child.body for child in build(attempt)}


def environment(stage: Stage) -> list[dict[str, Any]]:
    (container,) = bodies(stage)["Job"]["spec"]["template"]["spec"]["containers"]
    return [variable for variable in container["env"] if variable["name"].startswith("DPE_ENDPOINT")]


@pytest.mark.parametrize("stage", ASKING)
def test_a_pod_that_asks_gets_each_key_as_a_reference_to_a_secret(stage):
    assert environment(stage) == [
        {"name": "DPE_ENDPOINT_KEY_EYE_2", "valueFrom": {"secretKeyRef": {"name": "other", "key": "token"}}},
        {"name": "DPE_ENDPOINT_KEY_JUDGE", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "judge"}}},
    ]


def test_generation_is_told_of_the_endpoints_of_agents_and_edits_and_gets_their_keys():
    told = parse_launch(bodies(Stage.GENERATION)["ConfigMap"]["data"]["launch.json"])
    assert isinstance(told, GenerationLaunch)
    assert [e.name for e in told.endpoints] == ["judge", "teacher", "editor"]
    assert [e["name"] for e in environment(Stage.GENERATION)] == [key_variable("judge")]


@pytest.mark.parametrize("stage", [s for s in Stage if s not in (*ASKING, Stage.GENERATION)])
def test_other_pods_get_no_key_and_are_told_of_no_endpoint(stage):
    assert "example.org" not in json.dumps(bodies(stage))
    for container in bodies(stage)["Job"]["spec"]["template"]["spec"]["containers"]:
        assert not [e for e in container["env"] if e["name"].startswith("DPE_ENDPOINT")]


@pytest.mark.parametrize("stage", ASKING)
def test_a_pod_is_told_of_the_endpoints_that_its_spec_uses_and_of_no_other(stage):
    told = parse_launch(bodies(stage)["ConfigMap"]["data"]["launch.json"])
    assert isinstance(told, DiagnosisLaunch | EvaluationLaunch)
    assert [e.name for e in told.endpoints] == ["eye-2", "judge"]
    assert told.endpoints[1] == Endpoint.model_validate(LISTED[2])


@hypothesis_given(
    st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), min_size=2, unique=True)
)
def test_every_endpoint_has_a_variable_of_its_own(names):
    assert [TypeAdapter(Name).validate_python(n) for n in names] == names
    variables = [key_variable(n) for n in names]
    assert len(set(variables)) == len(names)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", v) for v in variables)


class Gateway:
    """Knows these Secrets, by name: keys, or None when the operator may not look."""

    def __init__(self, **secrets: set[str] | None) -> None:
        self._secrets = {"dpe_store": {"accessKey", "secretKey"}, **secrets}
        self.asked: list[str] = []

    async def secret_keys(self, namespace: str, name: str) -> set[str] | None:
        self.asked.append(name)
        found = self._secrets.get(name.replace("-", "_"), set())
        if found is None:
            raise Forbidden(name)
        return found or None

    async def iteration(self, namespace: str, name: str) -> None:
        return None


class Storage:
    """Everything is there."""

    endpoint = "http://store:9000"

    async def bucket_exists(self, bucket: str) -> bool:
        return True

    async def names(self, uri: str) -> list[str]:
        return ["config.json", "part.parquet"]


async def problems(gateway: Gateway, spec: Spec | None = None) -> list[Problem]:
    spec = given.spec(**USERS) if spec is None else spec
    return await outside_problems(
        gateway,  # type: ignore[arg-type]
        Storage(),  # type: ignore[arg-type]
        given.platform(),
        given.ITERATION,
        spec,
        None,
        startable=True,
    )


async def test_keys_that_are_there_stand_in_no_ones_way_and_unused_ones_are_not_looked_at():
    gateway = Gateway(keys={"judge"}, other={"token"})
    assert await problems(gateway) == []
    assert gateway.asked == ["dpe-store", "other", "keys"]


@pytest.mark.parametrize(
    ("secrets", "reason", "words"),
    [
        (
            {"other": {"token"}},
            "SecretNotFound",
            ["spec.endpoints[2]", "name is keys", "lab", "create it with key judge"],
        ),
        (
            {"other": {"token"}, "keys": {"jugde", "x"}},
            "SecretIncomplete",
            ["spec.endpoints[2]", "key is judge", "Secret keys has jugde, x", "add the key or correct the name"],
        ),
        (
            {"other": None, "keys": {"judge"}},
            "SecretForbidden",
            ["spec.endpoints[1]", "name is other", "Helm value endpointSecrets"],
        ),
    ],
)
async def test_a_key_that_cannot_be_had_is_a_problem_that_names_field_and_mend(secrets, reason, words):
    (problem,) = await problems(Gateway(**secrets))
    assert problem.reason == reason
    assert all(word in problem.message for word in words), problem.message


SEARCHES = [
    {"kind": "render", "program": "shapes"},
    {"kind": "search", "provider": "serper", "apiKeySecretRef": {"name": "other", "key": "serper"}},
    {"kind": "search", "provider": "wikimedia"},
]


def test_a_pod_that_generates_gets_the_keys_of_image_searches_and_learns_how_the_platform_downloads():
    spec = given.spec(generation={"targetSamples": 4, "maxCandidates": 8, "sources": SEARCHES}).resolve()
    resolved = Resolved(round=0, model_uri="s3://dpe/models/base", spec=spec)
    downloads = {"userAgent": "dpe/1 (+https://lab.example.org)", "allow": ["searxng.tools.svc"]}
    platform = given.platform(downloads=downloads)
    attempt = Attempt(given.ITERATION, platform, resolved, "s3://dpe/lab/x", Stage.GENERATION, 1, "serve-1")
    made = {child.kind: child.body for child in build(attempt)}
    (container,) = made["Job"]["spec"]["template"]["spec"]["containers"]
    assert [variable for variable in container["env"] if "SOURCE" in variable["name"]] == [
        {"name": "DPE_SOURCE_KEY_1", "valueFrom": {"secretKeyRef": {"name": "other", "key": "serper"}}}
    ]
    launch = parse_launch(made["ConfigMap"]["data"]["launch.json"])
    assert isinstance(launch, GenerationLaunch)
    assert launch.downloads.wire() == downloads


async def test_a_key_of_an_image_search_that_cannot_be_had_is_a_problem_that_names_its_source():
    spec = given.spec(generation={"targetSamples": 4, "maxCandidates": 8, "sources": SEARCHES})
    (problem,) = await problems(Gateway(other={"token"}), spec)
    assert problem.reason == "SecretIncomplete"
    assert problem.message.startswith(
        "spec.generation.sources[1].apiKeySecretRef.key is serper: Secret other has token"
    )
    assert await problems(Gateway(other={"serper"}), spec) == []


async def test_the_object_stores_own_credentials_are_never_sent_to_an_endpoint():
    judge = endpoint("judge", apiKeySecretRef={"name": "dpe-store", "key": "secretKey"})
    spec = given.spec(diagnosis={"judge": {"endpoint": "judge"}}, endpoints=[judge])
    (problem,) = await problems(Gateway(), spec)
    assert problem.reason == "SecretForbidden"
    assert "spec.endpoints[0].apiKeySecretRef is the object store's secretKey" in problem.message


def admitted(spec: Spec, *found: Problem, previous: Previous | None = None) -> Plan:
    seen = Observed(given.ITERATION, problems=found, previous=previous)
    return decide(spec, Status(), seen, given.platform(), given.T0)


async def test_an_iteration_without_its_key_is_not_accepted_and_spawns_nothing():
    spec = given.spec(**USERS)
    plan = admitted(spec, *await problems(Gateway(other={"token"})))
    assert not plan.create
    assert plan.status is not None
    accepted = condition(plan.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "SecretNotFound")
    mended = decide(spec, plan.status, Observed(given.ITERATION), given.platform(), given.at(30))
    assert mended.status is not None
    assert mended.status.resolved is not None


def finished(**spec: Any) -> Previous:
    resolved = Resolved(round=0, model_uri="s3://dpe/models/base", spec=given.spec(**spec).resolve())
    model = ModelStatus(
        uri="s3://dpe/lab/x/training/model", accepted=True, candidate_uri="s3://dpe/lab/x/training/model"
    )
    status = Status(phase=Phase.SUCCEEDED, model=model, resolved=resolved, artifacts="s3://dpe/lab/x")
    return Previous("shapes-0", status)


def test_a_continuing_iteration_takes_the_endpoints_of_the_one_that_it_continues():
    spec = Spec.model_validate({"model": {"iterationRef": {"name": "shapes-0"}}})
    plan = admitted(spec, previous=finished(**USERS))
    assert plan.status is not None
    assert plan.status.resolved is not None
    assert [e.name for e in plan.status.resolved.spec.endpoints] == ["unused", "eye-2", "judge", "teacher", "editor"]


def test_an_endpoint_that_the_continued_iteration_does_not_have_either_is_a_condition_that_lists_what_it_has():
    document = {"model": {"iterationRef": {"name": "shapes-0"}}, "diagnosis": {"judge": {"endpoint": "referee"}}}
    plan = admitted(Spec.model_validate(document), previous=finished(**USERS))
    assert plan.status is not None
    accepted = condition(plan.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "UnknownEndpoint")
    assert "spec.diagnosis.judge.endpoint is referee" in accepted.message
    assert "unused, eye-2, judge" in accepted.message
