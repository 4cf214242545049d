"""What a user sees when the input is wrong, that nothing runs forever, and that mending the cause lets it go on."""

import io
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpe_api.artifacts import Manifest
from dpe_api.names import Stage
from dpe_api.status import Phase, StageState
from dpe_jobs.store import join
from tests.e2e.world import World, example, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

PROBE = "s3://dpe/data/shapes/probe"
BASE = "s3://dpe/models/shapes-base"


@pytest.fixture
def scratch(world: World) -> Iterator[str]:
    """A folder of the store that is gone afterwards."""
    uri = f"s3://{world.bucket}/scratch-{secrets.token_hex(4)}"
    yield uri
    world.store.delete(found.uri for found in world.store.list(uri))


def small(**changes: Any) -> dict[str, Any]:
    """The example, small enough to end soon."""
    base = example(
        "iteration-1.yaml",
        probe={"sampleSize": 28},
        diagnosis={"rolloutsPerItem": 2},
        generation={"targetSamples": 16, "maxCandidates": 200},
        training={"maxSteps": 2, "checkpointEverySteps": 1},
        evaluation={"benchmarks": [], "gate": {"maxRegression": 1.0}},
    )
    return {**base, **{k: {**base.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}


def probe_table(world: World) -> pa.Table:
    (file,) = world.store.parquet_files(PROBE)
    return pq.read_table(io.BytesIO(world.store.get(file)))


def put_table(world: World, table: pa.Table, uri: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    world.store.put(join(uri, "part-0.parquet"), buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "change", "reason", "told"),
    [
        ("no-bucket", {"probe": {"uri": "s3://no-such-bucket/probe"}}, "ProbeNotFound", "spec.probe.uri"),
        ("no-pool", {"training": {"pool": "nowhere"}}, "UnknownPool", "spec.training.pool is nowhere"),
        ("no-model", {"model": {"uri": "s3://dpe/models/nothing"}}, "ModelNotFound", "spec.model.uri"),
    ],
)
def test_what_does_not_exist_is_named_and_nothing_is_spawned(
    world: World, name: str, change: dict[str, Any], reason: str, told: str
) -> None:
    world.create(name, small(**change))
    message = world.wait_condition(name, "Accepted", "False", reason, deadline_s=60)
    assert told in message
    assert world.jobs(name) == []
    world.delete(name)


def test_iteration_starts_by_itself_when_the_missing_probe_arrives(world: World, scratch: str) -> None:
    world.create("late-probe", small(probe={"uri": scratch}))
    message = world.wait_condition("late-probe", "Accepted", "False", "ProbeNotFound", deadline_s=60)
    assert scratch in message
    put_table(world, probe_table(world), scratch)
    world.wait_phase("late-probe", Phase.DIAGNOSING, deadline_s=60)
    world.delete("late-probe")


def test_an_unusable_probe_and_a_model_fail_at_once_with_the_place_and_the_mend(world: World, scratch: str) -> None:
    """Two iterations side by side: each needs a pod to find out."""
    table = probe_table(world)
    images = table.column("image").to_pylist()
    images[3] = {"bytes": b"not a picture", "path": None}
    column = table.schema.get_field_index("image")
    broken = table.set_column(column, table.schema.field("image"), pa.array(images, table.schema.field("image").type))
    put_table(world, broken, join(scratch, "bad-image"))
    for file in world.store.list(BASE):
        target = join(scratch, "model", file.uri.removeprefix(BASE + "/"))
        if file.uri.endswith("config.json") and "generation" not in file.uri and "processor" not in file.uri:
            config = json.loads(world.store.get(file.uri))
            config["architectures"] = ["NoSuchForConditionalGeneration"]
            world.store.put(target, json.dumps(config).encode())
        elif not file.uri.endswith("manifest.json"):
            world.store.put(target, world.store.get(file.uri))
    cases = {
        "bad-image": (small(probe={"uri": join(scratch, "bad-image")}), Stage.DIAGNOSIS, ("part-0.parquet", "image")),
        "bad-model": (small(model={"uri": join(scratch, "model")}), Stage.SERVE_BASE, ("NoSuchForConditional",)),
    }
    for name, (spec, _, _) in cases.items():
        world.create(name, spec)
    for name, (_, stage, told) in cases.items():
        status = wait_for(
            lambda name=name: (s := world.status(name)).phase.is_final and s, 400, lambda name=name: world.story(name)
        )
        assert status.phase is Phase.FAILED, world.story(name)
        entry = status.stage_status(stage)
        assert (entry.state, entry.failures) == (StageState.FAILED, 1), world.story(name)
        assert all(word in (entry.message or "") for word in told), entry.message
        failed = next(c for c in status.conditions if c.type == "Failed")
        assert failed.status == "True"
        assert str(stage) in failed.message
        wait_for(
            lambda name=name: not [p for p in world.pods(name) if p.status.phase in ("Pending", "Running")],
            60,
            lambda name=name: f"pods of {name} still run",
        )
        world.delete(name)


def test_a_model_that_is_not_what_its_manifest_says_is_refused(world: World, scratch: str) -> None:
    for file in world.store.list(BASE):
        data = world.store.get(file.uri)
        if file.uri.endswith(".safetensors"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        world.store.put(join(scratch, file.uri.removeprefix(BASE + "/")), data)
    # a manifest of its own: of equal ones the whole model may be in the cache, which then rightly is served
    manifest = Manifest.model_validate_json(world.store.get(join(scratch, "manifest.json")))
    again = manifest.model_copy(update={"created_at": datetime.now(UTC)})
    world.store.put(join(scratch, "manifest.json"), again.model_dump_json(by_alias=True).encode())
    world.create("flipped-bit", small(model={"uri": scratch}))
    status = wait_for(
        lambda: (s := world.status("flipped-bit")).phase.is_final and s, 120, lambda: world.story("flipped-bit")
    )
    assert "sha256" in (status.stage_status(Stage.SERVE_BASE).message or ""), world.story("flipped-bit")
    world.delete("flipped-bit")
