"""What the operator asks of a store, over real HTTP: a server that answers HEAD requests as S3 does."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider, StaticProvider
from tests.unit.operator import given

from dpe_operator.platform import ObjectStore
from dpe_operator.storage import Storage, StoreRefused, StoreUnavailable, keys


class Heads(BaseHTTPRequestHandler):
    """By the object's name: a status, and for 200 an ETag. Answers to HEAD have no body, so no error code either."""

    signed_by: ClassVar[list[str]] = []
    """Access keys of the requests."""

    def do_HEAD(self) -> None:
        self.signed_by.append(self.headers["Authorization"].split("Credential=")[1].split("/")[0])
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        status = int(name) if name.isdecimal() else 200
        self.send_response(status)
        if status == 200:
            for header in (("ETag", f'"of-{name}"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")):
                self.send_header(*header)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Given(Provider):
    """An access key that nobody has looked at."""

    def __init__(self, key: str) -> None:
        self._key = key

    def retrieve(self) -> Credentials:
        return Credentials(self._key, "secret")


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Heads) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield given.platform().object_store.model_copy(update={"endpoint": address, "region": "us-east-1"})
        server.shutdown()


@pytest.fixture
def storage(store: ObjectStore) -> Storage:
    return Storage(store, StaticProvider("access", "secret"))


async def test_keys_of_a_mounted_secret_that_changes_are_taken_without_a_restart(
    store: ObjectStore, tmp_path: Path
) -> None:
    storage = Storage(store, keys({"DPE_S3_KEYS": str(tmp_path), "DPE_S3_ACCESS_KEY": "of-the-start"}))
    for key in ("first", "second"):
        (tmp_path / "accessKey").write_text(key)
        (tmp_path / "secretKey").write_text("secret")
        await storage.etag("s3://dpe/x")
        assert Heads.signed_by[-1] == key
    (tmp_path / "accessKey").unlink()
    with pytest.raises(StoreUnavailable):
        await storage.etag("s3://dpe/x")


async def test_the_line_end_of_a_key_in_a_file_is_no_part_of_it(store: ObjectStore, tmp_path: Path) -> None:
    for name in ("accessKey", "secretKey"):
        (tmp_path / name).write_text("of-a-file\n")
    assert await Storage(store, keys({"DPE_S3_KEYS": str(tmp_path)})).etag("s3://dpe/x") == "of-x"
    assert Heads.signed_by[-1] == "of-a-file"


@pytest.mark.parametrize(
    ("key", "uri", "words"),
    [
        ("a", "s3://10.0.0.5/models", "IP address"),
        ("a", "s3://a..b/models", "successive"),
        ("", "s3://dpe/models", "Access key must not be empty"),
        ("a\nb", "s3://dpe/models", "a key has a line break in it$"),
    ],
)
async def test_what_the_client_does_not_even_send_is_refused_with_its_words(
    store: ObjectStore, key: str, uri: str, words: str
) -> None:
    with pytest.raises(StoreRefused, match=words):
        await Storage(store, StaticProvider("a", "b") if key == "a" else Given(key)).names(uri)


def test_keys_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="DPE_S3_SECRET_KEY not set: credentials of the object store"):
        keys({"DPE_S3_ACCESS_KEY": "a"})


async def test_an_object_is_known_by_its_etag_and_one_that_is_not_there_is_none(storage: Storage) -> None:
    assert await storage.etag("s3://dpe/draft/reviewed.parquet") == "of-reviewed.parquet"
    assert await storage.etag("s3://dpe/draft/404") is None


@pytest.mark.parametrize(("name", "error"), [("403", StoreRefused), ("503", StoreUnavailable)])
async def test_no_answer_and_no_right_are_told_from_no_object(
    storage: Storage, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await storage.etag(f"s3://dpe/draft/{name}")
