"""What the API server itself refuses, and with which words."""

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client import ApiException
from tests.patience import deadline

from dpe_api.names import GROUP, PLURAL, VERSION

pytestmark = pytest.mark.cluster

CRD = Path(__file__).parents[2] / "crds" / "dpe.dev_dpeiterations.yaml"
EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD: dict[str, Any] = {"model": {"uri": "s3://dpe/models/base"}, "probe": {"uri": "s3://dpe/data/probe"}}


@pytest.fixture
def iterations(api: client.ApiClient, crd: None, namespace: str) -> "Iterations":
    return Iterations(client.CustomObjectsApi(api), namespace)


class Iterations:
    def __init__(self, custom: client.CustomObjectsApi, namespace: str) -> None:
        self._custom, self._where = custom, (GROUP, VERSION, namespace, PLURAL)

    def create(self, spec: dict[str, Any], name: str = "shapes-1", dry_run: bool = False) -> dict[str, Any]:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "DPEIteration", "metadata": {"name": name}, "spec": spec}
        more = {"dry_run": "All"} if dry_run else {}
        return self._custom.create_namespaced_custom_object(*self._where, body, field_validation="Strict", **more)

    def patch(self, spec: dict[str, Any], name: str = "shapes-1") -> dict[str, Any]:
        return self._custom.patch_namespaced_custom_object(
            *self._where, name, {"spec": spec}, _content_type="application/merge-patch+json"
        )

    def set_status(self, status: dict[str, Any], name: str = "shapes-1") -> None:
        self._custom.patch_namespaced_custom_object_status(
            *self._where, name, {"status": status}, _content_type="application/merge-patch+json"
        )


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


def until(holds: Any) -> None:
    """Until it does, while a definition that has just been written is not served yet."""
    end = deadline(30)
    while True:
        try:
            if holds():
                return
        except (ApiException, pytest.fail.Exception):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end
        time.sleep(0.2)


def refusal(make: Any) -> str:
    with pytest.raises(ApiException) as caught:
        make()
    assert caught.value.status in (400, 422), caught.value
    return str(caught.value.body)


def test_the_least_spec_is_accepted_and_keeps_what_was_left_out_absent(iterations):
    found = iterations.create(GOOD)
    assert found["spec"]["probe"]["sampleSize"] == 200
    assert found["spec"]["suspend"] is False
    assert "training" not in found["spec"]


def test_an_iteration_that_refers_to_another_needs_nothing_else(iterations):
    iterations.create({"model": {"iterationRef": {"name": "shapes-0"}}})


def test_endpoints_that_are_listed_may_be_named_and_a_reference_may_bring_them(iterations):
    users = {
        "probe": {"uri": "s3://dpe/data/probe", "categorise": {"endpoint": "judge"}},
        "diagnosis": {"judge": {"endpoint": "judge"}, "attribution": {"endpoint": "judge"}},
        "generation": {agent: {"endpoint": "judge"} for agent in ("planner", "selector", "writer", "validator")},
    }
    key = {"apiKeySecretRef": {"name": "keys", "key": "judge"}}
    iterations.create(GOOD | users | {"endpoints": [JUDGE | key]})
    iterations.create(users | {"model": {"iterationRef": {"name": "shapes-1"}}}, name="shapes-2")
    message = refusal(
        lambda: iterations.create(users | {"model": {"iterationRef": {"name": "x"}}, "endpoints": []}, dry_run=True)
    )
    assert all(f"spec.{field}.{NO_SUCH}" in message for field in users_of(users)), message


def test_servers_are_not_kept_where_a_person_looks_at_the_samples(iterations):
    kept = GOOD | {"serving": {"keepRunning": True}}
    iterations.create(kept | {"generation": {"review": "none"}}, dry_run=True)
    message = refusal(lambda: iterations.create(kept | {"generation": {"review": "required"}}, dry_run=True))
    assert "spec.serving.keepRunning cannot be true where spec.generation.review is required" in message


def users_of(sections: dict[str, Any]) -> list[str]:
    """Fields of these sections that name an endpoint."""
    fields = [(s, f) for s, section in sections.items() for f, value in section.items() if isinstance(value, dict)]
    return [f"{section}.{field}" for section, field in fields]


