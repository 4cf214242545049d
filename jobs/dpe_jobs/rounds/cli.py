"""`python -m dpe_jobs run-page URI`: run.html of all rounds up to an iteration.

URI is the s3:// folder of the iteration's artifacts: `status.artifacts`, or the `artifacts` of a round of a DPERun.
Every evaluation writes the page beside its report; this writes it anew. Reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and
DPE_S3_SECRET_KEY.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.names import Exit, Stage
from dpe_jobs.commands import address, carry_out
from dpe_jobs.importing.cli import connect
from dpe_jobs.rounds import page
from dpe_jobs.rounds.read import earlier_rounds
from dpe_jobs.runtime import BadData


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs run-page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("uri", metavar="URI", help="s3:// folder of an iteration's artifacts")
    it.add_argument("--out", type=Path, default=Path(page.PAGE), help="file to write (%(default)s)")
    it.add_argument("--region", default="us-east-1", help="of the object store (%(default)s)")
    return it


def main(argv: Sequence[str]) -> Exit:
    """0; 65 no evaluation there, 78 a command or an environment to mend, 75 the store is away."""
    arguments = parser().parse_args(argv)

    def write() -> Exit:
        root = address(arguments.uri).removesuffix(f"/{Stage.EVALUATION}")
        rounds = earlier_rounds(connect(arguments.region), root)
        if not rounds:
            raise BadData(
                "NotFound", f"{root} holds no finished evaluation: name the folder of an iteration's artifacts"
            )
        page.write(rounds, arguments.out, created_at=datetime.now(UTC))
        print(f"{arguments.out}: {len(rounds)} rounds")
        return Exit.DONE

    return carry_out(write, "the page was not written")
