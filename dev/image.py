"""The local image: this project installed under /app, and nothing else. `python -m dev.image` prints its name.

Python and its packages are lent by RuntimeClass devhost, so the image is small and made in seconds. Its tag is a hash
of what is in it; when nothing changed nothing is made.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import paths
from dev.cluster import nodes
from dev.cluster.config import Cluster, ClusterError
from dev.cluster.images import Image, write_archive
from dev.cluster.processes import locked

NAME = "localhost/dpe"
_PACKAGES = ("crds/dpe_api", "operator/dpe_operator", "jobs/dpe_jobs")
_DEVHOST_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
"""/usr comes from the machine; what a merged-/usr system expects beside it."""
_USER = "65532"


def _sources() -> list[Path]:
    """What is installed: pyproject.toml and the files of the three packages."""
    found = [paths.CHECKOUT / "pyproject.toml"]
    for package in _PACKAGES:
        files = (paths.CHECKOUT / package).rglob("*")
        found += sorted(p for p in files if p.is_file() and "__pycache__" not in p.parts)
    return found


def tag() -> str:
    """NAME:HASH of the checkout as it is."""
    this = (Path(__file__), Path(__file__).parent / "cluster" / "images.py")
    content = [
        part
        for path in (*_sources(), *this)
        for part in (str(path.relative_to(paths.CHECKOUT)).encode(), path.read_bytes())
    ]
    return f"{NAME}:{paths.digest(*content, sys.version.encode())}"


def _install(target: Path) -> None:
    """Install the project with its metadata as pip would, from a copy: a build writes into its source."""
    with tempfile.TemporaryDirectory(prefix="dpe-image-") as name:
        copy = Path(name)
        for path in _sources():
            place = copy / path.relative_to(paths.CHECKOUT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        (copy / "README.md").touch()  # the metadata names it; its text is of no use in a pod
        command = [
            str(paths.uv()),
            *("pip", "install", "--quiet", "--offline", "--no-cache", "--no-deps", "--no-build-isolation"),
            *("--python", sys.executable, "--target", str(target), str(copy)),
        ]
        # no SSL or index settings matter here: nothing is fetched
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy)
        if done.returncode:
            raise ClusterError(f"installing the project into the image failed:\n{done.stderr.strip()}")
    (target / ".lock").unlink(missing_ok=True)
    for origin in target.glob("*.dist-info/direct_url.json"):
        origin.unlink()  # names a folder that is gone
    # times in the archive are zero: bytecode must not be compared with its source's
    compile_all = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(target), "-p", "/app"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *compile_all, str(target)], check=True, env=environment)


def build(cluster: Cluster) -> str:
    """Make the image unless it exists, import it into the nodes that are on, and return its name."""
    name = tag()
    archive = cluster.images / f"dpe-{name.rpartition(':')[2]}.tar"
    with locked(cluster):
        if not cluster.images.exists():
            raise ClusterError("the embedded cluster is not up: run `make cluster-up`")
        if not archive.exists():
            with tempfile.TemporaryDirectory(prefix="dpe-image-") as folder:
                _install(Path(folder))
                image = Image(
                    links=_DEVHOST_LINKS,
                    folders=("usr", "opt/venv", "etc/ssl", "etc/alternatives"),
                    user=_USER,
                    env=("PYTHONPATH=/app",),
                )
                image.add_tree(Path(folder), "app")
                write_archive(archive, name, image)
        nodes.import_image(cluster, archive)
    return name


def main() -> int:
    """Print the image's name, or one sentence on stderr."""
    try:
        print(build(Cluster.from_env()))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
