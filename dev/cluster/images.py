"""OCI archives made from files, without a registry or a builder. The same content gives the same bytes."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from dev import paths
from dev.cluster.config import Cluster

PAUSE = "registry.local/pause:1"
COREDNS = "registry.local/coredns:1"
_BUSYBOX = Path("/bin/busybox")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OCI = "application/vnd.oci.image"
_BASE_FOLDERS = ("etc", "proc", "sys", "dev", "root", "home", "var/run")
_BASE_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass
class Image:
    """What an image holds: one layer over nothing. Paths are relative to the image's root."""

    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Content and mode."""
    links: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    env: tuple[str, ...] = ()

    def add_tree(self, source: Path, target: str) -> None:
        """Add every file below a folder, with mode 644."""
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            self.files[f"{target}/{path.relative_to(source).as_posix()}"] = (path.read_bytes(), 0o644)


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    seen: set[str] = set()

    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
            parent = name.rpartition("/")[0]
            if parent and parent not in seen:
                add(parent, tarfile.DIRTYPE, 0o755)
            if name in seen:
                return
            seen.add(name)
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), target
            tar.addfile(info, io.BytesIO(data))

        for name in (*_BASE_FOLDERS, *image.folders):
            add(name, tarfile.DIRTYPE, 0o755)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        for name, data in _BASE_FILES.items():
            add(name, tarfile.REGTYPE, 0o644, data)
        for name, (data, mode) in image.files.items():
            add(name, tarfile.REGTYPE, mode, data)
        for name, target in image.links.items():
            add(name, tarfile.SYMTYPE, 0o777, target=target)
    return buffer.getvalue()


def _descriptor(kind: str, blobs: dict[str, bytes], data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def write_archive(path: Path, name: str, image: Image) -> None:
    """Write the archive that `ctr images import` reads as NAME, whole or not at all."""
    layer, blobs = _layer(image), dict[str, bytes]()
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Env": [_PATH, *image.env], "Cmd": list(image.command), "User": image.user},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor("config.v1+json", blobs, json.dumps(config).encode()),
        "layers": [_descriptor("layer.v1.tar+gzip", blobs, gzip.compress(layer, 1, mtime=0))],
    }
    entry = _descriptor("manifest.v1+json", blobs, json.dumps(manifest).encode())
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    members |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    part = path.with_name(path.name + ".part")
    with tarfile.open(part, "w") as out:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), 0o644
            out.addfile(info, io.BytesIO(data))
    part.replace(path)


def _pause() -> Image:
    links = {"bin/sleep": "busybox", "bin/sh": "busybox"}
    return Image({"bin/busybox": (_BUSYBOX.read_bytes(), 0o755)}, links, command=("/bin/sleep", "2147483"))


def _coredns() -> Image:
    return Image({"coredns": (paths.binary("coredns").read_bytes(), 0o755)}, user="1000", command=("/coredns",))


def ensure_base(cluster: Cluster) -> None:
    """Make the archives that every node starts with, unless they are newer than what they are made of."""
    cluster.images.mkdir(parents=True, exist_ok=True)
    for stem, name, source, make in (
        ("pause", PAUSE, _BUSYBOX, _pause),
        ("coredns", COREDNS, paths.binary("coredns"), _coredns),
    ):
        archive = cluster.images / f"{stem}.tar"
        if not archive.exists() or archive.stat().st_mtime < source.stat().st_mtime:
            write_archive(archive, name, make())
