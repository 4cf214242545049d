"""The store against a real MinIO: one of this module's own, because the tests stop and start it."""

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.cluster.own_minio import Minio

from dpe_api.artifacts import Manifest
from dpe_api.launch import StoreAddress
from dpe_jobs import store as module
from dpe_jobs.ledger import Ledger
from dpe_jobs.store import (
    AlreadyPublished,
    ChecksumMismatch,
    NotFound,
    Store,
    StoreError,
    StoreUnreachable,
    join,
)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def minio(tmp_path_factory) -> Iterator[Minio]:
    it = Minio(tmp_path_factory.mktemp("minio"))
    it.start()
    yield it
    it.stop()


@pytest.fixture
def bucket(minio) -> str:
    name = f"t-{secrets.token_hex(4)}"
    (minio.data / name).mkdir()  # a folder is a bucket to a single MinIO, and this client has no call to make one
    return f"s3://{name}"


@pytest.fixture
def store(minio) -> Store:
    return minio.store()


def manifest(attempt: int = 1, outputs=()) -> Manifest:
    return Manifest(
        stage="diagnosis", attempt=attempt, created_at=datetime(2026, 1, 1, tzinfo=UTC), outputs=list(outputs)
    )


def test_small_objects_are_put_found_listed_and_deleted(store, bucket):
    store.put(f"{bucket}/a/x.json", b'{"n": 1}')
    store.put(f"{bucket}/a/b/y.txt", b"")
    store.put(f"{bucket}/ab/z.txt", b"zz")
    assert store.get_json(f"{bucket}/a/x.json") == {"n": 1}
    assert store.find(f"{bucket}/a/none") is None
    assert [(o.uri, o.size) for o in store.list(f"{bucket}/a")] == [
        (f"{bucket}/a/b/y.txt", 0),
        (f"{bucket}/a/x.json", 8),
    ], "by name, and nothing of the folder whose name begins alike"
    store.delete([f"{bucket}/a/x.json", f"{bucket}/a/none"])
    assert store.find(f"{bucket}/a/x.json") is None
    assert store.list(f"{bucket}/nothing") == []


def test_what_is_missing_is_named_with_what_to_do(store, bucket, tmp_path):
    for call in (store.get, store.parquet_files, store.input_ref, lambda u: store.download(u, tmp_path / "x")):
        with pytest.raises(NotFound, match=rf"{bucket}/no.*(upload|correct)"):
            list(call(f"{bucket}/no"))
    for call in (store.get, store.list):
        with pytest.raises(NotFound, match="s3://no-such-bucket/x does not exist"):
            call("s3://no-such-bucket/x")
    with pytest.raises(NotFound, match="no such bucket"):
        store.create("s3://no-such-bucket/x", b"")
    with pytest.raises(NotFound):
        store.put("s3://no-such-bucket/x", b"")


def test_a_manifest_is_never_overwritten(store, bucket):
    store.publish(f"{bucket}/stage", manifest(1))
    store.publish(f"{bucket}/stage", manifest(1))  # a repeated request whose answer was lost finds its own work
    with pytest.raises(AlreadyPublished, match=r"stage/manifest.json exists already"):
        store.publish(f"{bucket}/stage", manifest(2))
    found = store.manifest(f"{bucket}/stage")
    assert found == manifest(1)


