"""Rows of a JSON array or of JSON lines, one object at a time."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ijson

from dpe_jobs.importing.rows import Fault, Row, SourceBreaksOff
from dpe_jobs.importing.text import Lines, LineTooLong


def _row(number: int, place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(number, place, value)
    return Row(number, place, fault=Fault("row", f"a {type(value).__name__}, not an object"))


def array(path: Path, name: str) -> Iterator[Row]:
    """The objects of an array. A number keeps its digits: 3.10 is read as Decimal("3.10")."""
    number = 0
    with path.open("rb") as handle:
        if handle.read(3) != b"\xef\xbb\xbf":
            handle.seek(0)
        try:
            for value in ijson.items(handle, "item"):
                yield _row(number, f"{name} row {number}", value)
                number += 1
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SourceBreaksOff(Row(number, f"{name} row {number}"), f"no JSON from here on ({reason})") from error


def lines(path: Path, name: str) -> Iterator[Row]:
    """One object per line; empty lines are none."""
    number = 0
    with path.open("rb") as handle:
        source = Lines(handle)
        while True:
            value: Any = None
            fault = None
            try:
                text = next(source)
                if not text.strip():
                    continue
                value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
            except StopIteration:
                return
            except LineTooLong as error:
                fault = Fault("row", str(error))
            except (ValueError, RecursionError) as error:
                fault = Fault("row", f"no JSON: {error}")
            place = f"{name} line {source.line}"
            yield _row(number, place, value) if fault is None else Row(number, place, fault=fault)
            number += 1


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
