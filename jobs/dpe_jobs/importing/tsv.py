"""Rows of a tab-separated file with a header, as VLMEvalKit writes them with pandas."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

from dpe_jobs.importing.index import Index
from dpe_jobs.importing.rows import Fault, Row
from dpe_jobs.importing.text import MAX_LINE, Lines, LineTooLong
from dpe_jobs.runtime import BadData

_REFERENCE = re.compile(r"\d{1,18}")  # an image cell that names another row's index


def _reader(lines: Lines) -> "Iterator[list[str]]":
    csv.field_size_limit(MAX_LINE)  # characters; the module's default is smaller than most images
    return csv.reader(lines, delimiter="\t", strict=True)


def _header(lines: Lines, name: str) -> list[str]:
    try:
        header = next(_reader(lines))
    except (StopIteration, csv.Error, LineTooLong) as error:
        raise BadData("BadHeader", f"{name} has no header ({error}): its first line must name the columns") from error
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise BadData("BadHeader", f"{name} names the column {twice[0]!r} twice: rename one")
    return header


def columns(path: Path, name: str) -> list[str]:
    """The header."""
    with path.open("rb") as handle:
        return _header(Lines(handle), name)


def _swallowed(cells: list[str], width: int) -> bool:
    """Whether a cell holds line ends and as many tabs as a row has: a quote was opened and not closed."""
    return width > 1 and any("\n" in cell and cell.count("\t") >= width - 1 for cell in cells)


def rows(path: Path, name: str) -> Iterator[Row]:
    """All rows. One whose cells do not fit the header has a fault, and reading goes on at the next one.

    A quote that is never closed would make the file's rest one cell: reading goes on behind its first line.
    """
    with path.open("rb") as handle:
        lines = Lines(handle)
        header = _header(lines, name)
        reader, number = _reader(lines), 0
        while True:
            lines.mark()
            begins, fault, cells = lines.line + 1, None, list[str]()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except LineTooLong as error:
                fault = Fault("row", str(error))
            except csv.Error as error:
                what = f"a quote is opened and not closed before line {lines.line}: double or remove it, "
                why = "a carriage return that ends no line" if str(error).startswith("new-line") else error
                fault = Fault("row", f"{what if len(lines.starts) > 1 else ''}not tab-separated: {why}")
            if fault is None and not cells:
                continue  # an empty line
            if fault is None and _swallowed(cells, len(header)):
                fault = Fault("row", f"a quote is opened and closed only in line {lines.line}: double or remove it")
            if fault is not None and len(lines.starts) > 1:
                lines.back_to_second()
            if fault is None and len(cells) != len(header):
                fault = Fault("row", f"{len(cells)} cells, the header has {len(header)}")
            found = {} if fault else dict(zip(header, cells, strict=True))
            yield Row(number, f"{name} line {begins}", found, fault)
            number += 1


def is_reference(cell: str) -> bool:
    """Whether an image cell is not an image but the index of the row that has it."""
    return _REFERENCE.fullmatch(cell.strip()) is not None


class References:
    """Images by the index of their row, for cells that refer to another row. One more pass over the file, when needed.

    Offsets lie in an index on disk: memory does not grow with the file.
    """

    def __init__(self, path: Path, name: str, id_column: str, image_column: str, index: Index) -> None:
        self._path, self._index, self._image = path, index, image_column
        with path.open("rb") as handle:
            lines = Lines(handle)
            self._header = _header(lines, name)
            reader = _reader(lines)
            while True:
                lines.mark()
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except (LineTooLong, csv.Error):
                    if len(lines.starts) > 1:
                        lines.back_to_second()
                    continue
                if len(cells) == len(self._header):
                    found = dict(zip(self._header, cells, strict=True))
                    if not is_reference(found[image_column]):
                        index.add(found[id_column], lines.starts[0])

    def image(self, reference: str) -> str:
        """The image cell of the row with this index; ValueError when it has none of its own."""
        offset = self._index.find(reference.strip())
        if offset is None:
            raise ValueError(f"refers to row {reference.strip()}, which has no image of its own")
        with self._path.open("rb") as handle:
            lines = Lines(handle)
            lines.seek(offset)
            cells = next(_reader(lines))
        return cells[self._header.index(self._image)]


def choice_columns(header: list[str]) -> list[str]:
    """The columns A, B, C ... of a header, as far as they follow each other."""
    found = []
    for letter in ascii_uppercase:
        if letter not in header:
            break
        found.append(letter)
    return found
