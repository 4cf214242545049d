"""What the operator asks of a store, over real HTTP: a server that answers HEAD requests as S3 does."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider, StaticProvider
from tests.unit.operator import given

from dpe_operator import storage as module
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


@pytest.fixture
def silent(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that takes connections and never answers."""
    monkeypatch.setattr(module, "READ_S", 0.5)
    monkeypatch.setattr(module, "PROBE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield store.model_copy(update={"endpoint": f"http://127.0.0.1:{listening.getsockname()[1]}"})


async def test_a_store_that_never_answers_is_waited_for_by_few_and_all_others_are_told_at_once(
    silent: ObjectStore,
) -> None:
    storage = Storage(silent, StaticProvider("access", "secret"))
    began = time.monotonic()
    told = await asyncio.gather(*(storage.manifest(f"s3://dpe/i{n}") for n in range(300)), return_exceptions=True)
    took_s = time.monotonic() - began
    assert {type(error) for error in told} <= {StoreUnavailable, module._NoAnswer}
    assert len({str(error) for error in told}) == 1
    assert took_s < 4 * module.READ_S, "one after the other it were 19 s"


async def test_a_store_that_answers_again_is_found_out_by_one_that_tries(
    silent: ObjectStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(silent, StaticProvider("access", "secret"))
    asked = 0

    def answers() -> str:
        nonlocal asked
        asked += 1
        return "it"

    def silence() -> str:
        nonlocal asked
        asked += 1
        raise TimeoutError

    async def all_ask(request: Callable[[], str]) -> int:
        nonlocal asked
        asked = 0
        await asyncio.gather(*(storage._ask(request) for _ in range(50)), return_exceptions=True)
        return asked

    monkeypatch.setattr(module, "PROBE_S", 3600.0)
    assert module.IN_FLIGHT <= await all_ask(silence) < 2 * module.IN_FLIGHT
    assert await all_ask(answers) == 0, "nobody tries yet"
    storage._silence._next_try = 0.0
    assert await all_ask(silence) == 1
    storage._silence._next_try = 0.0
    assert await all_ask(answers) >= 1
    assert await all_ask(answers) == 50


async def test_one_that_takes_its_time_does_not_keep_all_others_from_a_store_that_answers_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, lists, ends = Storage(store, StaticProvider("access", "secret")), threading.Event(), threading.Event()

    def many_pages() -> str:
        lists.set()
        assert ends.wait(10)
        return "all"

    storage._silence._unanswered, storage._silence._why = module.IN_FLIGHT, "it was silent"
    slow = asyncio.create_task(storage._ask(many_pages))
    assert await asyncio.to_thread(lists.wait, 10)
    with pytest.raises(StoreUnavailable, match="it was silent"):
        await storage.etag("s3://dpe/x")
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + module.CONNECT_S + module.READ_S + module.PROBE_S)
    assert await storage.etag("s3://dpe/x") == "of-x"
    ends.set()
    assert await slow == "all"


async def test_one_that_stops_trying_leaves_it_to_another(silent: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(silent, StaticProvider("access", "secret"))
    await asyncio.gather(*(storage.manifest(f"s3://dpe/i{n}") for n in range(10)), return_exceptions=True)
    storage._silence._next_try = 0.0
    tries = asyncio.create_task(storage.manifest("s3://dpe/i0"))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await storage.manifest("s3://dpe/i1")
    tries.cancel()
    await asyncio.gather(tries, return_exceptions=True)
    with pytest.raises(module._NoAnswer):
        await storage.manifest("s3://dpe/i1")