BOTH = {"uri": "s3://dpe/models/base", "iterationRef": {"name": "x"}}
BENCHMARK = {"name": "test", "uri": "s3://dpe/data/test"}
JUDGE = {"name": "judge", "url": "https://models.example.org/v1", "model": "judge-7b"}
NO_SUCH = "endpoint must be the name of an entry of spec.endpoints"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model", None, ["spec.model", "Required"]),
        ("model", {}, ["spec.model", "exactly one of uri", "iterationRef"]),
        ("model", BOTH, ["spec.model", "exactly one of uri", "iterationRef"]),
        ("model.uri", "models/base", ["spec.model.uri"]),
        ("model.uri", "s3://dpe/models/base/", ["spec.model.uri"]),
        ("model.uri", "hf://org/name", ["spec.model.uri"]),
        ("probe", None, ["spec.probe is required unless spec.model.iterationRef"]),
        ("probe.uri", "s3://dpe", ["spec.probe.uri"]),
        ("probe.sampleSize", 0, ["spec.probe.sampleSize", "greater than or equal to 1"]),
        ("seed", -1, ["spec.seed"]),
        ("diagnosis.rolloutsPerItem", 0, ["spec.diagnosis.rolloutsPerItem"]),
        ("diagnosis.rolloutsPerItem", 65, ["spec.diagnosis.rolloutsPerItem"]),
        ("diagnosis.temperature", 0, ["spec.diagnosis.temperature"]),
        ("diagnosis.temperature", 2.5, ["spec.diagnosis.temperature"]),
        ("diagnosis.maxTokens", 0, ["spec.diagnosis.maxTokens"]),
        ("diagnosis.concurrency", 0, ["spec.diagnosis.concurrency"]),
        ("diagnosis.confidence", 0.4, ["spec.diagnosis.confidence"]),
        ("diagnosis.confidence", 1, ["spec.diagnosis.confidence"]),
        ("diagnosis.maxErrorRate", 1.5, ["spec.diagnosis.maxErrorRate"]),
        ("mixture.policy", "best", ["spec.mixture.policy", "thresholds"]),
        ("mixture.explorationFloor", 0.5, ["spec.mixture.explorationFloor"]),
        ("mixture.retentionFloor", -0.1, ["spec.mixture.retentionFloor"]),
        ("mixture.reach", 1.1, ["spec.mixture.reach"]),
        ("mixture.targetAccuracy", 0, ["spec.mixture.targetAccuracy"]),
        ("generation.targetSamples", 0, ["spec.generation.targetSamples"]),
        ("generation", {"targetSamples": 100, "maxCandidates": 99}, ["maxCandidates must be at least targetSamples"]),
        ("generation.sources", [], ["spec.generation.sources"]),
        (
            "generation.sources",
            [{"kind": "search", "program": "x"}],
            ["kind search needs provider", "program belongs to"],
        ),
        (
            "generation.sources",
            [{"kind": "render", "program": "shapes"}] * 2,
            ["spec.generation.sources", "two entries are one source", "shares added up"],
        ),
        (
            "generation.sources",
            [{"kind": "pool", "uri": "s3://dpe/pool", "program": p} for p in ("shapes", "tables")],
            ["two entries are one source"],
        ),
        ("generation.sources", [{"kind": "render"}], ["spec.generation.sources[0]", "kind render needs program"]),
        (
            "generation.filter",
            {"minPassRate": 0.9, "maxPassRate": 0.8},
            ["spec.generation.filter.minPassRate must be below maxPassRate", "swap"],
        ),
        ("generation.filter.rollouts", 0, ["spec.generation.filter.rollouts"]),
        ("generation.filter.topK", -2, ["spec.generation.filter.topK"]),
        ("serving.replicas", 0, ["spec.serving.replicas"]),
        ("serving.gpusPerReplica", 17, ["spec.serving.gpusPerReplica"]),
        ("serving.pool", "No Such", ["spec.serving.pool"]),
        ("serving.maxModelLen", 1, ["spec.serving.maxModelLen"]),
        ("serving.extraArgs", ["x"] * 33, ["spec.serving.extraArgs"]),
        ("training.nodes", 0, ["spec.training.nodes"]),
        ("training.gpusPerNode", -1, ["spec.training.gpusPerNode"]),
        (
            "training",
            {"nodes": 3, "gpusPerNode": 1, "promptsPerStep": 4, "rolloutsPerPrompt": 4},
            ["promptsPerStep * rolloutsPerPrompt must be a multiple of the number of ranks"],
        ),
        ("training.gpusPerNode", 0, ["rolloutEngine vllm, which samples on GPUs", "write rolloutEngine transformers"]),
        (
            "training",
            {"nodes": 2, "gpusPerNode": 8, "promptsPerStep": 48, "rolloutsPerPrompt": 8, "microBatchSize": 9},
            ["microBatchSize must divide what each rank has"],
        ),
        ("training", {"lossType": "cispo", "epsilonHigh": 0.28}, ["epsilonHigh must be 1 or more with lossType cispo"]),
        ("training.rewards.custom", [{"name": "answer"}], ["answer, format and length are parts that the system has"]),
        ("training.rolloutsPerPrompt", 1, ["spec.training.rolloutsPerPrompt"]),
        ("training.learningRate", 0, ["spec.training.learningRate"]),
        ("training.precision", "fp8", ["spec.training.precision", "bf16"]),
        ("training.rolloutEngine", "hf", ["spec.training.rolloutEngine", "transformers"]),
        ("training.deepspeed.zeroStage", 4, ["spec.training.deepspeed.zeroStage"]),
        ("training.checkpointEverySteps", 0, ["spec.training.checkpointEverySteps"]),
        ("evaluation.benchmarks", [BENCHMARK, BENCHMARK], ["spec.evaluation.benchmarks: names must differ"]),
        ("evaluation.benchmarks", [{"name": "a"}], ["spec.evaluation.benchmarks[0].uri", "Required"]),
        ("evaluation.gate.maxRegression", 2, ["spec.evaluation.gate.maxRegression"]),
        ("probe.adaptiveShare", 0.95, ["spec.probe.adaptiveShare"]),
        ("probe.categorise", {"endpoint": "eye", "taxonomy": ["all"]}, ["spec.probe.categorise.taxonomy"]),
        ("probe.categorise", {"endpoint": "eye"}, [f"spec.probe.categorise.{NO_SUCH}"]),
        ("diagnosis.maxPixels", 100, ["spec.diagnosis.maxPixels"]),
        ("diagnosis.judge", {"endpoint": "judge"}, [f"spec.diagnosis.judge.{NO_SUCH}"]),
        ("diagnosis.attribution.endpoint", "eye", [f"spec.diagnosis.attribution.{NO_SUCH}"]),
        ("diagnosis.attribution.maxCalls", 0, ["spec.diagnosis.attribution.maxCalls"]),
        ("diagnosis.attribution.significance", 0.6, ["spec.diagnosis.attribution.significance"]),
        ("mixture.memory.smoothing", 1, ["spec.mixture.memory.smoothing"]),
        ("mixture.memory.damping", -0.1, ["spec.mixture.memory.damping"]),
        ("endpoints", [JUDGE, JUDGE], ["spec.endpoints: names must differ"]),
        ("endpoints", [JUDGE | {"name": "The Judge"}], ["spec.endpoints[0].name"]),
        ("endpoints", [JUDGE | {"url": "models.example.org/v1"}], ["spec.endpoints[0].url"]),
        ("endpoints", [JUDGE | {"url": "https://me:password@models.example.org/v1"}], ["spec.endpoints[0].url"]),
        ("endpoints", [JUDGE | {"url": "https://models.example.org/v1?key=1"}], ["spec.endpoints[0].url"]),
        (
            "endpoints",
            [{"name": "judge", "url": "https://models.example.org"}],
            ["spec.endpoints[0].model", "Required"],
        ),
        (
            "endpoints",
            [JUDGE | {"apiKeySecretRef": {"name": "keys"}}],
            ["spec.endpoints[0].apiKeySecretRef.key", "Required"],
        ),
        ("generation.writer", {"endpoint": "eye"}, [f"spec.generation.writer.{NO_SUCH}"]),
        (
            "generation.sources",
            [{"kind": "edit", "endpoint": "eye"}],
            [f"spec.generation.sources[].{NO_SUCH}", "needs an endpoint in selector"],
        ),
        (
            "generation.sources",
            [{"kind": "search", "provider": "wikimedia"}],
            ["can be read by no program: name endpoints in writer and validator"],
        ),
        (
            "generation.sources",
            [{"kind": "pool", "uri": "s3://dpe/pool", "program": "shapes", "embedder": "eye"}],
            ["spec.generation.sources[].embedder must be the name of an entry", "remove embedder or program"],
        ),
        (
            "generation.sources",
            [{"kind": "render", "program": "shapes", "embedder": "eye"}],
            ["spec.generation.sources[].embedder belongs to kind pool only: remove it"],
        ),
        ("endpoints", [JUDGE | {"budget": {}}], ["spec.endpoints[].budget needs tokens, cost or both"]),
        ("endpoints", [JUDGE | {"budget": {"cost": 1}}], ["spec.endpoints[].budget.cost needs price"]),
        ("endpoints", [JUDGE | {"price": {"input": -1, "output": 1}}], ["spec.endpoints[0].price.input"]),
        ("endpoints", [JUDGE | {"apiKey": "sk-1"}], ['unknown field \\"spec.endpoints[0].apiKey\\"']),
        ("endpoints", [JUDGE | {"maxConcurrency": 0}], ["spec.endpoints[0].maxConcurrency"]),
        ("retry.maxAttempts", 0, ["spec.retry.maxAttempts"]),
        ("ttlSecondsAfterFinished", -1, ["spec.ttlSecondsAfterFinished"]),
        ("suspend", "yes", ["spec.suspend"]),
    ],
)
def test_a_wrong_field_is_refused_by_a_message_that_names_it(iterations, path, value, words):
    message = refusal(lambda: iterations.create(changed(path, value), dry_run=True))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("path", ["modle", "training.lr", "generation.filter.minimum", "probe.size"])
