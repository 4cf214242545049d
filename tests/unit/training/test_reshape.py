import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from dpe_jobs.runtime import BadConfig
from dpe_jobs.training import reshape
from dpe_jobs.training.checkpoints import SHAPE, Shape


class Usage(NamedTuple):
    free: int


def checkpoint(folder: Path, shape: Shape) -> Path:
    """What a pod has on its disk, as far as it is looked at before DeepSpeed is asked."""
    it = folder / "checkpoint-4"
    shards = it / "global_step4"
    shards.mkdir(parents=True)
    for rank in range(shape.world_size):
        (shards / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(bytes(1000))
    (it / SHAPE).write_text(json.dumps(shape._asdict()))
    return it


@pytest.mark.parametrize(("had", "have"), [((2, 3), (2, 3)), ((2, 0), (4, 0))])
def test_a_checkpoint_that_fits_is_left_as_it_is(tmp_path, had, have):
    folder = checkpoint(tmp_path, Shape(*had))
    before = sorted(tmp_path.rglob("*"))
    reshape.fit(folder, Shape(*have))
    assert sorted(tmp_path.rglob("*")) == before
    assert not reshape.is_universal(folder)


@pytest.mark.parametrize(("had", "have"), [((2, 2), (2, 3)), ((2, 3), (4, 0)), ((1, 0), (1, 2))])
def test_another_stage_is_refused_with_what_to_set(tmp_path, had, have):
    folder = checkpoint(tmp_path, Shape(*had))
    with pytest.raises(BadConfig, match=r"zeroStage as it was") as caught:
        reshape.fit(folder, Shape(*have))
    assert caught.value.reason == "CheckpointShape"
    said = f"written by {had[0]} ranks with ZeRO-{had[1]}, and this run has {have[0]} with ZeRO-{have[1]}"
    assert said in str(caught.value)


def test_a_conversion_for_which_the_disk_has_no_room_is_refused_with_both_figures(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, Shape(2, 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=3999))
    with pytest.raises(BadConfig, match="nodes and gpusPerNode as they were, or give the nodes more disk") as caught:
        reshape.fit(folder, Shape(1, 2))
    assert caught.value.reason == "CheckpointShape"
    assert sorted(p.name for p in folder.iterdir()) == ["global_step4", SHAPE]
