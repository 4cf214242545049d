import os
import subprocess
import sys
from pathlib import Path

import tests.groups

INI = """
[pytest]
addopts = -n 2 --dist loadscope --no-loadscope-reorder -p no:cacheprovider -p no:asyncio --import-mode=importlib
"""
CONFTEST = """
from pathlib import Path
from tests import groups

groups.TESTS = Path(__file__).parent

def pytest_xdist_make_scheduler(config, log):
    return groups.Groups(config, log)
"""
HARMLESS = """
def test_first(): pass
def test_second(): pass
"""
DEADLY = """
import os, signal

def test_before(): pass
def test_deadly(): os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
"""
CHECKOUT = Path(tests.groups.__file__).parents[1]


def test_a_worker_that_dies_fails_the_test_it_died_of_once_and_all_others_still_run(tmp_path):
    (tmp_path / "pytest.ini").write_text(INI)
    for folder, text in {"one": HARMLESS, "two": HARMLESS, "last": DEADLY}.items():
        (tmp_path / "suite" / folder).mkdir(parents=True)
        (tmp_path / "suite" / folder / f"test_{folder}.py").write_text(text)
    (tmp_path / "suite" / "conftest.py").write_text(CONFTEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suite/one", "suite/two", "suite/last"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 failed, 6 passed" in done.stdout, done.stdout + done.stderr
    assert "crashed while running 'suite/last/test_last.py::test_deadly'" in done.stdout
