"""Which checkpoint a new attempt goes on from, against a real object store."""

from pathlib import Path

from tests.training.support import World

from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.store import join
from dpe_jobs.training import checkpoints


def save(world: World, launch: TrainingLaunch, folder: Path, step: int, commit: bool = True) -> None:
    """A checkpoint of two pods."""
    outputs = []
    for pod in range(2):
        local = folder / f"pod-{pod}" / f"checkpoint-{step}"
        (local / "global_step").mkdir(parents=True)
        (local / "global_step" / f"shard-{pod}.pt").write_text(f"{step}/{pod}")
        outputs += checkpoints.upload(world.store, launch, step, local)
    if commit:
        checkpoints.commit(world.store, launch, step, outputs)


def test_every_pod_gets_the_shards_of_all(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-union")
    save(world, launch, tmp_path, 4)
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 4
    shards = tmp_path / "new" / "checkpoint-4" / "global_step"
    assert [(shards / f"shard-{pod}.pt").read_text() for pod in range(2)] == ["4/0", "4/1"]


def test_without_a_checkpoint_training_starts_anew(world: World, tmp_path: Path) -> None:
    assert checkpoints.restore(world.store, world.launch("ckpt-none"), tmp_path) is None


def test_a_checkpoint_without_its_marker_does_not_exist(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-incomplete")
    save(world, launch, tmp_path, 2)
    save(world, launch, tmp_path, 4, commit=False)
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2


def test_a_truncated_checkpoint_gives_way_to_the_one_before(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-truncated")
    for step in (2, 4):
        save(world, launch, tmp_path, step)
    world.store.put(join(checkpoints.folder(launch, 4), "global_step", "shard-1.pt"), b"4")
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2
    assert not (tmp_path / "new" / "checkpoint-4").exists()


def test_a_checkpoint_that_lost_a_file_gives_way_to_the_one_before(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-lost-file")
    for step in (2, 4):
        save(world, launch, tmp_path, step)
    world.store.delete([join(checkpoints.folder(launch, 4), "global_step", "shard-0.pt")])
    assert checkpoints.restore(world.store, launch, tmp_path / "new") == 2


def test_the_last_two_are_kept_and_leftovers_go(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-prune")
    save(world, launch, tmp_path, 1)
    save(world, launch, tmp_path, 2)
    save(world, launch, tmp_path, 3, commit=False)
    save(world, launch, tmp_path, 4)
    assert checkpoints.complete_steps(world.store, launch) == [4, 2]
    assert world.store.find(join(checkpoints.folder(launch, 3), "global_step", "shard-0.pt")) is None
    assert world.store.find(join(checkpoints.folder(launch, 1), "global_step", "shard-0.pt")) is None


def test_a_step_written_again_does_not_count_until_it_is_whole_again(world: World, tmp_path: Path) -> None:
    launch = world.launch("ckpt-again")
    save(world, launch, tmp_path, 2)
    checkpoints.withdraw(world.store, launch, 2)
    assert world.store.find(join(checkpoints.folder(launch, 2), MANIFEST)) is None
    assert checkpoints.restore(world.store, launch, tmp_path / "new") is None
