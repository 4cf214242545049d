import threading

import pytest

from dpe_jobs.importing import ahead
from dpe_jobs.importing.convert import BadRow
from dpe_jobs.importing.rows import Fault, Row, SourceBreaksOff


def rows(count: int, cells: dict | None = None):
    return (Row(n, f"line {n}", cells or {}) for n in range(count))


def test_rows_come_in_order_whichever_is_finished_first(monkeypatch):
    monkeypatch.setattr(ahead, "THREADS", 2)
    released = threading.Event()

    def work(row: Row) -> int:
        if row.number == 0:
            assert released.wait(60)  # until another thread has done a later row
        if row.number == 1:
            released.set()
        return row.number

    assert [(row.number, made) for row, made in ahead.convert(rows(50), work)] == [(n, n) for n in range(50)]


def test_a_bad_row_is_given_and_any_other_error_raised():
    def work(row: Row) -> int:
        if row.number == 1:
            raise BadRow([Fault("a", "b")])
        if row.number == 3:
            raise OSError("disk")
        return row.number

    made = ahead.convert(rows(9), work)
    assert next(made)[1] == 0
    assert isinstance(next(made)[1], BadRow)
    assert next(made)[1] == 2
    with pytest.raises(OSError, match="disk"):
        next(made)


def test_what_came_before_a_break_is_given_first():
    def broken():
        yield from rows(3)
        raise SourceBreaksOff(Row(3, "line 3"), "torn")

    made = ahead.convert(broken(), lambda row: row.number)
    assert [next(made)[0].number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceBreaksOff):
        next(made)


@pytest.mark.parametrize(("megabytes", "most"), [(0, 2 * 2 + 1), (40, 2), (100, 1)])
def test_no_more_rows_are_held_than_fit(monkeypatch, megabytes, most):
    monkeypatch.setattr(ahead, "THREADS", 2)
    monkeypatch.setattr(ahead, "size_of", lambda _: megabytes << 20)
    read = widest = 0

    def count():
        nonlocal read
        for row in rows(30):
            read += 1
            yield row

    for given, _ in enumerate(ahead.convert(count(), lambda row: row.number)):
        widest = max(widest, read - given)
    assert widest == most


def test_the_size_of_cells():
    assert ahead.size_of({"a": "xx", "b": {"bytes": b"yyy", "path": None}, "c": ["z", 1]}) == 6
