import fcntl
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_jobs.runtime import BadData
from dpe_jobs.serving import cache
from dpe_jobs.serving.fetch import fetch
from dpe_jobs.store import ChecksumMismatch

FILES = {
    "config.json": json.dumps({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}).encode(),
    "model.safetensors": b"weights",
    "sub/tokenizer.json": b"{}",
}
MANY = 10**9


class Counting(MemoryStore):
    """A store that knows what was downloaded from it."""

    def __init__(self) -> None:
        super().__init__()
        self.downloads: list[str] = []

    def download(
        self, uri: str, path: Path, sha256: str | None = None, *, unwanted: threading.Event | None = None
    ) -> str:
        self.downloads.append(uri)
        return super().download(uri, path, sha256)


def add(store: MemoryStore, name: str, files: dict[str, bytes] = FILES, **changed: str) -> str:
    """A model with a manifest; `changed`: other checksums than the files have."""
    uri = f"s3://dpe/models/{name}"
    outputs = []
    for path, data in files.items():
        store.put(f"{uri}/{path}", data)
        digest = changed.get(path, hashlib.sha256(data).hexdigest())
        outputs.append({"path": path, "size": len(data), "sha256": digest, "mediaType": "x"})
    manifest = {"stage": "model", "createdAt": "2026-01-01T00:00:00Z", "outputs": outputs}
    store.put(f"{uri}/manifest.json", json.dumps(manifest).encode())
    return uri


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kept(models: Path) -> list[Path]:
    return [p for p in models.iterdir() if p.is_dir()]


def long_unused(model: Path) -> None:
    before = time.time() - 2 * cache.IN_USE_S
    os.utime(model, (before, before))


def test_the_second_pod_finds_the_model_and_downloads_nothing(store: Counting, models: Path, tmp_path: Path) -> None:
    uri = add(store, "base")
    fetch(store, uri, tmp_path / "first", models, MANY)
    assert len(store.downloads) == len(FILES)
    fetch(store, uri, tmp_path / "second", models, MANY)
    assert len(store.downloads) == len(FILES)
    assert contents(tmp_path / "first") == contents(tmp_path / "second") == FILES


def test_a_model_that_was_uploaded_anew_is_another_one(store: Counting, models: Path, tmp_path: Path) -> None:
    fetch(store, add(store, "base"), tmp_path / "first", models, MANY)
    uri = add(store, "base", FILES | {"model.safetensors": b"WEIGHTS"})
    fetch(store, uri, tmp_path / "second", models, MANY)
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == b"WEIGHTS"
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == b"weights"


def test_replicas_that_start_together_download_once(store: Counting, models: Path, tmp_path: Path) -> None:
    uri = add(store, "base")
    replicas = [
        threading.Thread(target=fetch, args=(store, uri, tmp_path / str(n), models, MANY), daemon=True)
        for n in range(4)
    ]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join(60)
    assert [contents(tmp_path / str(n)) for n in range(4)] == [FILES] * 4
    assert len(store.downloads) == len(FILES)


