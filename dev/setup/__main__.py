"""Command line of the installation: `python3 -m dev.setup [--python-only | --lock | --for cluster | --for turn]`."""

import argparse
import fcntl
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dev import paths
from dev.cluster import preflight
from dev.setup import binaries, inspected, packages, python
from dev.setup.steps import SetupError, say

_DISK_GB = 25
"""What a whole turn takes from nothing, with the caches of the build."""


def _check(purposes: Sequence[str]) -> None:
    """SetupError that lists what no installation here mends, before minutes have gone into the rest."""
    problems = preflight.machine(turn="turn" in purposes) if purposes else []
    if binaries.missing():
        try:
            binaries.go_version()
        except SetupError as error:
            problems.append(str(error))
        free_gb = shutil.disk_usage(paths.cache()).free / 1e9
        if free_gb < _DISK_GB:
            say(f"{paths.cache()} has {free_gb:.0f} GB free, {_DISK_GB} may be needed (DPE_CACHE names another place)")
    if problems:
        raise SetupError("nothing was installed, for this machine lacks:\n  " + "\n  ".join(problems))


def everything(*, cluster: bool, purposes: Sequence[str] = ()) -> None:
    """Install what the cluster needs, too, or Python's packages alone.

    `purposes`: what this machine is to run, "cluster" or "turn"; without any it is not asked whether it can.
    """
    if cluster:
        _check(purposes)
    packages.ensure(cluster=cluster)
    with ThreadPoolExecutor(2) as pool:
        # the compiler beside the downloads: neither needs the other
        built = pool.submit(binaries.ensure) if cluster else None
        installed = pool.submit(python.ensure)
        problems = [f.exception() for f in (built, installed) if f is not None]
    for problem in problems:
        if problem is not None and not isinstance(problem, SetupError):
            raise problem
    said = [str(p) for p in problems if p is not None]
    if said:
        raise SetupError("\n".join(said))
    if cluster:
        inspected.ensure()


def main() -> int:
    """Do what was asked, once at a time; errors are on stderr with exit status 1."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.setup", description="Install what the project needs.")
    parser.add_argument("--python-only", action="store_true", help="no Debian packages, no cluster binaries; no root")
    parser.add_argument(
        "--for",
        dest="purposes",
        action="append",
        default=[],
        choices=["cluster", "turn"],
        help="first see whether this machine can run the embedded cluster, or a whole turn on it",
    )
    parser.add_argument("--lock", action="store_true", help="write requirements.txt from pyproject.toml")
    parser.add_argument("--print-python", action="store_true", help="print the environment's interpreter and stop")
    args = parser.parse_args()
    if args.print_python:
        print(paths.venv() / "bin" / "python")
        return 0
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "setup.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another setup to finish")
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if args.lock:
                python.lock()
            else:
                everything(cluster=not args.python_only, purposes=args.purposes)
        except SetupError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
