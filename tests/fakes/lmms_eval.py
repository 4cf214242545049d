"""The program lmms-eval: writes what the real one wrote, or says what it said; see tests/unit/lmms_eval/recorded."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from dpe_jobs.lmms_eval import program

RECORDED = Path(__file__).parents[1] / "unit" / "lmms_eval" / "recorded"

_PROGRAM = """#!{python}
import json, os, pathlib, shutil, sys

here = pathlib.Path(__file__).parent
if sys.argv[1:] == ["version"]:
    assert not [name for name in os.environ if name.startswith("DPE_")]
    print("\\x1b[1mlmms-eval " + (here / "version").read_text() + "\\x1b[0m\\nPython     3.11.2")
    sys.exit()
tasks, out = (sys.argv[sys.argv.index(name) + 1] for name in ("--tasks", "--output_path"))
if os.path.isdir(tasks):  # the real one looks for task files in it then
    sys.exit("AssertionError: No tasks specified, or no tasks found. Please verify the task names.")
(task,) = set(tasks.split(","))
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}) + "\\n")
words = pathlib.Path({recorded!r}) / "words" / (task + ".txt")
if words.exists():
    print(words.read_text())
    sys.exit()  # with status 0, as the real one
model = pathlib.Path({recorded!r}) / (here / "model").read_text()
print("Model Responding:  50%|#####     | 12/24 [00:00<00:00, 36.57it/s, tokens=216]", end="\\r", file=sys.stderr)
print("Postprocessing:  25%|##5       | 6/24 [00:00<00:00, 36.57it/s]", end="\\r", file=sys.stderr)
written = pathlib.Path(out) / "model"
written.mkdir(parents=True)
shutil.copy(model / (task + "_results.json"), written / "20260101_120000_results.json")
shutil.copy(model / (task + "_samples.jsonl"), written / ("20260101_120000_samples_" + task + ".jsonl"))
"""


class LmmsEval:
    """The program, installed in a folder where product code looks for it, with data sets beside."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        path = folder / "lmms-eval"
        path.write_text(_PROGRAM.format(python=sys.executable, recorded=str(RECORDED)))
        path.chmod(0o755)
        patch.setattr(program, "LMMS_EVAL", str(path))
        patch.setattr(program, "LMMS_EVAL_DATA_DIR", str(self.data))
        self.version("0.7.3")
        self.answers_as("base")

    def version(self, number: str) -> None:
        """What it says that it is."""
        (self._folder / "version").write_text(number)

    def answers_as(self, model: str) -> None:
        """Whose answers it finds from now on: a folder of RECORDED."""
        (self._folder / "model").write_text(model)

    @property
    def calls(self) -> list[dict[str, object]]:
        """argv, cwd and env of each run."""
        path = self._folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def remove(self) -> None:
        """As in an image without it."""
        (self._folder / "lmms-eval").unlink()
        shutil.rmtree(self.data)
