import asyncio
import copy
import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dev import chart_docs
from kubernetes.client.exceptions import ApiException

from dpe_api import crd, reference
from dpe_api.launch import Downloads
from dpe_api.names import API_VERSION, KIND
from dpe_api.run_spec import RunSpec
from dpe_api.spec import ResolvedSpec, Spec
from dpe_jobs.training.settings import batch_of_rank
from dpe_operator.platform import (
    Backoff,
    Container,
    Deadlines,
    Limits,
    LmmsEval,
    ModelCache,
    ObjectStore,
    Platform,
    Pods,
    Pool,
)
from dpe_operator.resolve import problems

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "dpe"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def keys(model: type) -> set[str]:
    return {field.alias for field in model.model_fields.values()}


def test_default_values_pass_their_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_a_uid_may_be_left_to_the_platform() -> None:
    jsonschema.validate(VALUES | {"pods": VALUES["pods"] | {"runAsUser": None}}, SCHEMA)


def test_values_of_the_embedded_cluster_pass_the_schema() -> None:
    jsonschema.validate(VALUES | yaml.safe_load((ROOT / "dev" / "values.yaml").read_text()), SCHEMA)


def merged(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: maps by key, anything else replaced; null removes a key."""
    found = {k: v for k, v in values.items() if not (k in given and given[k] is None)}
    for key, value in given.items():
        if value is not None:
            below = found.get(key)
            found[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return found


INSTALL = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "install.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", INSTALL, ids=[text.splitlines()[0] for text in INSTALL])
def test_the_values_in_the_install_page_pass_the_schema(text: str) -> None:
    jsonschema.validate(merged(VALUES, yaml.safe_load(text)), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("objectStore", "endpoint"), "s3.example.org", "objectStore.endpoint"),
        (("objectStore", "endpoint"), "http://s3.example.org/dpe", "objectStore.endpoint"),
        (("objectStore", "acessKey"), "a", "objectStore"),
        (("pools", "training", "nodeselector"), {}, "pools.training"),
        (("pools", "training", "tolerations"), [{"operator": "Exist"}], "pools.training.tolerations.0.operator"),
        (("pods", "runAsUser"), 0, "pods.runAsUser"),
        (("jobs", "env"), [{"name": "A", "value": 1}], "jobs.env.0.value"),
        (("serving", "resources"), {"limits": {"memory": "lots"}}, "serving.resources.limits.memory"),
        (("endpointSecrets",), ["keys", "keys"], "endpointSecrets"),
        (("deadlines", "startup"), 0, "deadlines.startup"),
        (("modelCache", "volume"), {"nfs": {}, "emptyDir": {}}, "modelCache.volume"),
        (("lmmsEval", "data"), {"nfs": {}, "emptyDir": {}}, "lmmsEval.data"),
        (("modelCache", "maxSize"), "lots", "modelCache.maxSize"),
        (("watchNamespaces",), ["Not_A_Namespace"], "watchNamespaces.0"),
        (("networkPolicy", "apiServer", "cidrs"), ["10.0.0.1"], "networkPolicy.apiServer.cidrs.0"),
        (("networkPolicy", "endpoints"), [{"to": [], "ports": [443]}], "networkPolicy.endpoints.0.to"),
        (("networkPolicy", "downloads"), [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}], "networkPolicy.downloads.0"),
        (("downloads", "userAgent"), "dpe/1\r\nCookie: x", "downloads.userAgent"),
        (("downloads", "allow"), ["http://searxng.tools.svc"], "downloads.allow.0"),
        (("networkPolicy", "prometheus"), [{"namespaceselector": {}}], "networkPolicy.prometheus.0"),
        (("networkPolicy", "dns", "ports"), ["dns"], "networkPolicy.dns.ports.0"),
        (("priorityClasses", "stages"), 2000000000, "priorityClasses.stages"),
        (("monitoring", "interval"), 15, "monitoring.interval"),
        (("uninstall", "iterations"), "suspend", "uninstall.iterations"),
    ],
)
def test_a_wrong_value_is_refused_at_its_own_place(path: tuple[str, ...], value: object, where: str) -> None:
    values = copy.deepcopy(VALUES)
    *parents, last = path
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate(values, SCHEMA)
    assert ".".join(str(part) for part in refused.value.absolute_path) == where


def test_every_value_says_what_it_means_in_values_readme_and_schema() -> None:
    rows = list(chart_docs.rows((CHART / "values.yaml").read_text()))
    assert [".".join(row.path) for row in rows if not row.description] == []
    for name, text in chart_docs.FILES.items():
        assert (CHART / name).read_text() == text(), f"charts/dpe/{name}: run `python -m dev.chart_docs`"
    assert "| backoff.cap | int | `300` | Longest wait, in seconds. |" in (CHART / "README.md").read_text()


def test_every_fact_of_the_platform_can_be_set_in_the_values() -> None:
    assert keys(Platform) <= set(VALUES)
    assert keys(Pods) == set(VALUES["pods"])
    assert keys(Deadlines) == set(VALUES["deadlines"])
    assert keys(Limits) == set(VALUES["limits"])
    assert keys(Backoff) == set(VALUES["backoff"])
    assert keys(ModelCache) == set(VALUES["modelCache"])
    assert keys(Downloads) == set(VALUES["downloads"])
    assert keys(ObjectStore) == set(VALUES["objectStore"]) - {"accessKey", "secretKey"}
    for part in ("jobs", "serving", "training"):
        assert keys(Container) == set(VALUES[part]) | {"pullPolicy"}
    assert keys(LmmsEval) == set(VALUES["lmmsEval"]) | {"pullPolicy"}
    for pool in VALUES["pools"].values():
        assert keys(Pool) == set(pool)


def test_the_deadlines_in_the_values_are_the_operators_defaults() -> None:
    assert Deadlines.model_validate(VALUES["deadlines"]) == Deadlines()
    assert Backoff.model_validate(VALUES["backoff"]) == Backoff()
    assert ModelCache.model_validate(VALUES["modelCache"]) == ModelCache()


def test_both_copies_of_the_crds_are_generated_from_the_models() -> None:
    for name, content in crd.files().items():
        assert (ROOT / name).read_text() == content, f"{name}: run `make generate`"


@pytest.mark.parametrize("definition", [crd.crd(), crd.run_crd()], ids=["iteration", "run"])
def test_the_crd_holds_no_bare_word_that_yaml_1_1_reads_as_a_truth_value(definition: dict[str, object]) -> None:
    text = crd.text(definition)
    bare = re.findall(r"^\s*(?:- )?(?:y|n|on|off|yes|no)(?::.*)?$", text, re.MULTILINE | re.IGNORECASE)
    assert bare == []


def test_the_reference_page_is_generated_from_the_models() -> None:
    for name in reference.FILES:
        assert (ROOT / name).read_text() == reference.text(), f"{name}: run `make generate`"


def test_the_reference_page_tells_default_bounds_and_meaning_of_a_field() -> None:
    (line,) = [row for row in reference.text().splitlines() if row.startswith("| `probe.sampleSize`")]
    assert line == (
        "| `probe.sampleSize` | integer | `200` | ≥ 1, ≤ 1000000 | Rows asked, spread evenly over the categories; "
        "each round draws afresh. |"
    )


def example(name: str) -> Spec:
    return Spec.model_validate(yaml.safe_load((ROOT / "examples" / "shapes" / name).read_text())["spec"])


def test_the_first_iteration_is_a_valid_spec_whose_batches_divide_evenly() -> None:
    spec = ResolvedSpec.of(example("iteration-1.yaml"))
    assert spec.probe.sample_size % 7 == 0  # as many rows of each category
    assert spec.training.prompts_per_step * spec.training.rollouts_per_prompt % spec.training.nodes == 0
    assert [b.name for b in spec.evaluation.benchmarks] == ["test"]


def test_the_iteration_for_gpus_is_a_valid_spec_that_the_charts_own_pools_could_start() -> None:
    body = yaml.safe_load((ROOT / "examples" / "gpu" / "iteration-7b.yaml").read_text())
    assert (body["apiVersion"], body["kind"]) == (API_VERSION, KIND)
    spec = Spec.model_validate(body["spec"])
    store = {"endpoint": "https://s3.example.org", "bucket": "experiments", "credentialsSecret": "s3-credentials"}
    images = {part: VALUES[part] | {"image": part} for part in ("jobs", "serving", "training")}
    platform = Platform.model_validate({"pools": VALUES["pools"], "objectStore": store, **images})
    assert problems(spec, None, platform) == []
    assert spec.training is not None
    assert batch_of_rank(spec.training, spec.training.nodes * spec.training.gpus_per_node) == (4, 8)
    assert spec.training.prompts_per_step * spec.training.max_steps == ResolvedSpec.of(spec).generation.target_samples
    assert spec.generation is not None
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["dpe.generators"]
    assert {source.program for source in spec.generation.sources} <= set(programs)


def test_the_template_of_the_run_is_the_first_iteration() -> None:
    run = RunSpec.model_validate(yaml.safe_load((ROOT / "examples" / "shapes" / "run.yaml").read_text())["spec"])
    first = example("iteration-1.yaml")
    assert first.model.uri == run.model.uri
    assert run.first(run.template.seed) == first


def test_the_second_iteration_says_nothing_but_the_name_of_the_first() -> None:
    second = example("iteration-2.yaml")
    first = ResolvedSpec.of(example("iteration-1.yaml"))
    assert second.model.iteration_ref is not None
    assert second.model.iteration_ref.name == "shapes-1"
    assert second.resolve(first) == first


def defaults(schema: Any, path: str = "") -> list[str]:
    """Fields of a structural schema that the API server sets when nobody has."""
    own = [path] if "default" in schema else []
    below = {**schema.get("properties", {}), **({"[]": schema["items"]} if "items" in schema else {})}
    return own + [found for name, field in below.items() for found in defaults(field, f"{path}.{name}")]


def test_a_definition_puts_nothing_into_a_status_which_an_older_operator_would_have_to_know() -> None:
    for definition in (crd.crd(), crd.run_crd()):
        (version,) = definition["spec"]["versions"]
        whole = version["schema"]["openAPIV3Schema"]["properties"]
        assert defaults(whole["status"]) == []
        assert defaults(whole["spec"]), "there they help people"


class Namespaces:
    """A gateway whose namespaces may refuse: `refusals` is how often each still does."""

    def __init__(self, refusals: dict[str, int]):
        self.refusals = refusals
        self.there = {name: ["i0"] for name in (*refusals, "lab")}

    async def iterations(self, namespace: str) -> list[dict[str, Any]]:
        if self.refusals.get(namespace, 0):
            self.refusals[namespace] -= 1
            raise ApiException(status=403, reason="Forbidden")
        created = {"creationTimestamp": "2026-01-01T12:00:00Z"}
        metadata = [{"namespace": namespace, "name": name, "uid": namespace} for name in self.there[namespace]]
        return [{"metadata": it | created} for it in metadata]

    async def runs(self, namespace: str) -> list[dict[str, Any]]:
        return []

    async def remove(self, resource: Any) -> None:
        self.there[resource.namespace].remove(resource.name)


async def uninstall(gateway: Namespaces, monkeypatch: pytest.MonkeyPatch, refused_s: float) -> int:
    hook = runpy.run_path(str(CHART / "files" / "uninstall.py"))
    main = hook["main"]
    main.__globals__.update(Gateway=lambda client: gateway, connect=lambda: None, REFUSED_S=refused_s)
    monkeypatch.setenv("DPE_NAMESPACES", ",".join(gateway.there))

    async def at_once(seconds: float) -> None:
        return None

    monkeypatch.setattr(asyncio, "sleep", at_once)
    return int(await main(60))


async def test_an_uninstall_passes_over_a_namespace_that_is_gone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Namespaces({"gone": 1_000_000})
    assert await uninstall(gateway, monkeypatch, refused_s=0.05) == 0
    assert gateway.there["lab"] == []
    told = capsys.readouterr().out
    assert "namespace gone is left out" in told
    assert "nobody could look into gone" in told


async def test_an_uninstall_waits_for_a_namespace_that_refuses_while_the_api_server_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Namespaces({"slow": 2})
    assert await uninstall(gateway, monkeypatch, refused_s=30) == 0
    assert gateway.there == {"slow": [], "lab": []}
    assert "left out" not in capsys.readouterr().out
