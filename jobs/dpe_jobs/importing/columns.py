"""Which column of the source each field of a question comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpe_api.artifacts import AnswerType
from dpe_jobs.importing.answers import AnswerIs
from dpe_jobs.importing.detect import Format
from dpe_jobs.importing.tsv import choice_columns
from dpe_jobs.runtime import BadConfig

FIELDS = (
    *("id", "image", "question", "answer", "answer_type", "choices", "category"),
    *("facets", "source", "licence", "hint", "conversations"),
)
REQUIRED = ("id", "image", "question", "answer", "category")
MISSING = object()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the command line says about making questions of rows."""

    columns: Mapping[str, str]
    """Field -> column; "" for a field that the source does not have."""
    facets: Mapping[str, str]
    """Facet -> column."""
    category: str | None = None
    """Of every row."""
    with_categories: bool = True
    answer_type: AnswerType | None = None
    """Of every row."""
    answer_is: AnswerIs | None = None
    source: str | None = None
    licence: str | None = None
    first_turn_only: bool = False


def _needed(rules: Rules) -> list[str]:
    without = {"category"} if rules.category is not None or not rules.with_categories else set()
    return [f for f in REQUIRED if f not in without and rules.columns.get(f) != ""]


def settle(rules: Rules, kind: Format, there: Sequence[str] | None) -> Rules:
    """The rules with the format's own column names filled in; `there` are the source's columns, None: they vary by row.

    BadConfig names every column that is missing and how to name it.
    """
    default = {field: field for field in FIELDS}
    facets = dict(rules.facets)
    if kind is Format.TSV:
        default |= {"id": "index", "choices": ",".join(choice_columns(list(there or ())))}
        if "image" not in (there or ()) and "image_path" in (there or ()):
            default["image"] = "image_path"
        if "l2-category" in (there or ()) and rules.columns.get("category") != "l2-category":
            facets.setdefault("l2-category", "l2-category")
    else:
        default.pop("hint")
    columns = default | dict(rules.columns)
    if not rules.with_categories or rules.category is not None:
        columns["category"] = ""
    if rules.answer_type is not None:
        columns["answer_type"] = ""
    if there is not None:
        columns = _those_there(columns, rules, facets, there, kind)
    return Rules(
        columns={f: c for f, c in columns.items() if c},
        facets=facets,
        category=rules.category,
        with_categories=rules.with_categories,
        answer_type=rules.answer_type,
        answer_is=rules.answer_is,
        source=rules.source,
        licence=rules.licence,
        first_turn_only=rules.first_turn_only,
    )


def _those_there(
    columns: dict[str, str], rules: Rules, facets: Mapping[str, str], there: Sequence[str], kind: Format
) -> dict[str, str]:
    """Without the columns that the source lacks, unless they are needed or were asked for."""

    def known(names: str) -> bool:
        return bool(names) and all(n in there or n.split(".")[0] in there for n in names.split(","))

    talks = known(columns["conversations"]) and not known(columns["question"])
    needed = [f for f in _needed(rules) if not (talks and f in ("question", "answer"))]
    asked = [f for f, c in rules.columns.items() if c]
    lacking = {f: columns[f] for f in (*needed, *asked) if columns.get(f) and not known(columns[f])}
    lacking |= {f"facet {name}": column for name, column in facets.items() if not known(column)}
    if lacking:
        listed = ", ".join(f"{c} ({f})" if c != f else c for f, c in lacking.items())
        mends = ["name it with --column FIELD=COLUMN"]
        if "id" in lacking:
            mends.append("number the rows with --column id=")
        if "category" in lacking:
            mends.append("give all rows one --category NAME, or leave it to spec.probe.categorise with --no-category")
        raise BadConfig(
            "NoSuchColumn", f"the {kind} source has no column {listed}; it has {', '.join(there)}: {'; '.join(mends)}"
        )
    if talks:
        columns |= {"question": "", "answer": ""}
    return {f: c for f, c in columns.items() if known(c)}


def wanted(rules: Rules) -> list[str]:
    """The source's top-level columns that settled rules look at."""
    names = [n for c in (*rules.columns.values(), *rules.facets.values()) for n in c.split(",")]
    return sorted({name for n in names for name in (n, n.split(".")[0])})


def cell(cells: Mapping[str, Any], column: str) -> Any:
    """The value of a column; `a.b` looks inside the column a. MISSING when there is none."""
    if column in cells:
        return cells[column]
    value: Any = cells
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value
