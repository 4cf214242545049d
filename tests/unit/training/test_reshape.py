import json
import shutil
import sys
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


def never():
    pytest.fail("nothing is converted")


@pytest.mark.parametrize(("had", "have"), [((2, 3), (2, 3)), ((2, 0), (4, 0))])
def test_a_checkpoint_that_fits_is_left_as_it_is(tmp_path, had, have):
    folder = checkpoint(tmp_path, Shape(*had))
    before = sorted(tmp_path.rglob("*"))
    reshape.fit(folder, Shape(*have), never)
    assert sorted(tmp_path.rglob("*")) == before
    assert not reshape.is_universal(folder)


@pytest.mark.parametrize(("had", "have"), [((2, 2), (2, 3)), ((2, 3), (4, 0)), ((1, 0), (1, 2))])
def test_another_stage_is_refused_with_what_to_set(tmp_path, had, have):
    folder = checkpoint(tmp_path, Shape(*had))
    with pytest.raises(BadConfig, match=r"zeroStage as it was") as caught:
        reshape.fit(folder, Shape(*have), never)
    assert caught.value.reason == "CheckpointShape"
    said = f"written by {had[0]} ranks with ZeRO-{had[1]}, and this run has {have[0]} with ZeRO-{have[1]}"
    assert said in str(caught.value)


def test_a_conversion_for_which_the_disk_has_no_room_is_refused_with_both_figures(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, Shape(2, 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=3999))
    with pytest.raises(BadConfig, match="nodes and gpusPerNode as they were, or give the nodes more disk") as caught:
        reshape.fit(folder, Shape(1, 2), never)
    assert caught.value.reason == "CheckpointShape"
    assert sorted(p.name for p in folder.iterdir()) == ["global_step4", SHAPE]


# writes, waits for a word that this was seen, takes all of it away again, and writes no more
CONVERTER = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
heard = lambda: len(list(out.parent.glob("heard-*")))
def until(count):
    end = time.monotonic() + 30
    while heard() < count and time.monotonic() < end:
        time.sleep(0.01)
(out / "tmp").mkdir(parents=True)
(out / "tmp" / "fragment").write_bytes(bytes(1000))
until(1)
(out / "tmp" / "fragment").unlink()
until(2)
time.sleep(0.5)
print("heard", heard(), "times")
sys.exit(3)
"""


def test_a_conversion_is_heard_of_while_it_gets_on_and_only_then(tmp_path):
    heard = []

    def advanced():
        heard.append(None)
        (tmp_path / f"heard-{len(heard)}").touch()

    out = tmp_path / "out"
    code, said = reshape.watched([sys.executable, "-c", CONVERTER, str(out)], out, advanced, every_s=0.02)
    assert (code, said) == (3, "heard 2 times\n")


def test_a_conversion_beats_for_the_parent(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, Shape(2, 2))
    beats = []

    def watched(command, writes, advanced):
        assert writes == folder / "global_step4_universal"
        advanced()
        return 0, ""

    monkeypatch.setattr(reshape, "watched", watched)
    reshape.fit(folder, Shape(1, 2), lambda: beats.append(None))
    assert len(beats) == 1
