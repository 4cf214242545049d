"""What `make` does where something is missing. Its targets find stand-ins for Python and for the machine's commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dev import paths


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    theirs = ("KUBE_CONTEXT", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")  # of the `make` that runs the tests
    clean = {name: value for name, value in os.environ.items() if name not in theirs}
    return subprocess.run(
        ["make", *arguments],
        cwd=paths.CHECKOUT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("target", ["demo", "demo-clean", "verify"])
def test_without_the_embedded_cluster_nothing_is_done_to_the_one_that_the_shell_points_to(
    tmp_path: Path, target: str
) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    python = script(
        tmp_path / "python",
        f'case "$*" in "-m dev.cluster env") echo "error: not up" >&2; exit 1 ;; esac\necho "$*" >> {calls}',
    )
    # `demo` brings the cluster up first: that is done, here
    done = make(
        target, "-o", "cluster-up", f"PY={python}", f"SYSTEM_PYTHON={python}", KUBECONFIG="/home/somebody/.kube/config"
    )
    assert done.returncode != 0
    assert "error: not up" in done.stderr
    assert calls.read_text() == ""


def test_the_cluster_is_taken_down_by_the_systems_python_and_not_by_an_environment_that_may_be_gone(
    tmp_path: Path,
) -> None:
    calls = tmp_path / "calls"
    python = script(tmp_path / "python", f'echo "$*" >> {calls}')
    assert make("cluster-down", f"SYSTEM_PYTHON={python}", "PY=/nowhere/python").returncode == 0
    assert "-m dev.cluster down" in calls.read_text().splitlines()


def test_taking_the_cluster_down_needs_the_standard_library_alone(tmp_path: Path) -> None:
    script(tmp_path / "ip", "exit 1")  # there is no such link
    # as root on a machine without our cgroups
    code = (
        "import os, pathlib, runpy, sys\n"
        "from dev.cluster import nodes\n"
        "os.geteuid = lambda: 0\n"
        f"nodes._CGROUPS = pathlib.Path({str(tmp_path / 'cgroup')!r})\n"
        "sys.argv[1:] = ['down']\n"
        "runpy.run_module('dev.cluster', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=paths.CHECKOUT,
        env={
            "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
            "PYTHONPATH": str(paths.CHECKOUT),
            "DPE_CACHE": str(tmp_path / "cache"),
            "DPE_CLUSTER_INSTANCE": "4",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cluster: down in" in done.stdout
