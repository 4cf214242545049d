"""Which checkpoint a new attempt goes on from, against a real object store."""

from pathlib import Path

import pytest
from tests.training.support import World

from dpe_api.launch import TrainingLaunch
from dpe_jobs.runtime import Transient
from dpe_jobs.store import join
from dpe_jobs.training import checkpoints
from dpe_jobs.training.checkpoints import Place


def save(
    world: World,
    launch: TrainingLaunch,
    folder: Path,
    step: int,
    commit: bool = True,
    reward: float | None = None,
    attempt: int = 0,
) -> None:
    """A checkpoint of two pods."""
    place = Place(step, attempt)
    for pod in range(2):
        local = folder / f"pod-{pod}" / f"checkpoint-{step}"
        (local / "global_step").mkdir(parents=True, exist_ok=True)
        (local / "global_step" / f"shard-{pod}.pt").write_text(f"{step}/{pod}")
        checkpoints.upload(world.store, launch, place, local, pod)
    if commit:
        outputs = checkpoints.parts(world.store, launch, place, 1)
        checkpoints.commit(world.store, launch, place, outputs, reward)


def shard(launch: TrainingLaunch, step: int, pod: int, attempt: int = 0) -> str:
    return join(checkpoints.folder(launch, Place(step, attempt)), "global_step", f"shard-{pod}.pt")


def test_every_pod_gets_the_shards_of_all(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-union", nodes=2)
    save(world, launch, tmp_path, 4)
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 4
    shards = tmp_path / "new" / "checkpoint-4" / "global_step"
    assert [(shards / f"shard-{pod}.pt").read_text() for pod in range(2)] == ["4/0", "4/1"]


def test_without_a_checkpoint_training_starts_anew(world: World, tmp_path: Path) -> None:
    assert checkpoints.restore(world.store, world.launch("ckpt-none", nodes=2), tmp_path) is None


def test_a_checkpoint_without_its_marker_does_not_exist(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-incomplete", nodes=2)
    save(world, launch, tmp_path, 2)
    save(world, launch, tmp_path, 4, commit=False)
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2


def test_a_truncated_checkpoint_gives_way_to_the_one_before(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-truncated", nodes=2)
    for step in (2, 4):
        save(world, launch, tmp_path, step)
    world.store.put(shard(launch, 4, 1), b"4")
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2
    assert not (tmp_path / "new" / "checkpoint-4").exists()


def test_a_checkpoint_that_lost_a_file_gives_way_to_the_one_before(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-lost-file", nodes=2)
    for step in (2, 4):
        save(world, launch, tmp_path, step)
    world.store.delete([shard(launch, 4, 0)])
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2


def test_the_last_two_are_kept_and_leftovers_go(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-prune", nodes=2)
    save(world, launch, tmp_path, 1)
    save(world, launch, tmp_path, 2)
    save(world, launch, tmp_path, 3, commit=False)
    save(world, launch, tmp_path, 4)
    assert [p.step for p in checkpoints.complete(world.store, launch)] == [4, 2]
    assert world.store.find(shard(launch, 3, 0)) is None
    assert world.store.find(shard(launch, 1, 0)) is None


def test_the_best_is_kept_beside_the_newest(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-best", nodes=2)
    for step, reward in ((1, 0.4), (2, 0.9), (3, 0.5), (4, 0.6), (5, 0.7)):
        save(world, launch, tmp_path, step, reward=reward)
    assert [p.step for p in checkpoints.complete(world.store, launch)] == [5, 4, 2]


def test_a_step_that_a_later_attempt_wrote_again_is_newer_and_its_own(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-again", nodes=2)
    save(world, launch, tmp_path, 4)
    again = launch.model_copy(update={"attempt": 1})
    save(world, again, tmp_path, 4, commit=False, attempt=1)
    assert checkpoints.complete(world.store, launch) == [Place(4, 0)]
    checkpoints.commit(world.store, again, Place(4, 1), checkpoints.parts(world.store, again, Place(4, 1), 1))
    assert checkpoints.complete(world.store, launch) == [Place(4, 1), Place(4, 0)]


def test_a_pod_that_never_uploads_its_part_is_named(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-late", nodes=3)
    save(world, launch, tmp_path, 2, commit=False)
    with pytest.raises(Transient, match="pod 2 has not uploaded its part of step 2") as caught:
        checkpoints.parts(world.store, launch, Place(2, 0), 0.3)
    assert caught.value.reason == "CheckpointLate"