def test_an_unknown_field_is_refused_by_name(iterations, path):
    message = refusal(lambda: iterations.create(changed(path, 1), dry_run=True))
    assert f'unknown field \\"spec.{path}\\"' in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 41, "at most 40 characters"),
        ("shapes.1", "lower case letters, digits and '-'"),
        ("7b-shapes", "must begin with a letter"),
    ],
)
def test_a_name_that_children_cannot_be_named_after_is_refused(iterations, name, words):
    assert words in refusal(lambda: iterations.create(GOOD, name=name, dry_run=True))


@pytest.mark.parametrize("name", ["shapes/iteration-1.yaml", "gpu/iteration-7b.yaml"])
def test_an_example_is_accepted(iterations, name):
    example = yaml.safe_load((EXAMPLES / name).read_text())
    iterations.create(example["spec"], name=example["metadata"]["name"], dry_run=True)


def test_a_name_of_forty_characters_is_accepted(iterations):
    iterations.create(GOOD, name="a" * 40, dry_run=True)


def test_an_object_from_before_the_rules_of_names_can_still_be_changed_and_deleted(api, namespace):
    """Every patch of its status and of its finalizers would else be refused, for ever."""
    old, group = "7b-" + "run" * 15, "before.dpe.test"
    extensions, custom = client.ApiextensionsV1Api(api), client.CustomObjectsApi(api)
    definition = yaml.safe_load(CRD.read_text())
    definition["metadata"] = {"name": f"{PLURAL}.{group}"}
    definition["spec"]["group"] = group
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = schema.pop("x-kubernetes-validations")
    where = (group, VERSION, namespace, PLURAL)
    body = {"apiVersion": f"{group}/{VERSION}", "kind": "DPEIteration", "metadata": {"name": old}, "spec": GOOD}
    merge = {"_content_type": "application/merge-patch+json"}
    extensions.create_custom_resource_definition(definition)
    try:
        until(lambda: custom.create_namespaced_custom_object(*where, body))
        schema["x-kubernetes-validations"] = rules
        extensions.patch_custom_resource_definition(definition["metadata"]["name"], definition, **merge)
        other = {**body, "metadata": {"name": "8b"}}
        probe = partial(custom.create_namespaced_custom_object, *where, other, dry_run="All")
        until(lambda: "must begin with a letter" in refusal(probe))
        custom.patch_namespaced_custom_object_status(*where, old, {"status": {"phase": "Pending"}}, **merge)
        custom.patch_namespaced_custom_object(*where, old, {"metadata": {"finalizers": ["dpe.test/keep"]}}, **merge)
        custom.delete_namespaced_custom_object(*where, old)
        custom.patch_namespaced_custom_object(*where, old, {"metadata": {"finalizers": None}}, **merge)
        assert not custom.list_namespaced_custom_object(*where)["items"]
    finally:
        extensions.delete_custom_resource_definition(definition["metadata"]["name"])


