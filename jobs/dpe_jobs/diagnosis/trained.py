"""What trained a model, by the lineage of the manifests: such rows are never asked as a probe.

Pictures are told by their exact pixels, however they are encoded, and rows by their ids. What is gone is told in the
log: its rows cannot be recognised any more.
"""

import hashlib
import io
import logging
import tempfile
from array import array
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.lineage.walk import sample_files, walk
from dpe_jobs.questions import IMAGE_FORMATS, batch_rows, open_parquet
from dpe_jobs.store import Store

log = logging.getLogger(__name__)

Hashes = NDArray[np.uint64]


def _id_hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _picture_hash(image: bytes) -> int:
    with Image.open(io.BytesIO(image), formats=IMAGE_FORMATS) as opened:
        return int(pixel_digest(opened)[:16], 16)


def _contains(hashes: Hashes, value: int) -> bool:
    place = int(np.searchsorted(hashes, np.uint64(value)))
    return place < len(hashes) and int(hashes[place]) == value


class Trained:
    """Pictures and ids of training samples, in 16 bytes a sample.

    64 bits of each hash: among 10^6 samples and 10^6 probe rows one row is left out by accident with probability 1e-7.
    """

    def __init__(self, pictures: "array[int]", ids: "array[int]") -> None:
        self._pictures: Hashes = np.unique(np.frombuffer(pictures, dtype=np.uint64))
        self._ids: Hashes = np.unique(np.frombuffer(ids, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._ids)

    def holds(self, name: str, image: bytes) -> bool:
        """Whether the model was trained on a row of this id or on this picture."""
        if not len(self._ids):
            return False
        return _contains(self._ids, _id_hash(name)) or _contains(self._pictures, _picture_hash(image))


def nothing() -> Trained:
    """No training data."""
    return Trained(array("Q"), array("Q"))


def trained_on(store: Store, model_uri: str) -> Trained:
    """Everything that trained a model. One file is on disk and one batch of pictures in memory at a time."""
    pictures, ids = array("Q"), array("Q")
    for ancestor in walk(store, model_uri):
        if ancestor.gone and ancestor.child is not None:
            log.warning("%s trained %s and is gone: its rows are not recognised", ancestor.uri, ancestor.child)
        if not ancestor.is_data:
            continue
        for uri, output in sample_files(ancestor):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "samples.parquet"
                store.download(uri, path, output.sha256)
                with open_parquet(path) as file:
                    _collect(file, pictures, ids)
    found = Trained(pictures, ids)
    if len(found):
        log.info("%d samples trained %s: their pictures are not asked", len(found), model_uri)
    return found


def _collect(file: pq.ParquetFile, pictures: "array[int]", ids: "array[int]") -> None:
    for batch in file.iter_batches(batch_rows(file), columns=["id", "image"]):
        for row in batch.to_pylist():
            ids.append(_id_hash(row["id"]))
            pictures.append(_picture_hash(row["image"]["bytes"]))
