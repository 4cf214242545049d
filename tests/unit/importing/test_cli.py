"""The command as people call it."""

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.unit.importing.sources import easy_vqa, tsv_row, write_tsv

from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, MANIFEST, Exit
from dpe_jobs import __main__ as program
from dpe_jobs.importing import cli, run
from dpe_jobs.importing.target import MARKER
from dpe_jobs.store import StoreUnreachable


@pytest.fixture
def rows():
    return [tsv_row(q) for q in easy_vqa(6)]


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    for name in (cli.ENV_ENDPOINT, ENV_ACCESS_KEY, ENV_SECRET_KEY):
        monkeypatch.delenv(name, raising=False)


def test_import_is_a_word_of_the_program(rows, tmp_path, monkeypatch, capsys):
    source, to = write_tsv(rows, tmp_path / "a.tsv"), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["dpe_jobs", "import", str(source), "--to", str(to), "--facet", "negated"])
    assert program.main() is Exit.DONE
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{to}: 42 questions of 42 rows, 0 bad rows left out, 1 files",
        "answer types: yes_no 18, choice 12, exact 12",
    ]
    assert (to / MANIFEST).exists()


def test_bad_rows_are_exit_65(rows, tmp_path, capsys):
    rows[3]["answer"] = "Z"
    assert cli.main([str(write_tsv(rows, tmp_path / "a.tsv")), "--to", str(tmp_path / "out")]) == 65
    told = capsys.readouterr().err
    assert "row 3 (a.tsv line 5), answer: 'Z' is none of the 5 choices" in told
    assert "BadRows: 1 of 42 rows are bad, all listed in" in told


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "s3://dpe/data/mine"], f"not set: {cli.ENV_ENDPOINT}, {ENV_ACCESS_KEY}, {ENV_SECRET_KEY}"),
        (["--check", "--column", "question=prompt"], "no column prompt (question)"),
        (["--check", "--split", "train"], "has no splits"),
    ],
)
def test_a_command_to_mend_is_exit_78(rows, tmp_path, capsys, flags, said):
    assert cli.main([str(write_tsv(rows, tmp_path / "a.tsv")), *flags]) == 78
    assert said in capsys.readouterr().err


def test_a_store_that_is_away_is_exit_75(rows, tmp_path, capsys, monkeypatch):
    def connect(_region):
        raise StoreUnreachable("no answer")

    monkeypatch.setattr(cli, "connect", connect)
    assert cli.main([str(write_tsv(rows, tmp_path / "a.tsv")), "--to", "s3://dpe/data/mine"]) == 75
    assert "StoreUnreachable: object store: no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--column", "question"], ["--column", "queston=a"], ["--to", "x"], ["--category", "a", "--no-category"]]
)
def test_a_command_that_makes_no_sense_is_told_so(tmp_path, flags, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["a.tsv", "--check", *flags])
    assert caught.value.code == 2


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stopping_it_leaves_nothing(rows, tmp_path, sign):
    """A million rows take longer than the signal."""
    to, source = tmp_path / "out", tmp_path / "a.jsonl"
    lines = "".join(json.dumps({"id": str(n), "question": "?", "answer": "a"}) + "\n" for n in range(20_000))
    source.write_text(lines * 50)
    flags = [str(source), "--to", str(to), "--category", "c"]
    command = [sys.executable, "-m", "dpe_jobs", "import", *flags]
    default = partial(signal.signal, sign, signal.SIG_DFL)  # whoever runs the tests in the background ignores SIGINT
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=default)
    deadline = time.monotonic() + 60
    while not (to / MARKER).exists():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    child.send_signal(sign)
    _, told = child.communicate(timeout=60)
    assert child.returncode == Exit.STOPPED
    assert b"Stopped: nothing was published" in told
    assert list(to.iterdir()) == []


PAGE = (Path(__file__).parents[3] / "docs" / "probes.md").read_text(encoding="utf-8")


def test_every_flag_is_on_the_page():
    flags = {flag for action in cli.parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert [f for f in sorted(flags - {"--help"}) if f"`{f}" not in PAGE] == []


def test_the_example_of_the_page_says_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "PROGRESS_INTERVAL_S", 3600)  # a slow machine is told more than the page shows
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    for flags in ([], ["--max-bad", "2"], []):
        cli.main(["mine.tsv", "--to", "out", *flags])
    told = capsys.readouterr()
    example = PAGE.split("```console")[1].split("```")[0].replace("s3://dpe/data/mine", "out").splitlines()
    shown = [line for line in example if line and not line.startswith("$")]
    assert sorted(shown) == sorted((told.out + told.err).splitlines())
