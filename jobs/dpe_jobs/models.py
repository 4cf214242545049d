"""`python -m dpe_jobs model FOLDER --to s3://BUCKET/MODEL`: upload a Hugging Face model folder as a base model.

With the manifest that is written last the model is checked wherever it is downloaded, and can be cached. What was
interrupted is simply run again. It reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and DPE_S3_SECRET_KEY.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.artifacts import Manifest
from dpe_api.names import MANIFEST, Exit
from dpe_jobs.commands import address, carry_out
from dpe_jobs.importing.cli import connect
from dpe_jobs.runtime import BadConfig
from dpe_jobs.serving.fetch import check
from dpe_jobs.store import Store, join, sha256_file

_UPLOADS = 4  # files at once


def model_files(folder: Path) -> list[Path]:
    """What belongs to the model: not what is hidden or written for people, and nothing of folders inside."""
    names = (MANIFEST, "README.md")
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.name not in names)


def publish_model(store: Store, folder: Path, uri: str) -> bool:
    """Upload the model. False: it is there already. BadData: it is no model. BadConfig: something else is there."""
    check(str(folder), folder)
    files = model_files(folder)
    there = store.manifest(uri)
    if there is not None:
        if {(o.path, o.sha256) for o in there.outputs} == {(path.name, sha256_file(path)) for path in files}:
            return False
        raise BadConfig("ModelExists", f"{uri} holds another model, which iterations may name: choose a new folder")
    ours = {join(uri, path.name) for path in files}
    others = [info.uri for info in store.list(uri) if info.uri not in ours]
    if others:
        raise BadConfig("NotEmpty", f"{uri} holds other things, {others[0]} first: choose a new folder")
    with ThreadPoolExecutor(_UPLOADS) as pool:
        outputs = list(pool.map(lambda path: store.upload(path, join(uri, path.name)), files))
    store.publish(uri, Manifest(stage="model", created_at=datetime.now(UTC), outputs=outputs))
    return True


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("folder", metavar="FOLDER", type=Path, help="as save_pretrained writes it")
    it.add_argument("--to", metavar="S3_URI", required=True, help="s3://BUCKET/FOLDER, new or empty")
    it.add_argument("--region", default="us-east-1", help="of the bucket (default: %(default)s)")
    return it


def main(argv: Sequence[str]) -> Exit:
    """0; 65 no model, 78 a command or an environment to mend, 75 the store is away."""
    arguments = parser().parse_args(argv)
    uploaded = carry_out(
        lambda: publish_model(connect(arguments.region), arguments.folder, address(arguments.to)),
        "the model has no manifest yet: run the same command again",
    )
    if isinstance(uploaded, Exit):
        return uploaded
    print(f"{arguments.to}: {'uploaded' if uploaded else 'is there already'}")
    return Exit.DONE
