"""`python -m dpe_jobs lineage URI`: from a model back to every sample, and to the wrong answers that asked for it.

URI is the folder of a model, or of the iteration that trained it. Reads DPE_S3_ENDPOINT, DPE_S3_ACCESS_KEY and
DPE_S3_SECRET_KEY.
"""

import argparse
from collections.abc import Iterator, Sequence

from dpe_api.artifacts import Manifest
from dpe_api.names import Exit, Stage
from dpe_jobs.commands import address, carry_out
from dpe_jobs.importing.cli import connect
from dpe_jobs.lineage.samples import Counts, Sample, read_samples
from dpe_jobs.lineage.walk import Ancestor, walk
from dpe_jobs.runtime import BadData
from dpe_jobs.store import Store, join


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m dpe_jobs lineage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("uri", metavar="URI", help="s3:// folder of a model, or of an iteration's artifacts")
    it.add_argument("--samples", action="store_true", help="list every sample, not only their counts")
    it.add_argument("--region", default="us-east-1", help="of the object store (%(default)s)")
    return it


def model_folder(store: Store, uri: str) -> str:
    """The model that is meant: the folder itself, or the one that an iteration or its training wrote.

    BadData: there is nothing.
    """
    uri = uri.rstrip("/")
    for folder in (uri, join(uri, "model"), join(uri, Stage.TRAINING, "model")):
        manifest = store.manifest(folder)
        if manifest is not None and manifest.stage == "model":
            return folder
    if store.find(join(uri, "config.json")) is not None:
        return uri  # a base that somebody uploaded without a manifest
    raise BadData("NotFound", f"{uri} holds no model: name the folder of a model, or that of an iteration's artifacts")


def lines(store: Store, uri: str, *, samples: bool) -> Iterator[str]:
    """The report, line by line."""
    for found in walk(store, model_folder(store, uri)):
        if found.is_data:
            yield from _data(store, found, samples)
        else:
            yield from _model(found)


def _model(found: Ancestor) -> Iterator[str]:
    kind = "model" if found.child is None else "trained from"
    yield f"{kind} {found.uri}"
    if found.sha256 is not None:
        yield f"  manifest sha256 {found.sha256}"
    if found.gone:
        yield "  it is gone: nothing is known of what is behind it"
    elif found.manifest is None:
        yield "  a base: it has no manifest, nothing is known of what is behind it"
    else:
        yield from _made(found.manifest)
        if not found.manifest.inputs:
            yield "  a base: its manifest names no origin"


def _made(manifest: Manifest) -> Iterator[str]:
    own = manifest.iteration
    by = "uploaded" if own is None else f"by iteration {own.namespace}/{own.name} ({own.uid})"
    attempt = f", attempt {manifest.attempt}" if manifest.attempt else ""
    seed = "" if manifest.seed is None else f", seed {manifest.seed}"
    yield f"  {by}{attempt}, {manifest.created_at:%Y-%m-%d %H:%M:%S}{seed}"
    if manifest.versions:
        yield "  versions: " + ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))


def _data(store: Store, found: Ancestor, list_them: bool) -> Iterator[str]:
    assert found.manifest is not None
    yield f"trained on {found.uri}"
    yield f"  for {found.child}"
    yield f"  manifest sha256 {found.sha256}"
    yield from _made(found.manifest)
    for origin in found.manifest.inputs:
        if origin.uri.endswith(f"/{Stage.DIAGNOSIS}"):
            yield f"  asked for by {origin.uri}"
    counts = Counts()
    for sample in read_samples(store, found):
        counts.add(sample)
        if list_them:
            yield "  " + _line(sample)
    yield from _counted(counts)


def _line(sample: Sample) -> str:
    rate = "" if sample.pass_rate is None else f" pass rate {sample.pass_rate:.2f}"
    asked = ", ".join(sample.examples) or "no example"
    source = sample.source_url or sample.source or "unknown"
    said = f"{_plain(sample.question)} -> {_plain(sample.answer)}"
    return f"{sample.id} [{_plain(sample.category)}] {said};{rate} asked for by {asked}; from {_plain(source)}"


def _plain(text: str) -> str:
    """One printable line: what models and the web wrote must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _counted(counts: Counts) -> Iterator[str]:
    total = sum(counts.samples.values())
    sources = ", ".join(f"{_plain(name)} {number}" for name, number in counts.sources.most_common())
    yield f"  {total} samples: {sources}"
    for category, number in sorted(counts.samples.items()):
        examples = counts.asked[category]
        yield f"    {_plain(category)}: {number} samples, asked for by {len(examples)} diagnosis examples"


def main(argv: Sequence[str]) -> Exit:
    """0; 65 no such model or a sample file that is not as promised, 78 a command to mend, 75 the store is away."""
    arguments = parser().parse_args(argv)

    def tell() -> Exit:
        for line in lines(connect(arguments.region), address(arguments.uri), samples=arguments.samples):
            print(line)
        return Exit.DONE

    return carry_out(tell, "the rest is not told")