def test_of_many_attempts_that_publish_at_once_exactly_one_wins(minio, bucket):
    outcomes: list[str] = []

    def publish(attempt: int) -> None:
        try:
            minio.store().publish(f"{bucket}/race", manifest(attempt))
            outcomes.append("won")
        except AlreadyPublished:
            outcomes.append("lost")

    threads = [threading.Thread(target=publish, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_trees_go_up_and_come_down_verified(store, bucket, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "sub" / "weights.safetensors").write_bytes(secrets.token_bytes(7 << 20))  # more than one part
    outputs = store.upload_tree(source, f"{bucket}/model")
    assert [o.path for o in outputs] == ["config.json", "sub/weights.safetensors"]
    listed = store.fetch_tree(f"{bucket}/model", tmp_path / "unverified")
    store.publish(f"{bucket}/model", manifest(outputs=outputs))
    verified = store.fetch_tree(f"{bucket}/model", target)
    for name in ("config.json", "sub/weights.safetensors"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
        assert (target / name).stat().st_mode & 0o777 == 0o644
    assert not list(target.rglob("*.part"))
    raw = store.get(f"{bucket}/model/manifest.json")
    assert verified.sha256 == hashlib.sha256(raw).hexdigest() != listed.sha256


def test_a_file_too_large_for_one_request_goes_in_parts_and_comes_down_verified(store, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_PUT", 6 << 20)
    monkeypatch.setattr(module, "_PART", 5 << 20)  # S3 takes no smaller one
    path, data = tmp_path / "optimizer.pt", secrets.token_bytes(17 << 20)
    path.write_bytes(data)
    output = store.upload(path, f"{bucket}/large/{path.name}")
    assert (output.size, output.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    (listed,) = store.list(f"{bucket}/large")
    assert listed.etag.endswith("-4"), "four parts"
    store.download(f"{bucket}/large/{path.name}", tmp_path / "back", output.sha256)
    assert (tmp_path / "back").read_bytes() == data


def test_a_file_that_was_changed_after_publishing_is_refused(store, bucket, tmp_path):
    (tmp_path / "a.txt").write_text("one")
    store.publish(f"{bucket}/d", manifest(outputs=[store.upload(tmp_path / "a.txt", f"{bucket}/d/a.txt")]))
    store.put(f"{bucket}/d/a.txt", b"two")
    with pytest.raises(ChecksumMismatch, match=r"d/a.txt: sha256 is .*its manifest says .*upload it again"):
        store.fetch_tree(f"{bucket}/d", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_identity_of_a_folder_changes_with_its_files(store, bucket):
    store.put(f"{bucket}/q/a.parquet", b"1")
    first = store.input_ref(f"{bucket}/q")
    assert store.input_ref(f"{bucket}/q") == first
    store.put(f"{bucket}/q/a.parquet", b"2")
    assert store.input_ref(f"{bucket}/q").sha256 != first.sha256


def test_wrong_credentials_are_refused_at_once(minio, bucket):
    started = time.monotonic()
    store = minio.store(secret="wrong-secret-key")
    for call in (lambda: store.get(f"{bucket}/a"), lambda: store.put(f"{bucket}/a", b""), lambda: store.list(bucket)):
        with pytest.raises(StoreError, match="SignatureDoesNotMatch"):
            call()
    with pytest.raises(StoreError, match="HTTP 403"):
        store.create(f"{bucket}/a", b"")
    assert time.monotonic() - started < 10


def test_an_outage_is_waited_out_and_nothing_is_lost(minio, bucket, tmp_path):
    store = minio.store(outage_s=60)
    (tmp_path / "f").write_text("file")
    minio.stop()
    threading.Timer(2, minio.start).start()
    with Ledger(store, join(bucket, "ledger")) as ledger:
        ledger.append({"id": "a"})
    assert store.get(store.list(join(bucket, "ledger"))[0].uri) == b'{"id": "a"}\n'
    store.upload(tmp_path / "f", f"{bucket}/f")
    store.create(f"{bucket}/once", b"1")


def test_a_lasting_outage_ends_with_the_address_and_in_time(minio, bucket):
    minio.stop()
    try:
        store, started = minio.store(outage_s=60), time.monotonic()
        store.limit_outage(1)
        for call in (
            lambda: store.get(f"{bucket}/a"),
            lambda: store.create(f"{bucket}/a", b""),
            lambda: store.list(bucket),
        ):
            with pytest.raises(StoreUnreachable, match=rf"{bucket}.*no answer in 1 s"):
                call()
        assert time.monotonic() - started < 40
    finally:
        minio.start()


def test_an_endpoint_that_is_no_address_is_refused():
    for endpoint in ("minio:9000", "ftp://minio", "http://"):
        with pytest.raises(ValueError, match="is not http"):
            Store(StoreAddress(endpoint=endpoint), "a", "b")


@pytest.mark.parametrize("uri", ["http://a/b", "s3://", "a/b", "/a"])
def test_an_address_that_is_not_s3_is_refused(store, uri):
    with pytest.raises(ValueError, match="is not an s3://BUCKET/KEY address"):
        store.get(uri)
