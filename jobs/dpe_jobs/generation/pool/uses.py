"""How often each image of a pool was used, by what was published: no counter that a lost pod could leave wrong."""

import tempfile
from collections import Counter
from pathlib import Path

from dpe_api.names import Stage
from dpe_jobs.diagnosis.trained import lineage
from dpe_jobs.questions import open_parquet
from dpe_jobs.store import Store, join


def count(store: Store, model_uri: str, pool_uri: str) -> Counter[str]:
    """Samples made of each image of a pool, by its id, that a model and its ancestors were trained on.

    An edited sample is a use of each of its originals. What a round made whose model was rejected is in no lineage, and
    counts as unused.
    """
    prefix = f"pool:{pool_uri.rstrip('/')} "
    used: Counter[str] = Counter()
    for uri, manifest in lineage(store, model_uri):
        if manifest.stage != Stage.GENERATION:
            continue
        for output in manifest.outputs:
            if not (output.path.startswith("samples/") and output.path.endswith(".parquet")):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "samples.parquet"
                store.download(join(uri, output.path), path, output.sha256)
                used.update(_in_file(path, prefix))
    return used


def _in_file(path: Path, prefix: str) -> Counter[str]:
    """Uses in one file of samples; those of releases before pools have no such column."""
    used: Counter[str] = Counter()
    with open_parquet(path) as file:
        for batch in file.iter_batches(columns=["provenance"]):
            for row in batch.column(0).to_pylist():
                ids = set((row or {}).get("image_ids") or ())
                used.update(name.removeprefix(prefix) for name in ids if name.startswith(prefix))
    return used
