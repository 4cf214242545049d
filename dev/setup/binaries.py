"""The cluster's binaries, built from source through the Go module proxy, once per version."""

import re
import shutil
import subprocess
from pathlib import Path

from dev import paths
from dev.setup.steps import SetupError, call, timed

_STAMP = ".complete"
_NEEDED_GO = (1, 26)
_KUBERNETES = "k8s.io/kubernetes"


def go_version() -> tuple[int, int]:
    """Version of the installed Go; SetupError where there is none, or an old one that cannot fetch a newer."""
    needed = ".".join(map(str, _NEEDED_GO))
    if shutil.which("go") is None:
        raise SetupError(
            f"no `go` on PATH: the cluster's binaries are built with Go {needed} or newer. "
            "Install it (Debian's own is too old; see the Go project's download page) and run this again"
        )
    text = subprocess.run(["go", "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True, check=True).stdout
    version, toolchain = [*text.split("\n"), ""][:2]
    found = re.match(r"go(\d+)\.(\d+)", version)
    installed = (int(found[1]), int(found[2])) if found else (0, 0)
    # from 1.21 on go fetches the toolchain that a go.mod asks for, unless it was told not to
    fetches = installed >= (1, 21) and not toolchain.startswith("local")
    if installed < _NEEDED_GO and not fetches:
        raise SetupError(
            f"{version or 'this go'} is too old: Go {needed} or newer is needed (or 1.21 with GOTOOLCHAIN=auto)"
        )
    return installed


def _go(command: list[str], log: str, cwd: Path, **env: str) -> None:
    nice = ["nice", "-n", "10"]  # beside the installation of Python packages, which is mostly waiting for the network
    call([*nice, "go", *command], log, env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", **env}, cwd=cwd)


def _kubernetes_flags(folder: Path) -> str:
    """Linker flags without which the binaries report v0.0.0 as their version."""
    found = re.search(rf"{_KUBERNETES} (v(\d+)\.(\d+)\S+)", (folder / "go.mod").read_text())
    if not found:
        raise SetupError(f"{folder / 'go.mod'} does not require {_KUBERNETES}")
    at = "k8s.io/component-base/version"
    values = {"gitVersion": found[1], "gitMajor": found[2], "gitMinor": found[3], "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X {at}.{name}={value}" for name, value in values.items())])


def _build(name: str, target: Path) -> None:
    log = f"go-{name}"
    if name in ("minio", "helm"):
        module = paths.MINIO_MODULE if name == "minio" else paths.HELM_MODULE
        _go(["install", "-trimpath", "-ldflags", "-s -w", module], log, Path("/"), GOBIN=str(target))
        return
    folder = paths.GO_SOURCES / name
    if name == "coredns":
        _go(["build", "-trimpath", "-ldflags", "-s -w", "-o", str(target / "coredns"), "."], log, folder)
        return
    parts = [f"{_KUBERNETES}/cmd/{binary}" for binary in paths.BINARIES["k8s"] if binary != "etcd"]
    # one call for all of them: packages that they share are linked from one compilation
    _go(["build", "-trimpath", "-ldflags", _kubernetes_flags(folder), "-o", f"{target}/", *parts], log, folder)
    etcd = ["build", "-trimpath", "-ldflags", "-s -w", "-o", str(target / "etcd"), "go.etcd.io/etcd/server/v3"]
    _go(etcd, log, folder)


def missing() -> list[str]:
    """Sets that must be built."""
    return [name for name in paths.BINARIES if not (paths.binary_folder(name) / _STAMP).exists()]


def ensure() -> None:
    """Build what is missing; SetupError with the compiler's words."""
    wanted = missing()
    if not wanted:
        return
    go_version()
    for name in wanted:
        folder = paths.binary_folder(name)
        part = folder.with_name(f".building-{name}")
        with timed(f"building {name}"):
            shutil.rmtree(part, ignore_errors=True)  # what an interruption left
            part.mkdir(parents=True)
            try:
                _build(name, part)
                lost = [b for b in paths.BINARIES[name] if not (part / b).exists()]
                if lost:
                    raise SetupError(f"go built {name} without error, but not {', '.join(lost)}")
                (part / _STAMP).touch()
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
