"""The CustomResourceDefinitions, generated from the models.

`python -m dpe_api.crd` writes them into crds/ and into the chart, `--check` only says whether they are up to date.
"""

import json
import re
import sys
from typing import Any

import yaml

from dpe_api.base import ApiModel
from dpe_api.generated import generate
from dpe_api.names import GROUP, KIND, PLURAL, RUN_KIND, RUN_PLURAL, VERSION
from dpe_api.run_spec import LONGEST_NAME, RunSpec, run_immutability_rule
from dpe_api.run_status import RunStatus
from dpe_api.spec import Spec, immutability_rule
from dpe_api.status import Status


class _Dumper(yaml.SafeDumper):
    """Quotes y and n: they are texts to PyYAML, but truth values to the YAML reader of Kubernetes."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))

_DROPPED = ("title", "additionalProperties", "discriminator", "const")


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of pydantic as a structural schema of Kubernetes: no $ref, no null, no titles."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        beside = {k: v for k, v in schema.items() if k != "$ref"}
        return structural({**target, **beside}, definitions)
    if "anyOf" in schema:
        (only,) = [s for s in schema["anyOf"] if s.get("type") != "null"]
        beside = {
            k: v for k, v in schema.items() if k not in ("anyOf", "default") or (k == "default" and v is not None)
        }
        return structural({**only, **beside}, definitions)
    out = {k: v for k, v in schema.items() if k not in _DROPPED and not k.startswith("$")}
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if isinstance(schema.get("additionalProperties"), dict):
        values = structural(schema["additionalProperties"], definitions)
        # a map whose values may be anything has no schema of them: Kubernetes wants a type or this
        out |= {"additionalProperties": values} if values else {"x-kubernetes-preserve-unknown-fields": True}
    for bound in ("minimum", "maximum"):
        exclusive = "exclusive" + bound.capitalize()
        if exclusive in out:  # OpenAPI 3.0 has it as a flag beside the bound
            out[bound] = out.pop(exclusive)
            out[exclusive] = True
    if "properties" in schema:
        out["properties"] = {k: structural(v, definitions) for k, v in schema["properties"].items()}
    if "items" in schema:
        out["items"] = structural(schema["items"], definitions)
    return out


def _schema(model: type[ApiModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    return structural(schema, schema.get("$defs", {}))


def _without_defaults(schema: Any) -> Any:
    """For a status, which its operator writes in full: with a default the field would be in every object that an older
    operator reads, which decides on no status that it does not understand.
    """
    if isinstance(schema, list):
        return [_without_defaults(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # what has a type is a schema; what has none may be the fields, one of which may have that name
    kept = {k: v for k, v in schema.items() if k != "default" or "type" not in schema}
    return {key: _without_defaults(value) for key, value in kept.items()}


def _with_conditions(status: dict[str, Any]) -> dict[str, Any]:
    status = _without_defaults(status)
    status.pop("required", None)
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return status


def _status() -> dict[str, Any]:
    status = _with_conditions(_schema(Status))
    # kept verbatim: an older operator's status must never be refused or pruned by a newer schema
    status["properties"]["resolved"]["properties"]["spec"] = {
        "type": "object",
        "description": "The spec with every section filled in.",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return status


def _run_spec() -> dict[str, Any]:
    """The run's spec: rules of the template's sections speak of spec.template, where these are."""
    spec = _schema(RunSpec)
    spec["properties"]["template"] = _below_template(spec["properties"]["template"])
    return spec


def _below_template(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_below_template(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("spec.", "spec.template.")
        if key == "message" and isinstance(value, str)
        else _below_template(value)
        for key, value in schema.items()
    }


def _column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def _columns() -> list[dict[str, Any]]:
    """What `kubectl get dpei` prints."""
    return [
        _column("Phase", ".status.phase"),
        _column("Stage", ".status.stage"),
        _column("Before", ".status.accuracyBefore"),
        _column("After", ".status.accuracyAfter"),
        _column("Accepted", '.status.conditions[?(@.type=="ModelAccepted")].status'),
        _column("Queue", ".status.queue.position", "integer", priority=1),
        _column("Reason", '.status.conditions[?(@.type=="Accepted")].reason', priority=1),
        _column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _run_columns() -> list[dict[str, Any]]:
    """What `kubectl get dper` prints."""
    return [
        _column("Rounds", ".status.progress"),
        _column("Phase", ".status.phase"),
        _column("First", ".status.accuracyFirst"),
        _column("Latest", ".status.accuracyLatest"),
        _column("Reason", '.status.conditions[?(@.status=="True")].reason'),
        _column("Model", ".status.model.uri", priority=1),
        _column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _name_rules(longest: int, because: str) -> list[dict[str, Any]]:
    """Of new objects alone: one that was there before a rule could else be neither changed nor deleted any more."""
    return [
        {
            "rule": f"oldSelf.hasValue() || size(self.metadata.name) <= {longest}",
            "optionalOldSelf": True,
            "message": f"metadata.name must have at most {longest} characters: the names of its {because} are made "
            "from it",
        },
        {
            # Services could not begin with a digit before Kubernetes 1.36
            "rule": "oldSelf.hasValue() || self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",
            "optionalOldSelf": True,
            "message": "metadata.name must begin with a letter and consist of lower case letters, digits and '-': a "
            "Service is named after it",
        },
    ]


def _definition(
    kind: str,
    plural: str,
    short: str,
    description: str,
    spec: dict[str, Any],
    status: dict[str, Any],
    rules: list[dict[str, Any]],
    columns: list[dict[str, Any]],
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": rules,
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["dpe", "all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def crd() -> dict[str, Any]:
    """The CRD of DPEIteration as a dict."""
    return _definition(
        KIND,
        PLURAL,
        "dpei",
        "One turn of diagnostic-driven progressive evolution (arXiv 2602.22859).",
        _schema(Spec),
        _status(),
        [*_name_rules(40, "Jobs"), immutability_rule()],
        _columns(),
    )


def run_crd() -> dict[str, Any]:
    """The CRD of DPERun as a dict."""
    return _definition(
        RUN_KIND,
        RUN_PLURAL,
        "dper",
        "Several rounds of diagnostic-driven progressive evolution, one DPEIteration after the other.",
        _run_spec(),
        _with_conditions(_schema(RunStatus)),
        [*_name_rules(LONGEST_NAME, "DPEIterations"), run_immutability_rule()],
        _run_columns(),
    )


def text(definition: dict[str, Any]) -> str:
    """A CRD as YAML."""
    plain = json.loads(json.dumps(definition))  # enums to strings
    head = "# Generated from crds/dpe_api by `make generate`: edit the models, not this file.\n"
    return head + yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=120)


def files() -> dict[str, str]:
    """Names of the files of a checkout, with what they hold."""
    texts = {f"{GROUP}_{PLURAL}.yaml": text(crd()), f"{GROUP}_{RUN_PLURAL}.yaml": text(run_crd())}
    return {f"{folder}/{name}": found for folder in ("crds", "charts/dpe/crds") for name, found in texts.items()}


def main() -> int:
    """Write the files of a checkout; with --check exit code 1 when one of them is not up to date."""
    check = "--check" in sys.argv[1:]
    return max(generate((name,), content, check=check) for name, content in files().items())


if __name__ == "__main__":
    sys.exit(main())