def test_after_the_start_a_manifest_without_a_seed_replaces_one_with_the_default_of_old(iterations):
    iterations.create({**GOOD, "seed": 0})
    iterations.set_status(STARTED)
    iterations.patch({"seed": None, "suspend": True})
    assert "spec is immutable" in refusal(lambda: iterations.patch({"seed": 7}))


STARTED = {"resolved": {"round": 0, "modelUri": "s3://dpe/models/base", "spec": {}}}


def test_before_the_start_everything_may_change(iterations):
    iterations.create(GOOD)
    iterations.set_status({"phase": "Pending"})
    iterations.patch({"seed": 5, "training": {"nodes": 4}})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"model": {"uri": "s3://dpe/models/other"}},
        {"probe": {"uri": "s3://dpe/data/other"}},
        {"training": {"nodes": 4}},
        {"evaluation": {"benchmarks": []}},
        {"mixture": {"policy": "gap"}},
        {"endpoints": [JUDGE]},
    ],
)
def test_after_the_start_the_science_is_immutable(iterations, change):
    iterations.create(GOOD)
    iterations.set_status(STARTED)
    message = refusal(lambda: iterations.patch(change))
    assert "spec is immutable once the iteration has started" in message
    assert "create a new DPEIteration instead" in message


def test_after_the_start_a_training_may_have_other_nodes_and_nothing_else(iterations):
    iterations.create({**GOOD, "training": {"maxSteps": 8}})
    iterations.set_status(STARTED)
    changed = iterations.patch({"training": {"nodes": 4, "gpusPerNode": 4}})
    assert (changed["spec"]["training"]["nodes"], changed["spec"]["training"]["maxSteps"]) == (4, 8)
    for change in ({"maxSteps": 9}, {"nodes": 2, "deepspeed": {"zeroStage": 2}}, {"microBatchSize": 4}):
        assert "spec is immutable" in refusal(lambda change=change: iterations.patch({"training": change}))
    assert "must be a multiple of the number of ranks" in refusal(lambda: iterations.patch({"training": {"nodes": 7}}))


