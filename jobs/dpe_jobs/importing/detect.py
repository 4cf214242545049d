"""What a source is, told from its content; and which of its files make up the wanted split."""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from dpe_jobs.importing.files import Files
from dpe_jobs.runtime import BadConfig, BadData

_HEAD = 1 << 20  # bytes looked at


class Format(StrEnum):
    """How a source is written."""

    PARQUET = "parquet"
    ARROW = "arrow"
    JSON = "json"
    JSONL = "jsonl"
    TSV = "tsv"


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one format, in the order in which their rows count."""

    format: Format
    names: tuple[str, ...]
    split: str | None = None


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SHARD = re.compile(r"(?:^|/)([\w.]+)-\d{5}-of-\d{5}[^/]*\.parquet$")


def split_of(name: str) -> str | None:
    """The split that a Parquet file belongs to, as `datasets` tells it from the path; None when it says nothing.

    `data/dev_easy-00000-of-00002.parquet` is of `dev_easy`; else a keyword in the path counts, from the file upwards.
    """
    shard = _SHARD.search(name)
    if shard:
        return shard[1]
    for part in reversed(PurePosixPath(name.removesuffix(".parquet")).parts):
        for word in re.split(r"[-._ ]+", part):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def format_of(path: Path) -> Format:
    """The format of one file, by its first bytes. BadData when it is none of ours."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return Format.ARROW
    for magic, kind, mend in (
        (b"\x1f\x8b", "gzip", "unpack it first"),
        (b"PK", "zip", "unpack it first"),
        (b"\x28\xb5\x2f\xfd", "zstd", "unpack it first"),
        (b"\xff\xfe", "UTF-16", "convert it to UTF-8"),
        (b"\xfe\xff", "UTF-16", "convert it to UTF-8"),
    ):
        if head.startswith(magic):
            raise BadData("UnknownFormat", f"{path.name} is {kind}: {mend}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return Format.JSON
    if text.startswith(b"{"):
        return Format.JSONL
    if b"\t" in text.split(b"\n", 1)[0]:
        return Format.TSV
    raise BadData(
        "UnknownFormat",
        f"{path.name} is neither Parquet, Arrow, JSON, JSON lines nor tab-separated: convert it, or name its --format",
    )


def _choose(found: dict[str | None, list[str]], split: str | None) -> tuple[str | None, list[str]]:
    """The wanted split among those there are; BadConfig when it is not clear which."""
    there = ", ".join(sorted(str(s) for s in found if s is not None))
    if split is None:
        if len(found) > 1:
            raise BadConfig("SeveralSplits", f"the source has several splits ({there}): choose one with --split")
        return next(iter(found.items()))
    if split not in found:
        raise BadConfig("NoSuchSplit", f"--split {split}: the source has {there or 'no splits'}: correct it")
    return split, found[split]


def _saved(files: Files, names: list[str], split: str | None) -> Source:
    """A folder that `save_to_disk` wrote: state.json in each split's folder lists its files in order."""
    found: dict[str | None, list[str]] = {}
    for state in (n for n in names if PurePosixPath(n).name == "state.json"):
        folder = PurePosixPath(state).parent
        try:
            entries = json.loads(files.local(state).read_bytes())["_data_files"]
            listed = [(folder / entry["filename"]).as_posix() for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise BadData("BadState", f"{state} lists no data files: write the set with save_to_disk again") from error
        missing = [n for n in listed if n not in names]
        if missing:
            raise BadData("MissingFile", f"{state} lists {missing[0]}, which is not there: copy the whole folder")
        found[folder.name or None] = listed
    chosen, listed = _choose(found, split)
    return Source(Format.ARROW, tuple(listed), chosen)


def _sharded(names: list[str], split: str | None) -> Source:
    found: dict[str | None, list[str]] = {}
    for name in names:
        found.setdefault(split_of(name), []).append(name)
    chosen, listed = _choose(found, split)
    return Source(Format.PARQUET, tuple(listed), chosen)


def detect(files: Files, wanted: Format | None, split: str | None) -> Source:
    """What there is to read. BadConfig when that is not clear, BadData when it is none of the formats."""
    names = files.names()
    if wanted in (None, Format.ARROW) and any(PurePosixPath(n).name == "state.json" for n in names):
        return _saved(files, names, split)
    parquet = [n for n in names if n.endswith(".parquet")]
    if wanted in (None, Format.PARQUET) and parquet and len(names) > 1:
        return _sharded(parquet, split)
    if split is not None:
        raise BadConfig("NoSuchSplit", f"--split {split}: the source has no splits: leave it out")
    if len(names) > 1:
        endings = (".tsv", ".json", ".jsonl", ".arrow") if wanted is None else (f".{wanted}",)
        names = [n for n in names if n.endswith(endings)]
    if len(names) != 1:
        listed = ", ".join(names[:5]) or "none"
        raise BadConfig("NoSingleFile", f"the folder holds {len(names)} files to import ({listed}): name one file")
    return Source(wanted or format_of(files.local(names[0])), (names[0],))
