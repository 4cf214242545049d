"""What a person says of samples before they are trained on: a table to mark up, and the marks applied.

With `spec.generation.review: required` a generation is first published as a draft, whole and immutable, with
`review.parquet` in it. Once it is accepted the generation proper is made of the draft and, if there is one, of
`reviewed.parquet` beside it: the same rows, each marked keep or drop.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dpe_api.artifacts import CategorySamples, GenerationSummary, InputRef, Manifest, OutputFile
from dpe_api.names import REVIEW, REVIEWED
from dpe_jobs.diagnosis.failures import readable
from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.gallery import SHOWN, Gallery, read
from dpe_jobs.generation.samples import FOLDERS, REJECTED, REJECTED_SCHEMA, WARMUP, concatenate, few_licences
from dpe_jobs.questions import (
    FEATURES,
    IMAGE_FORMATS,
    IMAGE_TYPE,
    STRING_FEATURE,
    batch_rows,
    hf_metadata,
    open_parquet,
)
from dpe_jobs.runtime import BadData, ProgressReporter
from dpe_jobs.store import Store, join

REASON = "Reviewed"
KEEP, DROP = "keep", "drop"
_BAD = "BadReview"
_COPIED = ("id", "image", "question", "answer", "category", "pass_rate")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("image", IMAGE_TYPE),
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("category", pa.string()),
        pa.field("pass_rate", pa.float64()),
        pa.field("verdict", pa.string()),  # null: to be marked keep or drop
        pa.field("remark", pa.string()),  # null; why, for whoever reads the rejections
    ],
    metadata=hf_metadata(
        {name: FEATURES.get(name, {"dtype": "float64", "_type": "Value"}) for name in _COPIED}
        | {"verdict": STRING_FEATURE, "remark": STRING_FEATURE}
    ),
)


def sample_outputs(outputs: Sequence[OutputFile]) -> list[OutputFile]:
    """The files of samples among what a generation published."""
    return [output for output in outputs if output.path.partition("/")[0] in FOLDERS]


def write(store: Store, artifact: str, samples: Sequence[OutputFile], path: Path) -> None:
    """Write the table to mark up: every sample, `verdict` and `remark` empty. One batch in memory at a time."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for output in samples:
            for batch in _batches(store, join(artifact, output.path), output.sha256, _COPIED):
                empty = [pa.nulls(batch.num_rows, pa.string())] * 2
                writer.write_table(pa.Table.from_arrays([*batch.columns, *empty], schema=SCHEMA))


def _batches(store: Store, uri: str, sha256: str | None, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        store.download(uri, path, sha256)
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_rows(file), columns=list(columns)):
                yield batch.select(list(columns))


@dataclass(frozen=True, slots=True)
class Draft:
    """A published draft, and the folder that the generation goes to."""

    store: Store
    uri: str
    manifest: Manifest
    output: str

    @property
    def samples(self) -> list[OutputFile]:
        """Its files of samples."""
        return sample_outputs(self.manifest.outputs)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a person marked."""

    dropped: Mapping[str, str]
    """Remarks by id of the samples to drop."""
    source: InputRef | None = None
    """reviewed.parquet; None: there is none, everything is kept."""


def read_marks(draft: Draft) -> Marks:
    """The marks beside a draft. BadData "BadReview" names row (from 0), column, value and mend."""
    store, uri = draft.store, join(draft.uri, REVIEWED)
    if not any(found.uri == uri for found in store.list(draft.uri)):
        return Marks({})
    known = {
        name
        for output in draft.samples
        for batch in _batches(store, join(draft.uri, output.path), output.sha256, ["id"])
        for name in batch["id"].to_pylist()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / REVIEWED
        sha256 = store.download(uri, path)
        marked = dict(_marked(path, uri, known))
    missing = known - marked.keys()
    if missing:
        raise BadData(_BAD, f"{uri} lacks {len(missing)} samples, {min(missing)!r} for one: give every row of {REVIEW}")
    if known and all(verdict == DROP for verdict, _ in marked.values()):
        raise BadData(
            _BAD, f"{uri} marks all {len(known)} samples {DROP}: keep some, or annotate the iteration with rejected"
        )
    dropped = {name: remark for name, (verdict, remark) in marked.items() if verdict == DROP}
    return Marks(dropped, InputRef(uri=uri, sha256=sha256))


def _marked(path: Path, uri: str, known: set[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Id, verdict and remark of each row."""
    try:
        file = open_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise BadData(_BAD, f"{uri} is no Parquet file ({error}): write it again from {REVIEW}") from error
    with file:
        there = file.schema_arrow.names
        missing = [name for name in ("id", "verdict") if name not in there]
        if missing:
            raise BadData(_BAD, f"{uri} has no column {', '.join(missing)}; it has {', '.join(there)}: copy {REVIEW}")
        seen: dict[str, int] = {}
        number = 0
        for batch in file.iter_batches(columns=[n for n in ("id", "verdict", "remark") if n in there]):
            for row in batch.to_pylist():
                name, verdict, where = row["id"], row["verdict"], f"{uri} row {number}, column"
                if name not in known:
                    raise BadData(
                        _BAD, f"{where} id is {name!r}, which is no sample of the draft: correct or remove it"
                    )
                if name in seen:
                    raise BadData(_BAD, f"{where} id is {name!r}, as in row {seen[name]}: remove one of them")
                if verdict not in (KEEP, DROP):
                    raise BadData(_BAD, f"{where} verdict is {verdict!r}: write {KEEP} or {DROP}")
                seen[name] = number
                number += 1
                yield name, (verdict, str(row.get("remark") or ""))