def test_after_the_start_no_argument_of_the_trainer_may_become_another_one(iterations):
    iterations.create({**GOOD, "training": {"trainer": {"extra": {"adam_beta2": 0.95}}}})
    iterations.set_status(STARTED)
    for extra in ({"adam_beta2": 0.9}, {"adam_beta2": None, "adam_beta1": 0.95}, {"adam_beta1": 0.9}):
        change = {"training": {"trainer": {"extra": extra}}}
        assert "spec is immutable" in refusal(lambda change=change: iterations.patch(change))
    iterations.patch({"suspend": True})


@pytest.mark.parametrize("change", [{"suspend": True}, {"ttlSecondsAfterFinished": 60}, {"retry": {"maxAttempts": 9}}])
def test_after_the_start_what_steers_it_may_still_change(iterations, change):
    iterations.create(GOOD)
    iterations.set_status(STARTED)
    found = iterations.patch(change)
    assert found["spec"].items() >= change.items()


def test_the_crd_has_the_columns_and_short_names_that_people_use(api, crd):
    found = client.ApiextensionsV1Api(api).read_custom_resource_definition(f"{PLURAL}.{GROUP}")
    assert found.spec.names.short_names == ["dpei"]
    columns = [c.name for c in found.spec.versions[0].additional_printer_columns if not c.priority]
    assert columns == ["Phase", "Stage", "Before", "After", "Accepted", "Age"]
    assert found.spec.versions[0].subresources.status is not None


def test_the_crd_in_the_checkout_is_the_one_that_is_served(api, crd):
    written = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = client.ApiextensionsV1Api(api).read_custom_resource_definition(f"{PLURAL}.{GROUP}").to_dict()
    served = found["spec"]["versions"][0]["schema"]["open_apiv3_schema"]
    assert set(served["properties"]["spec"]["properties"]) == set(written["properties"]["spec"]["properties"])
