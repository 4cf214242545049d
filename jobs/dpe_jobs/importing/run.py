"""Read a source row by row, check each, write what is good, and publish it when not too much is bad.

Memory holds a few rows, a row group that is being written, and nothing that grows with the source: ids and offsets are
kept on disk. The scratch folder (TMPDIR) holds one part, that index, and one file of a source that lies in a bucket.
"""

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.artifacts import InputRef, Manifest
from dpe_jobs.importing import arrow, columns, json_rows, tsv
from dpe_jobs.importing.ahead import convert
from dpe_jobs.importing.columns import Rules
from dpe_jobs.importing.convert import BadRow, Converter
from dpe_jobs.importing.detect import Format, detect
from dpe_jobs.importing.files import BucketFiles, DiskFiles, Files, digest
from dpe_jobs.importing.images import Images
from dpe_jobs.importing.index import Index
from dpe_jobs.importing.parts import Parts
from dpe_jobs.importing.report import ImportReport, Tally
from dpe_jobs.importing.rows import Fault, Row, SourceBreaksOff
from dpe_jobs.importing.target import BAD_ROWS, REPORT, BucketTarget, FolderTarget, Publication
from dpe_jobs.questions import Question
from dpe_jobs.runtime import BadData, package_versions
from dpe_jobs.store import Store

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    source: str
    rules: Rules
    to: str | None = None
    """None: check only."""
    format: Format | None = None
    split: str | None = None
    images: str | None = None
    """Where image paths lead from; None: where the source lies."""
    max_bad: int = 0
    part_bytes: int = 256 << 20
    restart: bool = False
    report: Path | None = None
    """Folder for import.json and bad-rows.jsonl, beside those that lie with the data."""


def _is_bucket(address: str) -> bool:
    return address.startswith("s3://")


class _Import:
    """One run: what it reads, where it writes, what it has found so far."""

    def __init__(self, options: Options, store: Callable[[], Store], scratch: Path) -> None:
        self._options, self._scratch = options, scratch
        self._connect = store
        self.files = self._open(options.source)
        self.source = detect(self.files, options.format, options.split)
        first = self.source.names[0]
        self.rules = columns.settle(options.rules, self.source.format, self._columns(first))
        is_tsv = self.source.format is Format.TSV
        images = Images(
            self._open(options.images) if options.images else self.files, self._referred if is_tsv else None
        )
        self._converter = Converter(self.rules, images, letters_first=is_tsv)
        self._ids = Index(scratch / "ids.sqlite")
        self._references: tsv.References | None = None
        self._lock = threading.Lock()  # rows are converted in several threads
        self.inputs: list[InputRef] = []

    def _open(self, address: str) -> Files:
        if _is_bucket(address):
            return BucketFiles(self._connect(), address, self._scratch)
        return DiskFiles(Path(address))

    def target(self, to: str) -> Publication:
        """Claim the place to publish at."""
        target = BucketTarget(self._connect(), to) if _is_bucket(to) else FolderTarget(Path(to))
        return Publication(target, restart=self._options.restart)

    def _columns(self, name: str) -> list[str] | None:
        """Columns of a table; None for JSON, whose objects have each their own."""
        path = self.files.local(name)
        if self.source.format is Format.TSV:
            return tsv.columns(path, name)
        if self.source.format in (Format.JSON, Format.JSONL):
            return None
        return arrow.columns(path)

    def _referred(self, cell: str) -> str:
        """The image cell of another row of a TSV."""
        id_column, name = self.rules.columns.get("id"), self.source.names[0]
        if id_column is None:
            raise ValueError("names another row, and the rows have no ids")
        with self._lock:
            if self._references is None:
                index = Index(self._scratch / "references.sqlite")
                image_column = self.rules.columns["image"]
                self._references = tsv.References(self.files.local(name), name, id_column, image_column, index)
            return self._references.image(cell)

    def _rows(self) -> Iterator[Row]:
        """Every row of every file."""
        number = 0
        for name in self.source.names:
            self.inputs.append(InputRef(uri=self.files.address(name), sha256=digest(self.files, name)))
            for row in self._rows_of(name, number):
                yield row
                number = row.number + 1

    def _rows_of(self, name: str, first: int) -> Iterator[Row]:
        path = self.files.local(name)
        match self.source.format:
            case Format.TSV:
                return tsv.rows(path, name)
            case Format.JSON:
                return json_rows.array(path, name)
            case Format.JSONL:
                return json_rows.lines(path, name)
            case Format.PARQUET | Format.ARROW:
                return arrow.rows(path, name, first, columns.wanted(self.rules))

    def questions(self) -> Iterator[tuple[Row, list[Question] | BadRow]]:
        """Every row with its questions, whose ids no row before had, or with what is wrong with it."""
        for row, made in convert(self._rows(), self._converter.questions):
            faults = [] if isinstance(made, BadRow) else self._taken(row, made)
            yield row, BadRow(faults) if faults else made

    def _taken(self, row: Row, made: list[Question]) -> list[Fault]:
        """Ids that earlier rows have."""
        column, faults = self.rules.columns.get("id", "id"), []
        for question in made:
            before = self._ids.add(question.id, row.number)
            if before is not None:
                faults.append(Fault(column, f"{question.id!r} is row {before}'s id too"))
        return faults

    def report(self, tally: Tally) -> ImportReport:
        """What was found so far."""
        rules, source = self.rules, self.source
        return tally.fill(
            ImportReport(
                source=[self.files.address(name) for name in source.names],
                format=source.format,
                split=source.split,
                columns=dict(rules.columns),
                facets=dict(rules.facets),
                turns_left_out=self._converter.turns_left_out,
            )
        )


