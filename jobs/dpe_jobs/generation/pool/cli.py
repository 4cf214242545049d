"""`python -m dpe_jobs index s3://BUCKET/POOL`: make a pool of images searchable. docs/pool.md has all of it.

POOL is a folder of Parquet files or WebDataset tar shards. The index lies in POOL/_index; the images stay where they
are. Run it again when shards were added: only those are looked at. It reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and
DPE_S3_SECRET_KEY, and DPE_ENDPOINT_KEY_EMBEDDER where the embedding endpoint wants a key.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from dpe_api.endpoints import Endpoint, SecretKeyRef, key_variable
from dpe_api.names import Exit
from dpe_jobs.commands import address, carry_out
from dpe_jobs.generation.pool.build import IndexReport, Options, index_pool
from dpe_jobs.generation.pool.embed import Embedder
from dpe_jobs.generation.pool.shards import FIELDS, Columns
from dpe_jobs.importing.cli import connect
from dpe_jobs.runtime import BadConfig

EMBEDDER = "embedder"


def _column(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals or field not in FIELDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=COLUMN with a field of {', '.join(FIELDS)}")
    return field, column


def _fact(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    return name, column if equals else name


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return share


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("pool", metavar="POOL", help="s3://BUCKET/FOLDER")
    it.add_argument(
        "--column",
        type=_column,
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help=f"fields: {', '.join(FIELDS)}",
    )
    it.add_argument(
        "--fact", type=_fact, action="append", default=[], metavar="[NAME=]COLUMN", help="known exactly of each image"
    )
    it.add_argument("--embed-url", metavar="URL", help="OpenAI-compatible API with /embeddings, /v1 included")
    it.add_argument("--embed-model", metavar="NAME", help="its model")
    it.add_argument("--embed-concurrency", type=int, default=8, metavar="N", help="requests in flight (%(default)s)")
    it.add_argument(
        "--max-bad-share",
        type=_share,
        default=0.05,
        metavar="S",
        help="publish though so many are broken (%(default)s)",
    )
    it.add_argument("--report", type=Path, metavar="FILE", help="also write the report there, as JSON")
    it.add_argument("--region", default="us-east-1", help="of the object store (default: %(default)s)")
    return it


def _embedder(arguments: argparse.Namespace) -> Embedder | None:
    if arguments.embed_url is None and arguments.embed_model is None:
        return None
    if arguments.embed_url is None or arguments.embed_model is None:
        raise BadConfig("NoEmbedder", "--embed-url and --embed-model go together: give both or none")
    has_key = bool(os.environ.get(key_variable(EMBEDDER)))
    try:
        endpoint = Endpoint(
            name=EMBEDDER,
            url=arguments.embed_url,
            model=arguments.embed_model,
            max_concurrency=arguments.embed_concurrency,
            api_key_secret_ref=SecretKeyRef(name="environment", key=EMBEDDER) if has_key else None,
        )
    except ValidationError as error:
        complaint = error.errors()[0]
        raise BadConfig("BadEmbedder", f"--embed-{complaint['loc'][0]}: {complaint['msg']}") from error
    return Embedder(endpoint)


def describe(report: IndexReport, pool: str) -> str:
    """The counts, for a person."""
    if not report.published:
        return f"{pool}: nothing new; {report.images} images of {report.shards} shards are indexed in {report.folder}"
    lines = [
        f"{pool}: {report.images} images of {report.shards} shards ({report.new_shards} new), {report.duplicates} "
        f"duplicates left out, {report.look_alikes} look like another one; index {report.folder}"
    ]
    if report.bad:
        lines.append(f"{report.bad} of {report.rows} rows are broken and left out, all listed in bad-rows.jsonl there:")
        lines += [f"  {count} {reason}" for reason, count in report.bad_by_reason.items()]
    return "\n".join(lines)


def _index(arguments: argparse.Namespace) -> IndexReport:
    columns = Columns(named=dict(arguments.column), facts=dict(arguments.fact))
    options = Options(address(arguments.pool), columns, _embedder(arguments), arguments.max_bad_share)
    return index_pool(options, connect(arguments.region))


def main(argv: Sequence[str]) -> Exit:
    """0; 65 a bad pool, 78 a command or an environment to mend, 75 store or endpoint are away."""
    arguments = parser().parse_args(argv)
    report = carry_out(lambda: _index(arguments), "nothing was published; what was indexed so far is found again")
    if isinstance(report, Exit):
        return report
    if arguments.report is not None:
        arguments.report.write_text(report.model_dump_json(by_alias=True, indent=1), encoding="utf-8")
    for entry in report.first_bad if report.published else []:
        print(f"{entry.place}, {entry.field}: {entry.reason}", file=sys.stderr)
    print(describe(report, arguments.pool))
    return Exit.DONE
