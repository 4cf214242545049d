"""How often each image of a pool was used, by what was published: no counter that a lost pod could leave wrong."""

import tempfile
from collections import Counter
from pathlib import Path

from dpe_api.names import Stage
from dpe_jobs.lineage.walk import sample_files, walk
from dpe_jobs.questions import open_parquet
from dpe_jobs.store import Store


def count(store: Store, model_uri: str, pool_uri: str) -> Counter[str]:
    """Samples made of each image of a pool, by its id, that a model and its ancestors were trained on.

    An edited sample is a use of each of its originals. What a round made whose model was rejected is in no lineage, and
    counts as unused.
    """
    source = f"pool:{pool_uri.rstrip('/')}"
    used: Counter[str] = Counter()
    for ancestor in walk(store, model_uri):
        if ancestor.manifest is None or ancestor.manifest.stage != Stage.GENERATION:
            continue
        for uri, output in sample_files(ancestor):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "samples.parquet"
                store.download(uri, path, output.sha256)
                used.update(_in_file(path, source))
    return used


def _in_file(path: Path, source: str) -> Counter[str]:
    used: Counter[str] = Counter()
    with open_parquet(path) as file:
        # files of releases before pools have no origins
        if not any(file.schema.column(i).path.startswith("provenance.origins.") for i in range(len(file.schema))):
            return used
        for batch in file.iter_batches(columns=["provenance.origins"]):
            for row in batch.column("provenance").to_pylist():
                origins = (row or {}).get("origins") or ()
                # one sample is one use, though it shows the image twice
                used.update({origin["id"] for origin in origins if origin["source"] == source})
    return used
