import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from dpe_jobs.scratch import Tables

CLOSED_IN_THE_MIDST = """
import sqlite3, threading
from contextlib import closing
from dpe_jobs.scratch import Tables

for _ in range(100):
    with closing(Tables("CREATE TABLE t (n INTEGER)")) as tables:
        for n in range(2000):
            tables.change("INSERT INTO t VALUES (?)", (n,))
        asking = threading.Event()

        def ask():
            while True:
                asking.set()
                try:
                    tables.rows("SELECT n FROM t WHERE n % 7 = ?", (3,))
                    for _ in tables.pages("SELECT n FROM t WHERE n % 5 = ?", (3,), 100):
                        pass
                except sqlite3.ProgrammingError:
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        asking.wait()
    thread.join()
"""


def test_tables_closed_while_a_thread_asks_are_an_error_there_and_not_the_end_of_the_process():
    run = [sys.executable, "-X", "faulthandler", "-c", CLOSED_IN_THE_MIDST]
    done = subprocess.run(
        run, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_pages_hold_every_row_once_and_let_others_write_between_them():
    with closing(Tables("CREATE TABLE t (n INTEGER PRIMARY KEY)")) as tables:
        for n in range(250):
            assert tables.change("INSERT INTO t VALUES (?)", (n,)) == 1
        pages = tables.pages("SELECT n FROM t WHERE n >= ? AND n < 250", (0,), 100)
        seen = list(next(pages))
        writer = threading.Thread(target=tables.change, args=("INSERT INTO t VALUES (?)", (1000,)))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        for page in pages:
            assert len(page) <= 100
            seen += page
        assert [n for (n,) in seen] == list(range(250))
        assert tables.rows("SELECT count(*) FROM t") == [(251,)]
    with pytest.raises(sqlite3.ProgrammingError):
        tables.rows("SELECT n FROM t")
