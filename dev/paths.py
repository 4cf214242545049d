"""Where things lie: the checkout, and the cache outside of it. Used before anything is installed: no packages."""

import hashlib
import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIREMENTS = CHECKOUT / "requirements.txt"
GO_SOURCES = CHECKOUT / "dev" / "cluster" / "go"

MINIO_MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
HELM_MODULE = "helm.sh/helm/v4/cmd/helm@v4.3.1"

BINARIES = {
    "k8s": (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
        "etcd",
    ),
    "coredns": ("coredns",),
    "minio": ("minio",),
    "helm": ("helm",),
}
"""Sets of binaries that are built together, and what each holds."""


def cache() -> Path:
    """The cache folder: DPE_CACHE, or `dpe` in the user's cache."""
    named = os.environ.get("DPE_CACHE")
    if named:
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "dpe"


def digest(*parts: bytes) -> str:
    """Twelve hex digits that change when any part does."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:12]


def binary_folder(name: str) -> Path:
    """Folder of one set of binaries: its name holds the version, or a hash of the sources that choose it."""
    if name == "minio":
        version = MINIO_MODULE.rsplit("@", 1)[1]
    elif name == "helm":
        version = HELM_MODULE.rsplit("@", 1)[1]
    else:
        sources = sorted((GO_SOURCES / name).iterdir())
        version = digest(*(part for path in sources for part in (path.name.encode(), path.read_bytes())))
    return cache() / "bin" / f"{name}-{version}"


def binary(name: str) -> Path:
    """Path of one binary, built or not; KeyError when no set holds it."""
    for folder, names in BINARIES.items():
        if name in names:
            return binary_folder(folder) / name
    raise KeyError(name)


def binary_path() -> list[str]:
    """Folders to put in front of PATH."""
    return [str(binary_folder(name)) for name in BINARIES]


def venv() -> Path:
    """The Python environment that requirements.txt describes, installed or not."""
    lines = REQUIREMENTS.read_text().splitlines()
    pins = "\n".join(line for line in lines if not line.lstrip().startswith("#"))  # the comments say who asked for it
    return cache() / f"venv-{digest(pins.encode())}"


def uv() -> Path:
    """The uv that setup installed."""
    return cache() / "uv" / "bin" / "uv"