def apply(
    draft: Draft, marks: Marks, gallery: Gallery, scratch: Path, progress: ProgressReporter
) -> tuple[list[OutputFile], GenerationSummary]:
    """Put samples and rejections of a marked draft into its output, and the candidates to show into `gallery`.

    What was dropped is a rejection with reason "Reviewed". Doing it again after a kill does the same.
    """
    outputs: list[OutputFile] = []
    dropped: list[dict[str, Any]] = []
    for file in draft.samples:
        path = scratch / "samples.parquet"
        draft.store.download(join(draft.uri, file.path), path, file.sha256)
        mine = _without(path, marks.dropped)
        dropped += [{**row, WARMUP: file.path.startswith(f"{WARMUP}/")} for row in mine]
        if not mine or pq.read_metadata(path).num_rows:
            put = draft.store.upload(path, join(draft.output, file.path))
            outputs.append(put.model_copy(update={"path": file.path}))
        progress.advance()
    wanted = {join(draft.output, file.path) for file in outputs}
    # an earlier attempt may have had other marks
    there = [found for folder in FOLDERS for found in draft.store.list(join(draft.output, folder))]
    draft.store.delete(found.uri for found in there if found.uri not in wanted)
    for shown in read(draft.store.get(join(draft.uri, SHOWN))):
        remark = marks.dropped.get(shown.id)
        gallery.take(shown if remark is None else replace(shown, outcome=REASON, detail=_detail(remark)))
    outputs.append(_reject(draft, dropped, scratch))
    return outputs, _summary(GenerationSummary.model_validate(draft.manifest.summary), dropped)


def _reject(draft: Draft, dropped: Sequence[Mapping[str, Any]], scratch: Path) -> OutputFile:
    """Put the draft's rejections, and after them what was dropped."""
    earlier, more, whole = scratch / "earlier.parquet", scratch / "more.parquet", scratch / REJECTED
    (before,) = (output for output in draft.manifest.outputs if output.path == REJECTED)
    draft.store.download(join(draft.uri, REJECTED), earlier, before.sha256)
    rows = [{name: row[name] for name in REJECTED_SCHEMA.names} for row in dropped]
    pq.write_table(pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA), more)
    concatenate([earlier, more], whole)
    return draft.store.upload(whole, join(draft.output, REJECTED))


def _detail(remark: str) -> str:
    return readable(remark) or f"marked {DROP} in {REVIEWED}"


def _without(path: Path, remarks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Take rows out of a file of samples; what they leave behind: all but their pictures."""
    out, gone = path.with_suffix(".kept"), []
    with open_parquet(path) as file:
        if not any(n in remarks for b in file.iter_batches(columns=["id"]) for n in b["id"].to_pylist()):
            return []
        with pq.ParquetWriter(out, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(batch_rows(file)):
                keep = pa.array([name not in remarks for name in batch["id"].to_pylist()])
                gone += [_left(row, remarks) for row in batch.to_pylist() if row["id"] in remarks]
                writer.write_batch(batch.filter(keep))
    out.replace(path)
    return gone


def _left(row: Mapping[str, Any], remarks: Mapping[str, str]) -> dict[str, Any]:
    with Image.open(io.BytesIO(row["image"]["bytes"]), formats=IMAGE_FORMATS) as image:
        digest = pixel_digest(image.convert("RGB"))
    return {**row, "image": None, "image_sha256": digest, "reason": REASON, "detail": _detail(remarks[row["id"]])}


def _summary(draft: GenerationSummary, dropped: Sequence[Mapping[str, Any]]) -> GenerationSummary:
    """What is left of the draft's."""
    by_category = Counter(row["category"] for row in dropped)
    of_warmup = Counter(row["category"] for row in dropped if row[WARMUP])
    of_quotas = len(dropped) - of_warmup.total()

    def fewer(category: CategorySamples) -> CategorySamples:
        count = by_category[category.name]
        if not count:
            return category
        warmup = of_warmup[category.name]
        reason = REASON if count > warmup else None
        return category.model_copy(
            update={
                "kept": category.kept - count + warmup,
                "warmup": category.warmup - warmup,
                "rejected": category.rejected | {REASON: count},
                "shortfall_reason": category.shortfall_reason or reason,
            }
        )

    sources = Counter(draft.sources) - Counter(row["source"] for row in dropped)
    licences = Counter(draft.licences) - Counter(row["licence"] or "" for row in dropped)
    return draft.model_copy(
        update={
            "kept": draft.kept - of_quotas,
            "warmup": draft.warmup - of_warmup.total(),
            "shortfall": draft.shortfall + of_quotas,
            "rejected": draft.rejected | ({REASON: len(dropped)} if dropped else {}),
            "sources": dict(sorted(sources.items())),
            "licences": few_licences(licences),
            "categories": [fewer(category) for category in draft.categories],
        }
    )
