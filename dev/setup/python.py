"""The Python environment: what requirements.txt pins, by hash, in a folder of the cache named after that file."""

import os
import re
import shutil
import sys
from pathlib import Path

from dev import paths
from dev.setup.steps import SetupError, call, timed

UV_VERSION = "0.13.9"
_IMAGES = "images/requirements"
_SAME = ("--constraint", "requirements.txt")
"""The versions that the tests ran with."""
_STAMP = ".complete"
_SOURCE_BUILT = "deepspeed"
"""Compiled here with torch at hand, which build isolation would not let it see."""
_BUILD_FLAGS = {"DS_BUILD_OPS": "0", "DS_BUILD_SHM_COMM": "1", "DS_ACCELERATOR": "cpu"}
"""Prebuild the shared-memory op: else every pod compiles it at first use, 58 s and two compilers of 1.4 GB."""


def ensure_uv() -> Path:
    """uv, installed by pip into an environment of its own."""
    uv = paths.uv()
    stamp = uv.parent.parent / f".complete-{UV_VERSION}"
    if stamp.exists():
        return uv
    with timed("uv"):
        folder = uv.parent.parent
        shutil.rmtree(folder, ignore_errors=True)
        call([sys.executable, "-m", "venv", folder], "uv")
        call([folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}"], "uv")
        stamp.touch()
    return uv


def split_requirements(text: str) -> tuple[str, str]:
    """The requirements without, and those with, what is built from source; SetupError when the latter is missing."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    built = [e for e in entries if re.match(rf"{_SOURCE_BUILT}==", e)]
    if not built:
        raise SetupError(f"requirements.txt has no {_SOURCE_BUILT}: `make lock` makes it from pyproject.toml")
    return "\n".join(e for e in entries if e not in built) + "\n", "\n".join(built) + "\n"


def ensure() -> Path:
    """The environment, complete; SetupError with the installer's words."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an old one is met
        raise SetupError(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed")
    venv = paths.venv()
    if (venv / _STAMP).exists():
        return venv
    uv = ensure_uv()
    with timed("Python packages"):
        shutil.rmtree(venv, ignore_errors=True)
        call([uv, "venv", "--quiet", "--python", sys.executable, venv], "python")
        wheels, sources = split_requirements(paths.REQUIREMENTS.read_text())
        # hard links from uv's cache where the file system allows; bytecode now: pods see the folder read-only
        options = ["--python", str(venv / "bin" / "python"), "--require-hashes", "--no-deps", "--compile-bytecode"]
        # the compiler runs ninja, which lies in the environment
        path = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)])
        for name, text, more, flags in (
            ("wheels", wheels, [], {}),
            # uv's cache does not know which flags a wheel was built with
            ("sources", sources, ["--no-build-isolation", "--no-cache"], {**_BUILD_FLAGS, "PATH": path}),
        ):
            listing = venv / f"requirements-{name}.txt"
            listing.write_text(text)
            environment = {"PYTHONDONTWRITEBYTECODE": "", **flags}
            call([uv, "pip", "install", *options, *more, "-r", listing], "python", env=environment)
        (venv / _STAMP).touch()
    return venv


_LOCKS = {
    "requirements.txt": ("pyproject.toml", "--all-extras", "--override", "dev/setup/overrides.txt"),
    f"{_IMAGES}/build.txt": (f"{_IMAGES}/build.in", *_SAME),
    f"{_IMAGES}/operator.txt": ("pyproject.toml", "--extra", "operator", *_SAME),
    f"{_IMAGES}/jobs.txt": ("pyproject.toml", "--extra", "jobs", *_SAME),
    # alone: it pins packages that ours need newer
    f"{_IMAGES}/lmms-eval.txt": (f"{_IMAGES}/lmms-eval.in",),
    # with vLLM for GPUs, whose own requirements decide
    f"{_IMAGES}/training.txt": ("pyproject.toml", f"{_IMAGES}/training.in", "--extra", "jobs", "--extra", "training"),
}
"""What is locked -> what it is made from. Paths are relative: uv writes them into the comments of its result."""


def lock() -> None:
    """Pin packages by hash, without index addresses: the environment of this machine, and those of the images."""
    uv = ensure_uv()
    with timed("locking requirements"):
        for target, sources in _LOCKS.items():
            options = [
                *("--quiet", "--python-version", "3.11", "--python-platform", "linux", "--generate-hashes"),
                *("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--output-file", target),
            ]
            call([uv, "pip", "compile", *sources, *options], "lock", cwd=paths.CHECKOUT)
            if re.search(r"https?://|^--|file:", (paths.CHECKOUT / target).read_text(), re.MULTILINE):
                raise SetupError(f"{target} names an index or a file: it must hold versions and hashes only")
