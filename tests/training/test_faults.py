"""What may befall a run in the night: each ends with its own reason, and nothing is lost but steps."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.own_minio import Minio as OwnMinio
from tests.training.support import World, wait_for

from dpe_api.artifacts import TrainingSummary
from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, Exit
from dpe_jobs.store import join
from dpe_jobs.training import checkpoints

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def summary(world: World, launch: TrainingLaunch) -> TrainingSummary:
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    return TrainingSummary.model_validate(manifest.summary)


def rewards_package(folder: Path, body: str) -> Path:
    """A user's package with the reward `odd`."""
    (folder / "odd_rewards.py").write_text(body)
    info = folder / "odd_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpe.rewards]\nodd = odd_rewards:odd\n")
    return folder


CUSTOM = {"custom": [{"name": "odd", "weight": 1}]}


def test_a_gradient_that_overflows_ends_the_run_as_loss_not_finite(world: World, tmp_path: Path) -> None:
    body = "def odd(completions, **_):\n    return [1e30 * (n % 2) for n in range(len(completions))]\n"
    package = rewards_package(tmp_path, body)
    launch = world.launch("overflow", rewards=CUSTOM, scale_rewards="none")
    (pod,) = world.start(launch, path=[package])
    assert pod.wait() == Exit.TRANSIENT, pod.output()
    assert pod.reason() == "LossNotFinite"
    assert pod.steps() == 0, "a step that is not finite is not recorded as one"


def test_a_users_reward_that_fails_is_bad_configuration_and_named(world: World, tmp_path: Path) -> None:
    package = rewards_package(tmp_path, "def odd(completions, **_):\n    return completions.missing\n")
    (pod,) = world.start(world.launch("odd-reward", rewards=CUSTOM), path=[package])
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()
    assert pod.reason() == "RewardFailed"
    assert "odd raised AttributeError" in pod.output()


def test_rewards_that_never_differ_end_the_run_with_their_reason(world: World, tmp_path: Path) -> None:
    package = rewards_package(tmp_path, "def odd(completions, **_):\n    return [0.5] * len(completions)\n")
    launch = world.launch("flat", max_steps=30, rewards={"answer": 0, **CUSTOM}, guards={"window": 4})
    (pod,) = world.start(launch, path=[package])
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()
    assert pod.reason() == "EqualRewards"
    assert pod.steps() == 3, "the fourth step of the window is the one that ends it"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[World, OwnMinio]]:
    """A world whose store may go away."""
    (tmp_path / "data").mkdir()
    minio = OwnMinio(tmp_path / "data")
    minio.start()
    minio.bucket("dpe")
    (tmp_path / "pods").mkdir()
    keys = {ENV_ACCESS_KEY: minio.key, ENV_SECRET_KEY: minio.secret}
    address = StoreAddress(endpoint=f"http://{minio.address}")
    world = World(minio.store(), address, tmp_path / "pods", credentials=keys)
    world.fill()
    try:
        yield world, minio
    finally:
        for process in world.pods:
            process.kill()
            process.wait()
        minio.stop()


def test_a_store_that_comes_back_costs_nothing_but_time(own: tuple[World, OwnMinio]) -> None:
    world, minio = own
    launch = world.launch("away", max_steps=12)
    (pod,) = world.start(launch)
    wait_for("a checkpoint", lambda: bool(checkpoints.complete(world.store, launch)))
    minio.stop()
    wait_for("an upload that is tried again", lambda: "object store: " in pod.output())
    minio.start()
    assert pod.wait() == 0, pod.output()
    assert summary(world, launch).steps == 12
    rows = world.store.get(join(launch.output, "metrics.jsonl")).splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 13))
    assert checkpoints.complete(world.store, launch)[0].step == 12


def test_a_store_that_stays_away_is_the_reason_and_the_next_attempt_goes_on(own: tuple[World, OwnMinio]) -> None:
    world, minio = own
    launch = world.launch("gone", max_steps=200)
    (pod,) = world.start(launch, outage_s=2)
    wait_for("a second checkpoint", lambda: len(checkpoints.complete(world.store, launch)) >= 2)
    saved = checkpoints.complete(world.store, launch)[0].step
    minio.stop()
    assert pod.wait() == Exit.TRANSIENT, pod.output()
    assert pod.reason() == "StoreUnreachable"
    minio.start()
    (pod,) = world.start(launch.model_copy(update={"attempt": 1}))
    wait_for("a step of the next attempt", lambda: pod.steps() > saved)
    assert "resuming after step" in pod.output()
    first = json.loads((pod.work / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] == 1, "the metrics of the steps before are there too"
    pod.process.send_signal(signal.SIGTERM)
    pod.wait()


def test_a_truncated_checkpoint_gives_way_to_the_one_before_and_one_of_another_stage_is_refused(world: World) -> None:
    launch = world.launch("torn", max_steps=200, zero=2)
    (pod,) = world.start(launch)
    wait_for("two checkpoints", lambda: len(checkpoints.complete(world.store, launch)) >= 2)
    os.kill(pod.rank_pids()[0], signal.SIGKILL)
    assert pod.wait() == Exit.TRANSIENT, pod.output()
    newest, before, *_ = checkpoints.complete(world.store, launch)
    files = [o.uri for o in world.store.list(checkpoints.folder(launch, newest))]
    shard = next(uri for uri in files if uri.endswith("optim_states.pt"))
    world.store.put(shard, world.store.get(shard)[:-100])
    (pod,) = world.start(launch.model_copy(update={"attempt": 1}))
    wait_for("a step of the next attempt", lambda: pod.steps() > before.step)
    assert f"checkpoint of step {newest.step} is not usable" in pod.output()
    assert f"resuming after step {before.step}" in pod.output()
    pod.process.send_signal(signal.SIGTERM)
    pod.wait()

    (pod,) = world.start(world.launch("torn", attempt=2, max_steps=200, zero=3))
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()
    assert pod.reason() == "CheckpointShape"
    assert "written by 1 ranks with ZeRO-2, and this run has 1 with ZeRO-3" in pod.output()
