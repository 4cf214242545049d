"""A pool of images must be indexed before an iteration starts."""

import pytest
from tests.unit.operator import given

from dpe_operator.preconditions import outside_problems

POOL = "s3://dpe/data/pool"
V1, V2 = f"{POOL}/_index/v000001-0a0a0a0a", f"{POOL}/_index/v000002-0b0b0b0b"


class Gateway:
    """Every Secret is there."""

    async def secret_keys(self, namespace: str, name: str) -> set[str]:
        return {"accessKey", "secretKey"}


class Storage:
    """Folders with these objects; of anything but the pool all is there."""

    endpoint = "http://store:9000"

    def __init__(self, *objects: str) -> None:
        self._objects = objects

    async def bucket_exists(self, bucket: str) -> bool:
        return True

    async def names(self, uri: str) -> list[str]:
        return [o for o in self._objects if o.startswith(uri)] if uri == POOL else ["config.json", "part.parquet"]

    async def folders(self, uri: str) -> list[str]:
        below = [o.removeprefix(f"{uri}/").split("/")[0] for o in self._objects if o.startswith(f"{uri}/")]
        return sorted({f"{uri}/{name}" for name in below})

    async def get(self, uri: str) -> bytes | None:
        return b"{}" if uri in self._objects else None


@pytest.mark.parametrize(
    ("objects", "reason", "words"),
    [
        ([], "PoolNotFound", "there is nothing below it: upload it or correct the address"),
        ([f"{POOL}/a.parquet"], "PoolNotIndexed", f"which has no index: run python -m dpe_jobs index {POOL}"),
        (
            [f"{POOL}/a.parquet", f"{V1}/images.lance/data/0", f"{POOL}/_index/parts/x"],
            "PoolNotIndexed",
            "has no index",
        ),
        ([f"{POOL}/a.parquet", f"{V1}/manifest.json", f"{V2}/images.lance/data/0"], None, ""),
    ],
    ids=["nothing", "no index", "an index in the making", "an index, and a newer one in the making"],
)
async def test_a_pool_without_an_index_is_a_problem_that_names_field_and_mend(objects, reason, words):
    sources = [{"kind": "render", "program": "shapes"}, {"kind": "pool", "uri": POOL, "program": "shapes"}]
    spec = given.spec(generation={"targetSamples": 4, "maxCandidates": 8, "sources": sources})
    found = await outside_problems(
        Gateway(), Storage(*objects), given.platform(), given.ITERATION, spec, None, startable=True
    )
    assert [problem.reason for problem in found] == ([reason] if reason else [])
    if reason:
        assert f"spec.generation.sources[1].uri is {POOL}" in found[0].message
        assert words in found[0].message
