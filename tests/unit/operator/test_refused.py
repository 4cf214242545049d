"""A store that lets the platform's credentials read its own bucket, and refuses another team's."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from minio.credentials.providers import StaticProvider
from tests.unit.operator import given

from dpe_api.spec import Spec
from dpe_operator import metrics
from dpe_operator.platform import Platform
from dpe_operator.preconditions import outside_problems
from dpe_operator.storage import Storage, StoreRefused
from dpe_operator.world import Problem

LISTING = "<ListBucketResult><Name>dpe</Name><Contents><Key>{}</Key></Contents></ListBucketResult>"
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
POOL = {"kind": "pool", "program": "shapes"}
THEIRS = "s3://another-teams-bucket/data"


class Handler(BaseHTTPRequestHandler):
    """Bucket dpe holds all that an iteration needs, but for its folder `closed`; any other bucket is refused."""

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body.encode())

    def do_GET(self) -> None:
        opened = self.path.split("?")[0].strip("/").split("/")[0] == "dpe" and "closed" not in self.path
        found = "config.json" if "models" in self.path else "part.parquet"
        self._answer(*(200, LISTING.format(found)) if opened else (403, DENIED))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Gateway:
    """Every Secret is there."""

    async def secret_keys(self, namespace: str, name: str) -> set[str]:
        return {"accessKey", "secretKey"}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield given.platform(
            objectStore={"endpoint": address, "bucket": "dpe", "prefix": "runs", "credentialsSecret": "dpe-store"}
        )
        server.shutdown()


def storage(platform: Platform) -> Storage:
    return Storage(platform.object_store, StaticProvider("access", "secret"))


async def problems(platform: Platform, spec: Spec) -> list[Problem]:
    return await outside_problems(
        Gateway(),  # type: ignore[arg-type]
        storage(platform),
        platform,
        given.ITERATION,
        spec,
        None,
        startable=True,
    )


def refused() -> float:
    return metrics.REGISTRY.get_sample_value("dpe_store_errors_total", {"kind": "refused"}) or 0


@pytest.mark.parametrize("uri", [THEIRS, "s3://a..b/data", "s3://dpe/closed/data"])
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("spec.model.uri", lambda uri: {"model": {"uri": uri}}),
        ("spec.probe.uri", lambda uri: {"probe": {"uri": uri}}),
        ("spec.evaluation.benchmarks[0].uri", lambda uri: {"evaluation": {"benchmarks": [{"name": "t", "uri": uri}]}}),
        (
            "spec.generation.sources[0].uri",
            lambda uri: {"generation": {"targetSamples": 4, "maxCandidates": 8, "sources": [{**POOL, "uri": uri}]}},
        ),
    ],
)
async def test_an_address_that_the_store_refuses_is_named_by_its_field_and_raises_no_alert(
    platform: Platform, uri: str, field: str, changes
) -> None:
    before = refused()
    (found,) = await problems(platform, given.spec(**changes(uri)))
    assert found.reason == "AddressRefused"
    assert found.message.startswith(f"{field} is {uri}: object store ")
    assert "Secret" not in found.message
    assert refused() == before


async def test_the_next_field_is_looked_at_all_the_same(platform: Platform) -> None:
    found = await problems(platform, given.spec(model={"uri": THEIRS}, probe={"uri": THEIRS}))
    assert [p.message.split()[0] for p in found] == ["spec.model.uri", "spec.probe.uri"]


async def test_that_the_platforms_own_folder_is_refused_is_counted(platform: Platform) -> None:
    before = refused()
    with pytest.raises(StoreRefused):
        await storage(platform).names("s3://dpe/runs/closed")
    assert refused() == before + 1


async def test_credentials_that_may_not_even_ask_for_the_bucket_are_to_be_corrected_in_their_secret(
    platform: Platform,
) -> None:
    store = platform.object_store.model_copy(update={"bucket": "not-ours"})
    before = refused()
    (found,) = await problems(platform.model_copy(update={"object_store": store}), given.spec())
    assert found.reason == "StoreRefused"
    assert found.message.endswith("correct the credentials in dpe-store")
    assert refused() == before + 1
