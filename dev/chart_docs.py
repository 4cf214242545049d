"""The chart's README and the descriptions in its schema, from the comments in values.yaml: `python -m dev.chart_docs`.

Comments are helm-docs': `# -- words` above a key, further lines `# words`. README.md.gotmpl is helm-docs' template; of
its directives only those that stand there are known. What comes out is what helm-docs 1.14 writes, byte by byte.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from dev.paths import CHECKOUT

CHART = CHECKOUT / "charts" / "dpe"
_TYPES = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "object", type(None): "string"}


@dataclass(frozen=True, slots=True)
class Row:
    """One value."""

    path: tuple[str, ...]
    default: Any
    description: str


def _comment(lines: list[str], line: int) -> str:
    """The `# --` comment that ends above a line; empty when there is none."""
    above: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        words = lines[line].lstrip().removeprefix("# ")
        if words.startswith("-- "):
            return " ".join([words.removeprefix("-- "), *above])
        above.insert(0, words)
    return ""


def rows(text: str) -> Iterator[Row]:
    """Values with a description, and leaves without one, in the order of the file."""
    lines = text.splitlines()

    def below(node: yaml.MappingNode, values: dict[str, Any], path: tuple[str, ...]) -> Iterator[Row]:
        for key, child in node.value:
            default, where = values[key.value], (*path, key.value)
            words = _comment(lines, key.start_mark.line)
            if isinstance(child, yaml.MappingNode) and default and not words:
                yield from below(child, default, where)
            else:
                yield Row(where, default, words)

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    yield from below(root, yaml.safe_load(text), ())


def table(found: list[Row]) -> str:
    """The section of values as helm-docs writes it."""
    out = ["## Values", "", "| Key | Type | Default | Description |", "|-----|------|---------|-------------|"]
    for row in sorted(found, key=lambda r: ".".join(r.path)):
        default = json.dumps(row.default, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        shown = "nil" if row.default is None else default
        out.append(f"| {'.'.join(row.path)} | {_TYPES[type(row.default)]} | `{shown}` | {row.description} |")
    return "\n".join(out)


def readme() -> str:
    """README.md, whole."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (CHART / "README.md.gotmpl").read_text()
    parts = {
        "chart.name": chart["name"],
        "chart.description": chart["description"],
        "chart.valuesSection": table(list(rows((CHART / "values.yaml").read_text()))),
    }
    for name, part in parts.items():
        text = text.replace(f'{{{{ template "{name}" . }}}}', part)
    return text


def schema() -> str:
    """values.schema.json with the values' descriptions; KeyError for a value that it does not know."""
    whole = json.loads((CHART / "values.schema.json").read_text())
    for row in rows((CHART / "values.yaml").read_text()):
        place = whole
        for name in row.path:
            if "$ref" in place:  # descriptions beside a shared definition
                place.setdefault("properties", {}).setdefault(name, {})
            place = place["properties"][name]
        place.pop("description", None)
        place["description"] = row.description
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _written(name: str) -> str | None:
    path = CHART / name
    return path.read_text() if path.exists() else None


FILES = {"README.md": readme, "values.schema.json": schema}


def main() -> int:
    """Write both files, or say which differs: exit code 1."""
    parser = argparse.ArgumentParser(prog="dev.chart_docs", description="The chart's README and schema descriptions.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args().check
    stale = [name for name, text in FILES.items() if text() != _written(name)]
    for name in stale:
        if check:
            print(f"charts/dpe/{name} differs from values.yaml: run `make generate`", file=sys.stderr)
        else:
            (CHART / name).write_text(FILES[name]())
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
