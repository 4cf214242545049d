"""Specs that nobody would write: refused with a message, or handled; never a server error, never a dead loop."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client
from kubernetes.client import ApiException
from tests.cluster.operators import Lab
from tests.fakes.crd_values import mutations, values
from tests.unit.operator import given as facts
from tests.unit.operator.sim import World

from dpe_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION, Stage
from dpe_api.spec import Spec
from dpe_api.status import Phase
from dpe_operator.manifests import build
from dpe_operator.manifests.common import Attempt

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "dpe.dev_dpeiterations.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
GOOD = [
    facts.spec().wire(),
    yaml.safe_load((Path(__file__).parents[2] / "examples" / "shapes" / "iteration-1.yaml").read_text())["spec"],
]
FUZZED = 12  # iterations that the operator is given
SPECS = st.one_of(values(SCHEMA), *(mutations(good) for good in GOOD))


def body(name: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def applied(custom: client.CustomObjectsApi, namespace: str, spec: Any, *, dry_run: bool, name: str = "f") -> Any:
    """The spec as the API server keeps it, or its words of refusal."""
    more = {"dry_run": "All"} if dry_run else {}
    try:
        found = custom.create_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, body(name, spec), field_validation="Strict", **more
        )
    except ApiException as error:
        if error.status not in (400, 422):
            raise AssertionError(f"{error.status} for {json.dumps(spec)}: {error.body}") from error
        return str(json.loads(error.body)["message"])
    return found["spec"]


def attempt(world: World, stage: Stage) -> Attempt:
    assert world.status.resolved is not None
    return Attempt(facts.ITERATION, world.platform, world.status.resolved, "s3://dpe/x", stage, 1, "server")


def test_any_spec_is_refused_by_its_field_or_becomes_children_of_every_stage(
    api: client.ApiClient, crd: None, namespace: str
) -> None:
    custom, taken = client.CustomObjectsApi(api), [0]

    # one in seven is taken: enough examples that "hardly any" is no matter of luck
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(spec=SPECS)
    def check(spec: Any) -> None:
        found = applied(custom, namespace, spec, dry_run=True)
        if isinstance(found, str):
            assert "spec" in found
            return
        taken[0] += 1
        known = Spec.model_validate(found)  # what the API server takes, the operator understands
        if known.model.iteration_ref is None:
            world = World(known, facts.platform())
            world.turn()
            expected = (Phase.SUSPENDED,) if known.suspend else (Phase.DIAGNOSING, Phase.PENDING)
            assert world.status.phase in expected
            for stage in Stage if world.status.resolved is not None else ():
                assert build(attempt(world, stage))

    check()
    assert taken[0] >= 10, "hardly any spec was taken: this proves nothing"


def test_an_operator_handles_whatever_the_api_server_takes(lab: Lab) -> None:
    made: list[str] = []

    # of those made from nothing hardly any is taken: enough examples that "too few" is no matter of luck
    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(spec=st.one_of(*(mutations(good) for good in GOOD)))
    def create(spec: Any) -> None:
        if len(made) == FUZZED:
            return
        name = f"f-{len(made)}"
        if not isinstance(applied(lab.custom, lab.namespace, {**spec, "suspend": True}, dry_run=False, name=name), str):
            made.append(name)

    create()
    assert len(made) == FUZZED
    for name in made:  # it has looked and said what it thinks
        lab.until(lambda name=name: lab.status(name).observed_generation == 1)
    assert lab.metric(r"^dpe_reconcile_errors_total 0.0"), lab.log()[-4000:]