def test_a_pod_killed_while_it_downloads_leaves_nothing_that_looks_like_a_model(
    store: Counting, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = add(store, "base")
    if (pid := os.fork()) == 0:
        # whatever happens, nothing of the test's own process goes on in this one
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            monkeypatch.setattr(Path, "rename", lambda *_: os._exit(9))
            fetch(store, uri, tmp_path / "killed", models, MANY)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    (left,) = kept(models)
    assert contents(left) == FILES
    fetch(store, uri, tmp_path / "next", models, MANY)
    assert len(store.downloads) == len(FILES), "what the killed one left was not taken"
    assert contents(tmp_path / "next") == FILES


def test_a_cached_model_that_lost_a_file_or_a_part_of_one_is_downloaded_again(
    store: Counting, models: Path, tmp_path: Path
) -> None:
    uri = add(store, "base")
    fetch(store, uri, tmp_path / "first", models, MANY)
    (model,) = kept(models)
    for number, harm in enumerate((Path.unlink, lambda path: path.write_bytes(b"wei"))):
        harm(model / "model.safetensors")
        fetch(store, uri, tmp_path / f"after-{number}", models, MANY)
        assert contents(tmp_path / f"after-{number}") == FILES


def test_the_model_longest_unused_makes_room_and_one_in_use_never(
    store: Counting, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = sum(map(len, FILES.values()))
    uris = [add(store, name, FILES | {"model.safetensors": name.encode() * 7}) for name in "abc"]
    limit = 2 * size + size // 2
    for number, uri in enumerate(uris[:2]):
        fetch(store, uri, tmp_path / f"{number}", models, limit)
    fetch(store, uris[2], tmp_path / "full", models, limit)
    assert not (tmp_path / "full" / "config.json").is_symlink(), "both are in use: it is downloaded beside the cache"
    assert "raise modelCache.maxSize" in caplog.text
    first = Path(os.readlink(tmp_path / "0" / "config.json")).parent
    long_unused(first)
    fetch(store, uris[2], tmp_path / "fits", models, limit)
    assert (tmp_path / "fits" / "config.json").is_symlink()
    assert not first.exists()
    assert contents(tmp_path / "1")["model.safetensors"] == b"bbbbbbb"


def test_a_model_that_is_asked_for_again_counts_as_used(store: Counting, models: Path, tmp_path: Path) -> None:
    uri = add(store, "base")
    fetch(store, uri, tmp_path / "first", models, MANY)
    (model,) = kept(models)
    long_unused(model)
    fetch(store, uri, tmp_path / "second", models, MANY)
    assert time.time() - model.stat().st_mtime < cache.IN_USE_S


def test_what_killed_pods_left_makes_room_and_what_a_pod_downloads_stays(
    store: Counting, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It counted as in use for two weeks: a few interrupted downloads of a large model closed the cache."""
    size = sum(map(len, FILES.values()))
    dead, alive = (models / f".part-{name}-x_1" for name in ("dead", "alive"))
    for left in (dead, alive):
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"x" * size)
    with (models / ".lock-alive").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetch(store, add(store, "base"), tmp_path / "first", models, 2 * size)
    assert (tmp_path / "first" / "config.json").is_symlink(), "the dead one's room was free"
    assert not dead.exists()
    assert alive.exists()


def full_of_long_unused(store: Counting, models: Path, tmp_path: Path) -> tuple[list[Path], int]:
    """Two models, the first one unused for longest, and what a third one needs: the room of both."""
    size = sum(map(len, FILES.values()))
    for name in "ab":
        uri = add(store, name, FILES | {"model.safetensors": name.encode() * 7})
        fetch(store, uri, tmp_path / name, models, MANY)
    old = [Path(os.readlink(tmp_path / name / "config.json")).parent for name in "ab"]
    for model, age in zip(old, (3, 2), strict=True):
        before = time.time() - age * cache.IN_USE_S
        os.utime(model, (before, before))
    return old, size


def test_a_model_that_is_asked_for_while_others_make_room_stays(
    store: Counting, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), limit = full_of_long_unused(store, models, tmp_path)
    remove = shutil.rmtree

    def slowly(folder: Path, **how: bool) -> None:
        os.utime(second)  # as a pod that finds the model does
        remove(folder, **how)

    monkeypatch.setattr(cache.shutil, "rmtree", slowly)
    fetch(store, add(store, "base"), tmp_path / "full", models, limit)
    assert not first.exists()
    assert contents(tmp_path / "b")["model.safetensors"] == b"bbbbbbb"
    assert not (tmp_path / "full" / "config.json").is_symlink(), "there was no room"


def test_a_model_that_another_pod_has_to_do_with_stays(store: Counting, models: Path, tmp_path: Path) -> None:
    (first, second), limit = full_of_long_unused(store, models, tmp_path)
    with (models / f".lock-{first.name}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetch(store, add(store, "base"), tmp_path / "full", models, limit)
    assert first.exists()
    assert not second.exists()


def test_the_lock_of_a_model_that_made_room_stays_the_same_file(store: Counting, models: Path, tmp_path: Path) -> None:
    """Another pod may have opened it: with a new file in its place both would be alone."""
    old, limit = full_of_long_unused(store, models, tmp_path)
    locks = [models / f".lock-{model.name}" for model in old]
    before = [lock.stat().st_ino for lock in locks]
    fetch(store, add(store, "base"), tmp_path / "fits", models, limit)
    assert not any(model.exists() for model in old)
    assert [lock.stat().st_ino for lock in locks] == before


@pytest.mark.parametrize("age", [0, 2])
def test_an_unfinished_download_that_names_no_model_is_left_alone_until_it_is_old(
    store: Counting, models: Path, tmp_path: Path, age: int
) -> None:
    size = sum(map(len, FILES.values()))
    part = models / ".part-abcdefgh"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"x" * size)
    before = time.time() - age * cache.IN_USE_S
    os.utime(part, (before, before))
    fetch(store, add(store, "base"), tmp_path / "first", models, size)
    assert part.exists() is (age == 0)


def test_the_next_download_of_a_model_removes_what_a_killed_one_left(
    store: Counting, models: Path, tmp_path: Path
) -> None:
    uri = add(store, "base")
    left = models / f".part-{store.input_ref(uri).sha256}-abc"
    left.mkdir()
    fetch(store, uri, tmp_path / "first", models, MANY)
    assert not left.exists()


def test_a_model_without_a_manifest_is_downloaded_every_time(store: Counting, models: Path, tmp_path: Path) -> None:
    uri = add(store, "base")
    del store.objects[f"{uri}/manifest.json"]
    fetch(store, uri, tmp_path / "first", models, MANY)
    assert contents(tmp_path / "first") == FILES
    assert kept(models) == []


def test_a_volume_that_is_not_there_costs_a_download_and_a_warning(
    store: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(store, add(store, "base"), tmp_path / "first", tmp_path / "nowhere", MANY)
    assert contents(tmp_path / "first") == FILES
    assert "the cache of models cannot be used" in caplog.text


def test_a_model_that_is_none_or_not_what_its_manifest_says_is_not_kept(
    store: Counting, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match="names no architectures"):
        fetch(store, add(store, "none", FILES | {"config.json": b"{}"}), tmp_path / "none", models, MANY)
    with pytest.raises(ChecksumMismatch):
        fetch(store, add(store, "torn", **{"model.safetensors": "0" * 64}), tmp_path / "torn", models, MANY)
    assert kept(models) == []
    shutil.rmtree(models)
