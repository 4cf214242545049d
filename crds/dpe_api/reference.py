"""docs/reference.md, generated from the models: `python -m dpe_api.reference`, `--check` as for the CRD."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dpe_api.crd import crd, run_crd
from dpe_api.generated import generate
from dpe_api.names import API_VERSION

FILES = ("docs/reference.md",)

_BOUNDS = (
    ("minimum", "≥ "),
    ("maximum", "≤ "),
    ("minLength", "length ≥ "),
    ("maxLength", "length ≤ "),
    ("minItems", "items ≥ "),
    ("maxItems", "items ≤ "),
)


def _type(schema: Mapping[str, Any]) -> str:
    """The type as a person writes it; for a list, of its items."""
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return "list of " + _type(schema.get("items", {}))
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return "map of " + _type(schema["additionalProperties"])
    return str(schema.get("format") or schema.get("type", "object"))


def _default(schema: Mapping[str, Any], required: bool) -> str:
    value = schema.get("default")
    if value is None or isinstance(value, dict):
        return "required" if required else ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(schema: Mapping[str, Any]) -> str:
    found = []
    for key, sign in _BOUNDS:
        if key in schema:
            strict = schema.get("exclusive" + key.capitalize()) is True
            found.append((sign.replace("≥", ">").replace("≤", "<") if strict else sign) + f"{schema[key]}")
    return ", ".join(found)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") if "\\|" not in text else " ".join(text.split())


def _rows(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """One line per field, parents before children."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        cells = (
            f"`{where}`",
            _type(field),
            _default(field, name in required),
            _bounds(field),
            _cell(field.get("description", "")),
        )
        yield "| " + " | ".join(cells) + " |"
        yield from _rows(field, where)
        if field.get("type") == "array":
            yield from _rows(field.get("items", {}), where + "[]")


def _messages(schema: Mapping[str, Any]) -> Iterator[str]:
    """Messages of all CEL rules below a schema."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield f"- {rule['message']}"
    for field in schema.get("properties", {}).values():
        yield from _messages(field)
    if isinstance(schema.get("items"), dict):
        yield from _messages(schema["items"])


def _resource(definition: Mapping[str, Any], note: str, *, hide: str | None = None) -> Iterator[str]:
    """The lines of one resource. `hide`: a field of the spec whose own fields are those of another resource."""
    names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
    whole, short = version["schema"]["openAPIV3Schema"], names["shortNames"][0]
    spec, status = whole["properties"]["spec"], whole["properties"]["status"]
    if hide is not None:
        short_form = {**spec["properties"][hide], "properties": {}, "x-kubernetes-validations": []}
        spec = {**spec, "properties": {**spec["properties"], hide: short_form}}
        whole = {**whole, "properties": {**whole["properties"], "spec": spec}}
    table = ["| field | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    yield from (f"# {names['kind']} ({API_VERSION})", "")
    yield from (f"The same text is at hand in the cluster: `kubectl explain {short}.spec --recursive`.", "")
    yield from ("## spec", "", *table, *_rows(spec, ""), "", note, "")
    yield from ("## Rules checked at admission", "", *_messages(whole), "")
    yield from ("## status", "", *table, *_rows(status, ""), "")
    yield from (f"## Columns of `kubectl get {short}`", "")
    yield from (f"- {c['name']}: `{c['jsonPath']}`" for c in version["additionalPrinterColumns"])


def text() -> str:
    """The page."""
    lines = [
        "<!-- Generated from crds/dpe_api by `make generate`: edit the models, not this file. -->",
        *_resource(
            crd(),
            "With `model.iterationRef` a section left out is taken from that iteration, else from these defaults.",
        ),
        "",
        *_resource(
            run_crd(),
            "`template` holds what the spec of a DPEIteration holds, with the same rules, but for `model`, `suspend` "
            "and `ttlSecondsAfterFinished`, which are the run's.",
            hide="template",
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file of a checkout; with --check exit code 1 when it is not up to date."""
    return generate(FILES, text(), check="--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
