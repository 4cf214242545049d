"""What the operator asks of a store, over real HTTP: a server that answers HEAD requests as S3 does."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.unit.operator import given

from dpe_operator.storage import Storage, StoreRefused, StoreUnavailable


class Heads(BaseHTTPRequestHandler):
    """By the object's name: a status, and for 200 an ETag. Answers to HEAD have no body, so no error code either."""

    def do_HEAD(self) -> None:
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


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Heads)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = given.platform().object_store
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield Storage(store.model_copy(update={"endpoint": address, "region": "us-east-1"}), "access", "secret")
    server.shutdown()
    server.server_close()


async def test_an_object_is_known_by_its_etag_and_one_that_is_not_there_is_none(storage: Storage) -> None:
    assert await storage.etag("s3://dpe/draft/reviewed.parquet") == "of-reviewed.parquet"
    assert await storage.etag("s3://dpe/draft/404") is None


@pytest.mark.parametrize(("name", "error"), [("403", StoreRefused), ("503", StoreUnavailable)])
async def test_no_answer_and_no_right_are_told_from_no_object(
    storage: Storage, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await storage.etag(f"s3://dpe/draft/{name}")
