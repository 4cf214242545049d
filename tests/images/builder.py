"""buildah on a base image made on this machine, so that no registry of images is needed. Kept in the cache."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from dev import paths

BASE = "localhost/debian-base:bookworm"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def run(*command: str | Path) -> str:
    """Standard output; AssertionError with what was said when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=paths.CHECKOUT)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def buildah(command: str, *arguments: str | Path) -> str:
    """buildah with its storage in the cache."""
    folder = paths.cache() / "buildah"
    return run("buildah", "--root", folder / "root", "--runroot", folder / "run", command, *arguments)


def ensure_base() -> None:
    """Debian 12 with its Python, from Debian's packages; once per cache."""
    if BASE in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    with tempfile.TemporaryDirectory(prefix="dpe-base-") as name:
        root = Path(name) / "root"
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        shutil.rmtree(root / "var/lib/apt/lists")
        container = buildah("from", "scratch")
        try:
            buildah("add", "-q", container, root, "/")
            buildah("commit", "-q", container, BASE)
        finally:
            buildah("rm", container)


def build(part: str, archive: Path) -> str:
    """Build images/PART.Dockerfile into an OCI archive; the image's name."""
    name = f"localhost/built-{part}:test"
    # the machine's own certificates and pip settings, for where it reaches package indexes through a proxy
    mounted = [p for p in (_CERTIFICATES, Path("/etc/pip.conf")) if p.exists()]
    volumes = [word for path in mounted for word in ("-v", f"{path}:{path}:ro")]
    # --force-rm: a build that fails leaves no container with its mounts
    # runc: crun, which Debian's buildah prefers, needs a newer cgroup layout than some machines have
    how = ["--runtime", "runc", "--network", "host", "--layers", "--force-rm", "--build-arg", f"BASE={BASE}"]
    buildah("build", *how, *volumes, "-f", paths.CHECKOUT / f"images/{part}.Dockerfile", "-t", name, paths.CHECKOUT)
    archive.unlink(missing_ok=True)
    # nobody pulls it: compressing takes longer than all the rest
    buildah("push", "-q", "--disable-compression", name, f"oci-archive:{archive}:{name}")
    return name