def _read(run: _Import, tally: Tally, parts: Parts | None, max_bad: int) -> SourceBreaksOff | None:
    """Check every row and write the good ones, until there are too many bad ones; what ended the source too early."""
    told = time.monotonic()
    try:
        for row, made in run.questions():
            tally.rows += 1
            if isinstance(made, BadRow):
                tally.fault(row, made.faults)
                continue
            for question in made:
                tally.good(question)
                if parts is not None and tally.bad <= max_bad:
                    parts.add(question)
            if time.monotonic() - told >= PROGRESS_INTERVAL_S:
                told = time.monotonic()
                log.info("%d rows, %d bad, %d MiB of images", tally.rows, tally.bad, tally.image_bytes >> 20)
    except SourceBreaksOff as error:
        tally.rows += 1
        tally.fault(error.row, [error.fault])
        return error
    return None


def _refusal(tally: Tally, broken: SourceBreaksOff | None, options: Options) -> BadData | None:
    """Why nothing is published; None when it can be."""
    if broken is not None:
        return broken
    if tally.bad > options.max_bad:
        where = options.to or options.report
        listed = f", all listed in {where}/{BAD_ROWS}" if where else ""
        return BadData(
            "BadRows",
            f"{tally.bad} of {tally.rows} rows are bad{listed}: mend them, or leave out that many with --max-bad",
        )
    if not tally.questions:
        return BadData("EmptyQuestionSet", "the source holds no rows: name another one")
    return None


def _manifest(run: _Import, report: ImportReport, publication: Publication) -> Manifest:
    return Manifest(
        stage="dataset",
        created_at=datetime.now(UTC),
        inputs=run.inputs,
        outputs=publication.outputs,
        summary={
            "rows": report.questions,
            "bad": report.bad,
            "answerTypes": report.answer_types,
            "categories": report.categories,
        },
        versions=package_versions("dpe", "pyarrow", "pillow"),
    )


def _write_report(report: ImportReport, scratch: Path, also: Path | None) -> list[Path]:
    path, bad_rows = scratch / REPORT, scratch / BAD_ROWS
    path.write_text(report.model_dump_json(by_alias=True, indent=1), encoding="utf-8")
    written = [path, bad_rows] if report.bad else [path]
    if also is not None:
        also.mkdir(parents=True, exist_ok=True)
        for file in written:
            shutil.copy(file, also)
    return written


Outcome = tuple[ImportReport, BadData | None]
"""What was found, and why it was refused."""


def _publish(run: _Import, publication: Publication, options: Options, scratch: Path) -> Outcome:
    """Bring parts and reports, then the manifest; on a refusal the reports alone."""
    with (
        Tally(scratch / BAD_ROWS) as tally,
        Parts(scratch, options.part_bytes, publication.take, categories=run.rules.with_categories) as parts,
    ):
        broken = _read(run, tally, parts, options.max_bad)
        refusal = _refusal(tally, broken, options)
        if refusal is None:
            parts.close()
    report = run.report(tally)
    if refusal is not None:
        publication.drop()
    else:
        report = report.model_copy(update={"published": True, "parts": len(publication.outputs)})
    for file in _write_report(report, scratch, options.report):
        publication.take(file)
    if refusal is not None:
        publication.release()
    else:
        publication.publish(_manifest(run, report, publication))
    return report, refusal


def _check(run: _Import, options: Options, scratch: Path) -> Outcome:
    with Tally(scratch / BAD_ROWS) as tally:
        broken = _read(run, tally, None, options.max_bad)
    report = run.report(tally)
    _write_report(report, scratch, options.report)
    return report, _refusal(tally, broken, options)


def import_set(options: Options, store: Callable[[], Store]) -> ImportReport:
    """Import, or check only. BadData: the source is bad, and nothing was published; BadConfig: mend the command."""
    with tempfile.TemporaryDirectory(prefix="dpe-import-") as folder:
        scratch = Path(folder)
        run = _Import(options, store, scratch)
        if options.to is None:
            report, refusal = _check(run, options, scratch)
        else:
            publication = run.target(options.to)
            try:
                report, refusal = _publish(run, publication, options, scratch)
            except BaseException:
                publication.abandon()
                raise
    if refusal is not None:
        raise refusal
    return report
