"""What a model came from: its manifest names the model that it was trained from and the samples, and so on, to a base.

Whoever asks what trained a model asks here: `python -m dpe_jobs lineage`, and the diagnosis, which leaves such rows
out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dpe_api.artifacts import Manifest, OutputFile
from dpe_api.names import Stage
from dpe_jobs.store import NotFound, Store, join

MODELS = ("model", str(Stage.TRAINING))
DATA = ("dataset", str(Stage.GENERATION))


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One artifact of a lineage."""

    uri: str
    child: str | None
    """The model that was made of it; None: the one that was asked about."""
    sha256: str | None
    """As the child's manifest has it."""
    manifest: Manifest | None
    """None: it has none, as a base that somebody uploaded, or it is gone."""
    gone: bool = False
    """Nothing is left of it."""

    @property
    def is_data(self) -> bool:
        """Samples or a question set; else a model."""
        return self.manifest is not None and self.manifest.stage in DATA


def _is_empty(store: Store, uri: str) -> bool:
    try:
        return not store.list(uri)
    except NotFound:  # its bucket is gone as well
        return True


def walk(store: Store, model_uri: str) -> Iterator[Ancestor]:
    """A model, then what it and its ancestors were made of, each artifact once, and a model before its own origins.

    Of what has no manifest nothing further is known.
    """
    known = {model_uri}
    own = store.manifest(model_uri)
    gone = own is None and _is_empty(store, model_uri)
    waiting = [Ancestor(model_uri, None, None, own, gone)]
    while waiting:
        found = waiting.pop(0)
        yield found
        if found.manifest is None or found.is_data:
            continue
        for origin in found.manifest.inputs:
            if origin.uri in known or not origin.uri.startswith("s3://"):
                continue
            known.add(origin.uri)
            manifest = store.manifest(origin.uri)
            if manifest is None or manifest.stage in (*MODELS, *DATA):
                missing = manifest is None and _is_empty(store, origin.uri)
                waiting.append(Ancestor(origin.uri, found.uri, origin.sha256, manifest, missing))


def sample_files(ancestor: Ancestor) -> Iterator[tuple[str, OutputFile]]:
    """Addresses of the Parquet files of data that somebody was trained on."""
    assert ancestor.manifest is not None
    generated = ancestor.manifest.stage == Stage.GENERATION
    for output in ancestor.manifest.outputs:
        # what generation rejected, `rejected.parquet`, trained nobody
        if output.path.endswith(".parquet") and (not generated or output.path.startswith(("samples/", "warmup/"))):
            yield join(ancestor.uri, output.path), output
