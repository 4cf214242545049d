"""What the API server itself refuses of a DPERun, and with which words."""

import copy
from typing import Any

import pytest
from kubernetes import client
from tests.cluster.test_admission import refusal

from dpe_api.names import GROUP, RUN_PLURAL, VERSION

pytestmark = pytest.mark.cluster

GOOD: dict[str, Any] = {"model": {"uri": "s3://dpe/models/base"}, "template": {"probe": {"uri": "s3://dpe/data/probe"}}}
BEGUN = {"startTime": "2026-01-01T12:00:00Z"}


class Runs:
    def __init__(self, custom: client.CustomObjectsApi, namespace: str) -> None:
        self._custom, self._where = custom, (GROUP, VERSION, namespace, RUN_PLURAL)

    def create(self, spec: dict[str, Any], name: str = "shapes", dry_run: bool = True) -> dict[str, Any]:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "DPERun", "metadata": {"name": name}, "spec": spec}
        more = {"dry_run": "All"} if dry_run else {}
        return self._custom.create_namespaced_custom_object(*self._where, body, field_validation="Strict", **more)

    def patch(self, patch: dict[str, Any], *, status: bool = False) -> dict[str, Any]:
        custom = self._custom
        change = custom.patch_namespaced_custom_object_status if status else custom.patch_namespaced_custom_object
        return change(*self._where, "shapes", patch, _content_type="application/merge-patch+json")


@pytest.fixture
def runs(api: client.ApiClient, crd: None, namespace: str) -> Runs:
    return Runs(client.CustomObjectsApi(api), namespace)


def changed(path: str, value: object) -> dict[str, Any]:
    """The good spec with one field set, addressed by dots; None removes it."""
    spec = copy.deepcopy(GOOD)
    *way, last = path.split(".")
    place = spec
    for step in way:
        place = place.setdefault(step, {})
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return spec


def test_the_least_spec_is_accepted_with_its_defaults(runs):
    found = runs.create(GOOD)["spec"]
    assert (found["maxIterations"], found["onRejected"], found["suspend"]) == (3, "continueFromAccepted", False)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model", None, ["spec.model", "Required"]),
        ("model.uri", "models/base", ["spec.model.uri"]),
        ("model.iterationRef", {"name": "x"}, ['unknown field \\"spec.model.iterationRef\\"']),
        ("template", None, ["spec.template", "Required"]),
        ("template.probe", None, ["spec.template.probe", "Required"]),
        ("template.model", {"uri": "s3://dpe/models/base"}, ['unknown field \\"spec.template.model\\"']),
        ("template.suspend", True, ['unknown field \\"spec.template.suspend\\"']),
        ("template.mixture.policy", "best", ["spec.template.mixture.policy", "thresholds"]),
        (
            "template.generation.filter",
            {"minPassRate": 0.9, "maxPassRate": 0.8},
            ["spec.template.generation.filter.minPassRate must be below maxPassRate"],
        ),
        (
            "template.diagnosis.judge",
            {"endpoint": "judge"},
            ["spec.template.diagnosis.judge.endpoint must be the name of an entry of spec.template.endpoints"],
        ),
        ("maxIterations", 0, ["spec.maxIterations"]),
        ("maxIterations", 100, ["spec.maxIterations"]),
        ("stop.noGainRounds", 0, ["spec.stop.noGainRounds"]),
        ("stop.targetAccuracy", 1.1, ["spec.stop.targetAccuracy"]),
        ("stop.gpuSeconds", 0, ["spec.stop.gpuSeconds"]),
        ("stop.tokens", 0, ["spec.stop.tokens"]),
        ("onRejected", "panic", ["spec.onRejected", "retryWithAnotherSeed"]),
        ("maxRetries", 1, ["spec.maxRetries belongs to onRejected retryWithAnotherSeed only: remove it"]),
        ("ttlSecondsAfterFinished", -1, ["spec.ttlSecondsAfterFinished"]),
    ],
)
def test_a_wrong_field_is_refused_by_a_message_that_names_it(runs, path, value, words):
    message = refusal(lambda: runs.create(changed(path, value)))
    assert all(word in message for word in words), message


def test_retries_belong_to_the_policy_that_retries(runs):
    runs.create({**GOOD, "onRejected": "retryWithAnotherSeed", "maxRetries": 9})


def test_a_name_leaves_room_for_those_of_its_rounds(runs):
    runs.create(GOOD, name="a" * 35)
    assert "at most 35 characters" in refusal(lambda: runs.create(GOOD, name="a" * 36))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"uri": "s3://dpe/models/other"}},
        {"template": {"seed": 5}},
        {"template": {"training": {"nodes": 4}}},
        {"onRejected": "stop"},
    ],
)
def test_once_begun_the_science_is_immutable(runs, change):
    runs.create(GOOD, dry_run=False)
    runs.patch({"spec": change})
    runs.patch({"status": BEGUN}, status=True)
    runs.patch({"spec": {"maxIterations": 5, "stop": {"tokens": 5}, "suspend": True, "ttlSecondsAfterFinished": 5}})
    other = {"onRejected": "retryWithAnotherSeed", "template": {"seed": 6}, "model": {"uri": "s3://dpe/models/third"}}
    for field in change:
        message = refusal(lambda field=field: runs.patch({"spec": {field: other[field]}}))
        assert "spec is immutable once the run has begun" in message
        assert "create a new DPERun instead" in message


def test_the_crd_has_the_columns_and_short_names_that_people_use(api, crd):
    found = client.ApiextensionsV1Api(api).read_custom_resource_definition(f"{RUN_PLURAL}.{GROUP}")
    assert found.spec.names.short_names == ["dper"]
    columns = [c.name for c in found.spec.versions[0].additional_printer_columns if not c.priority]
    assert columns == ["Rounds", "Phase", "First", "Latest", "Reason", "Age"]
