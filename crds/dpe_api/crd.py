"""The CustomResourceDefinition, generated from the models.

`python -m dpe_api.crd` writes it into crds/ and into the chart, `--check` only says whether they are up to date.
"""

import json
import re
import sys
from typing import Any

import yaml

from dpe_api.base import ApiModel
from dpe_api.generated import generate
from dpe_api.names import GROUP, KIND, PLURAL, VERSION
from dpe_api.spec import Spec, immutability_rule
from dpe_api.status import Status

FILES = ("crds/dpe.dev_dpeiterations.yaml", "charts/dpe/crds/dpe.dev_dpeiterations.yaml")


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
        out["additionalProperties"] = structural(schema["additionalProperties"], definitions)
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


def _status() -> dict[str, Any]:
    status = _schema(Status)
    status.pop("required", None)
    # kept verbatim: an older operator's status must never be refused or pruned by a newer schema
    status["properties"]["resolved"]["properties"]["spec"] = {
        "type": "object",
        "description": "The spec with every section filled in.",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return status


def _columns() -> list[dict[str, Any]]:
    """What `kubectl get dpei` prints."""

    def column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": path, **more}

    return [
        column("Phase", ".status.phase"),
        column("Stage", ".status.stage"),
        column("Before", ".status.accuracyBefore"),
        column("After", ".status.accuracyAfter"),
        column("Accepted", '.status.conditions[?(@.type=="ModelAccepted")].status'),
        column("Queue", ".status.queue.position", "integer", priority=1),
        column("Reason", '.status.conditions[?(@.type=="Accepted")].reason', priority=1),
        column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _root_rules() -> list[dict[str, str]]:
    """CEL rules that need the name or the status beside the spec."""
    return [
        {
            "rule": "size(self.metadata.name) <= 40",
            "message": "metadata.name must have at most 40 characters: the names of its Jobs are made from it",
        },
        {
            "rule": "self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
            "message": "metadata.name must consist of lower case letters, digits and '-': a Service is named after it",
        },
        immutability_rule(),
    ]


def crd() -> dict[str, Any]:
    """The CRD as a dict."""
    schema = {
        "type": "object",
        "description": "One turn of diagnostic-driven progressive evolution (arXiv 2602.22859).",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _schema(Spec),
            "status": _status(),
        },
        "x-kubernetes-validations": _root_rules(),
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(),
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": "dpeiteration",
        "shortNames": ["dpei"],
        "categories": ["dpe", "all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def text() -> str:
    """The CRD as YAML."""
    plain = json.loads(json.dumps(crd()))  # enums to strings
    head = "# Generated from crds/dpe_api by `make generate`: edit the models, not this file.\n"
    return head + yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=120)


def main() -> int:
    """Write the files of a checkout; with --check exit code 1 when they are not up to date."""
    return generate(FILES, text(), check="--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
