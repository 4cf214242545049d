"""Values drawn from the CustomResourceDefinition's own schema, and good ones with something changed in them."""

import copy
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

ODD_TEXTS = st.sampled_from(
    ["", " ", "\u0000", "a" * 5000, "../..", "{{x}}", "$(reboot)", "s3://", "NaN", "é\u202e", "0"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ODD_TEXTS
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def _number(schema: Schema) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        return st.integers(low, high if high is not None else 2**31)
    return st.floats(
        low,
        high,
        exclude_min=bool(schema.get("exclusiveMinimum")),
        exclude_max=bool(schema.get("exclusiveMaximum")),
        allow_nan=False,
        allow_infinity=False,
    )


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Whatever the types, bounds and patterns of a structural schema let pass; its rules may still refuse it."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            required = set(schema.get("required", []))
            of = {name: values(inner) for name, inner in schema["properties"].items()}
            needed = {name: inner for name, inner in of.items() if name in required}
            return st.fixed_dictionaries(needed, optional={n: v for n, v in of.items() if n not in required})
        case "object":
            inner = schema.get("additionalProperties")
            return st.dictionaries(st.text(max_size=8), values(inner) if isinstance(inner, dict) else JSON, max_size=3)
        case "array":
            most = min(schema.get("maxItems", 3), max(schema.get("minItems", 0), 3))
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return st.booleans()
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=False).filter(
                lambda text: len(text) <= schema.get("maxLength", 10**6)
            )
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 30), 30))
    return JSON


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [way] if way else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*way, key))
    return found


@st.composite
def mutations(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """A good document in which one to three values are replaced, removed or added."""
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = places(document)
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        place = document
        for step in way:
            place = place[step]
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            place[last] = draw(JSON)
        elif what == "remove":
            del place[last]
        elif isinstance(place, dict):
            place[draw(st.text(min_size=1, max_size=8))] = draw(JSON)
        else:
            place.append(draw(JSON))
    return document
