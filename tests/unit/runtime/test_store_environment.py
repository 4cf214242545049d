"""What a pod's environment means for the clients of the store: whom they trust, and that no proxy is asked."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio.credentials.providers import StaticProvider
from tests.fakes import tls
from tests.fakes.web import Answer, Site, site

from dpe_api.launch import StoreAddress
from dpe_jobs.store import Store, StoreUnreachable
from dpe_operator.platform import ObjectStore
from dpe_operator.storage import Storage, StoreUnavailable

Read = Callable[[str], bytes | None]
HERE = "127.0.0.2"


def stage(endpoint: str) -> bytes | None:
    return Store(StoreAddress(endpoint=endpoint), "access", "secret", outage_s=0.1).find("s3://dpe/a")


def operator(endpoint: str) -> bytes | None:
    facts = ObjectStore(endpoint=endpoint, bucket="dpe", credentials_secret="store")
    return asyncio.run(Storage(facts, StaticProvider("access", "secret")).get("s3://dpe/a"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    return tls.certificate(path, "s3.example", HERE)


@pytest.fixture
def store(certificate: str) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    it = Site({"/dpe/a": Answer(b"here")}, HERE)
    it.speak_tls(context)
    it.start()
    yield it
    it.close()


@pytest.mark.parametrize("read", [stage, operator])
def test_a_store_of_a_private_authority_is_trusted_where_ssl_cert_file_names_it(
    read: Read, store: Site, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"https://{HERE}:{store.port}"
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises((StoreUnreachable, StoreUnavailable)):
        read(endpoint)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert read(endpoint) == b"here"


@pytest.mark.parametrize("read", [stage, operator])
def test_no_proxy_is_asked_for_the_store(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    with site({"/dpe/a": Answer(b"here")}) as there, site() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert read(there.url) == b"here"
        assert proxy.visits == []
