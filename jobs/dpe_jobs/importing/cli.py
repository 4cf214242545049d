"""`python -m dpe_jobs import SOURCE --to FOLDER`: make a question set of what you have. docs/probes.md has all of it.

SOURCE is a folder that `datasets` wrote (save_to_disk, or Parquet as on a hub), LLaVA's JSON or JSON lines, or a TSV of
VLMEvalKit; on disk or s3://. With s3:// it reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and DPE_S3_SECRET_KEY.
"""

import argparse
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dpe_api.artifacts import AnswerType
from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, Exit
from dpe_jobs.commands import carry_out
from dpe_jobs.importing.answers import AnswerIs
from dpe_jobs.importing.columns import FIELDS, Rules
from dpe_jobs.importing.detect import Format
from dpe_jobs.importing.report import ImportReport
from dpe_jobs.importing.run import Options, import_set
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import Store

ENV_ENDPOINT = "DPE_S3_ENDPOINT"


def _column(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals or field not in FIELDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=COLUMN with a field of {', '.join(FIELDS)}")
    return field, column


def _facet(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    return name, column if equals else name


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("source", metavar="SOURCE", help="file or folder, on disk or s3://BUCKET/PATH")
    where = it.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="FOLDER", help="s3://BUCKET/FOLDER, or a folder on disk; must be empty")
    where.add_argument("--check", action="store_true", help="read and check everything, write nothing")
    it.add_argument("--format", type=Format, choices=list(Format), help="instead of telling it from the content")
    it.add_argument("--split", help="which split, when the source has several")
    it.add_argument("--images", metavar="FOLDER", help="where image paths lead from (default: where SOURCE lies)")
    it.add_argument(
        "--column", type=_column, action="append", default=[], metavar="FIELD=COLUMN", help="FIELD= : it has none"
    )
    it.add_argument("--facet", type=_facet, action="append", default=[], metavar="[NAME=]COLUMN")
    category = it.add_mutually_exclusive_group()
    category.add_argument("--category", metavar="NAME", help="of every row, instead of the column")
    category.add_argument("--no-category", action="store_true", help="leave it to spec.probe.categorise")
    it.add_argument("--answer-type", type=AnswerType, choices=list(AnswerType), help="of every row")
    it.add_argument(
        "--answer-is", type=AnswerIs, choices=list(AnswerIs), help="how the answer names a choice; index: from 0"
    )
    it.add_argument("--first-turn", action="store_true", help="of a conversation, take the first question only")
    it.add_argument("--source-name", metavar="TEXT", help="column source of every row")
    it.add_argument("--licence", metavar="TEXT", help="column licence of every row")
    it.add_argument("--max-bad", type=int, default=0, metavar="N", help="publish though N rows are left out as bad")
    it.add_argument("--part-mib", type=int, default=256, metavar="N", help="size of the files (default: %(default)s)")
    it.add_argument("--restart", action="store_true", help="remove what a killed import left in the folder")
    it.add_argument("--report", type=Path, metavar="FOLDER", help="also write import.json and bad-rows.jsonl there")
    it.add_argument("--region", default="us-east-1", help="of the object store (default: %(default)s)")
    return it


def read_options(arguments: argparse.Namespace) -> Options:
    """Options of a parsed command line."""
    return Options(
        source=arguments.source,
        rules=Rules(
            columns=dict(arguments.column),
            facets=dict(arguments.facet),
            category=arguments.category,
            with_categories=not arguments.no_category,
            answer_type=arguments.answer_type,
            answer_is=arguments.answer_is,
            source=arguments.source_name,
            licence=arguments.licence,
            first_turn_only=arguments.first_turn,
        ),
        to=arguments.to,
        format=arguments.format,
        split=arguments.split,
        images=arguments.images,
        max_bad=max(0, arguments.max_bad),
        part_bytes=max(1, arguments.part_mib) << 20,
        restart=arguments.restart,
        report=arguments.report,
    )


def connect(region: str) -> Store:
    """The object store of the environment; BadConfig names what is missing."""
    missing = [name for name in (ENV_ENDPOINT, ENV_ACCESS_KEY, ENV_SECRET_KEY) if not os.environ.get(name)]
    if missing:
        raise BadConfig("NoStore", f"not set: {', '.join(missing)}: an s3:// address needs them")
    try:
        return Store.from_env(StoreAddress(endpoint=os.environ[ENV_ENDPOINT], region=region))
    except ValueError as error:
        raise BadConfig("StoreConfiguration", f"{ENV_ENDPOINT}: {error}") from error


def describe(report: ImportReport, to: str | None) -> str:
    """The counts, for a person."""
    lines = [
        f"{to or 'checked, nothing written'}: {report.questions} questions of {report.rows} rows, "
        f"{report.bad} bad rows left out, {report.parts} files",
        "answer types: " + ", ".join(f"{name} {count}" for name, count in report.answer_types.items()),
    ]
    if report.answer_types.get(AnswerType.JUDGE):
        lines.append("answers of type judge need an endpoint in spec.diagnosis.judge; --answer-type exact does without")
    if report.categories:
        lines.append("categories: " + ", ".join(f"{name} {count}" for name, count in report.categories.items()))
    if report.turns_left_out:
        lines.append(f"later turns left out: {report.turns_left_out}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> Exit:
    """0; 65 bad rows or a bad source, 78 a command or an environment to mend, 75 the store is away."""
    arguments = parser().parse_args(argv)
    report = carry_out(
        lambda: import_set(read_options(arguments), cache(lambda: connect(arguments.region))),
        "nothing was published",
    )
    if isinstance(report, Exit):
        return report
    print(describe(report, arguments.to))
    return Exit.DONE
