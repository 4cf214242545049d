"""Upload the example's probe, test set, pool with its index, and base model: `python -m examples.shapes.upload`.

A second run changes nothing. Reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and DPE_S3_SECRET_KEY; the bucket must exist.
"""

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from examples.shapes.data import output_file, write_all

from dpe_api.artifacts import Manifest
from dpe_api.launch import StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, MANIFEST
from dpe_jobs.generation.pool.build import Options, index_pool
from dpe_jobs.models import model_files
from dpe_jobs.store import Store, StoreError, join

BASE_DIR = Path(__file__).parent / "base"  # as base_model.py, which imports torch
ENV_ENDPOINT = "DPE_S3_ENDPOINT"


def publish_folder(store: Store, folder: Path, uri: str, manifest: Manifest) -> bool:
    """Make `uri` hold exactly the files of `manifest`, found in `folder`. False: it does already.

    While it changes, the artifact has no manifest, so that nobody reads half of it.
    """
    there = store.manifest(uri)
    if there is not None and there.outputs == manifest.outputs:
        return False
    store.delete([join(uri, MANIFEST)])
    wanted = {output.path for output in manifest.outputs}
    store.delete(info.uri for info in store.list(uri) if info.uri.removeprefix(uri.rstrip("/") + "/") not in wanted)
    for output in manifest.outputs:
        store.upload(folder / output.path, join(uri, output.path))
    store.publish(uri, manifest)
    return True


def model_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder; what is written for people stays behind."""
    outputs = [output_file(path) for path in model_files(folder)]
    return Manifest(stage="model", created_at=datetime.now(UTC), outputs=outputs)


def upload(store: Store, root: str) -> dict[str, bool]:
    """Upload everything below `root`; by address, whether anything had to be written."""
    changed = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, manifest in write_all(Path(scratch)).items():
            uri = join(root, "data", "shapes", name)
            changed[uri] = publish_folder(store, Path(scratch) / name, uri, manifest)
    pool = join(root, "data", "shapes", "pool")
    changed[f"{pool}/_index"] = index_pool(Options(pool), store).published
    uri = join(root, "models", "shapes-base")
    changed[uri] = publish_folder(store, BASE_DIR, uri, model_manifest(BASE_DIR))
    return changed


def main() -> int:
    """Exit code 0 when everything is in place, 2 when the environment is incomplete, 1 when the store refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="s3://dpe", help="bucket and folder (default: %(default)s)")
    root = parser.parse_args().root
    missing = [name for name in (ENV_ENDPOINT, ENV_ACCESS_KEY, ENV_SECRET_KEY) if not os.environ.get(name)]
    if missing:
        print(f'not set: {", ".join(missing)}; with the embedded cluster: eval "$(make -s env)"', file=sys.stderr)
        return 2
    try:
        changed = upload(Store.from_env(StoreAddress(endpoint=os.environ[ENV_ENDPOINT])), root)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    for uri, written in changed.items():
        print(f"{uri}  {'uploaded' if written else 'is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
