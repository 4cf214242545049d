"""Samples are read from the store as they are asked for, and each rank reads its own."""

import json
import os
import random
import resource
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.training.support import World, draw_samples, publish_folder
from tests.training.test_faults import CUSTOM, rewards_package

from dpe_jobs.questions import SCHEMA
from dpe_jobs.ranges import RangeFile
from dpe_jobs.runtime import BadData
from dpe_jobs.store import join
from dpe_jobs.training.data import load_samples
from dpe_jobs.training.samples import Samples, Source, in_store

GROUP_ROWS = 40


def grouped(path: Path, groups: int, padding: int = 0) -> None:
    """Drawn samples in small row groups; `padding` random bytes behind each picture make them as large as real ones."""
    draw_samples(path, GROUP_ROWS)
    rows = pq.read_table(path).to_pylist()
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for group in range(groups):
            rng = random.Random(group)
            for number, row in enumerate(rows):
                row["id"] = f"s-{group * GROUP_ROWS + number}"
                picture = row["image"]["bytes"].split(b"IEND")[0] + b"IEND\xaeB`\x82"
                row["image"] = {"bytes": picture + rng.randbytes(padding), "path": None}
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def published(world: World, tmp_path: Path, name: str, groups: int, padding: int = 0) -> str:
    grouped(tmp_path / "part.parquet", groups, padding)
    uri = f"s3://dpe/{name}"
    publish_folder(world.store, {"samples/a.parquet": tmp_path / "part.parquet"}, uri, "generation")
    return uri


def test_rows_read_by_ranges_are_those_of_the_file(world: World, tmp_path: Path) -> None:
    samples = Samples(in_store(world.store, published(world, tmp_path, "ranges", 5)))
    assert samples.groups == [GROUP_ROWS] * 5
    whole = pq.read_table(tmp_path / "part.parquet").to_pylist()
    for number in (0, 39, 40, 199, 77, 0):
        found = samples.row(number)
        assert {name: whole[number][name] for name in found} == found


def test_a_range_file_reads_what_the_object_holds(world: World) -> None:
    data = bytes(range(256)) * 10
    world.store.put("s3://dpe/bytes", data)
    file = RangeFile(world.store, "s3://dpe/bytes", len(data))
    assert file.read(10) == data[:10]
    file.seek(-5, os.SEEK_END)
    assert file.read() == data[-5:]
    assert file.read(1) == b""
    file.seek(100)
    assert (file.read(3), file.tell()) == (data[100:103], 103)


def test_an_epoch_over_many_samples_keeps_memory_flat(world: World, tmp_path: Path) -> None:
    groups, padding = 60, 100_000  # 60 groups of 4 MB
    samples = Samples(in_store(world.store, published(world, tmp_path, "large", groups, padding)), 32 << 20)
    prompts = load_samples(samples, len(samples), seed=0, max_pixels=1_003_520)
    for number in range(800):
        prompts[number]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = {prompts[number]["id"] for number in range(800, len(prompts))}
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(seen) == len(samples) - 800
    assert grown_mb < 40, f"{grown_mb:.0f} MB more after 160 MB of samples"


def test_a_row_group_is_fetched_about_once_an_epoch(world: World, tmp_path: Path) -> None:
    uri = published(world, tmp_path, "economy", 40)
    (source,) = in_store(world.store, uri)
    read: list[int] = []

    class Counted(RangeFile):
        def readinto(self, buffer: Any) -> int:
            read.append(length := super().readinto(buffer))
            return length

    size = (tmp_path / "part.parquet").stat().st_size
    samples = Samples([Source("a", lambda: Counted(world.store, join(uri, source.name), size))], 16 * 100_000)
    opening = sum(read)
    prompts = load_samples(samples, len(samples), seed=0, max_pixels=1_003_520)
    for number in range(len(prompts)):
        prompts[number]
    assert sum(read) - opening < 2 * size


def test_samples_that_vanish_while_training_are_told_by_their_address(world: World, tmp_path: Path) -> None:
    uri = published(world, tmp_path, "vanishing", 3)
    samples = Samples(in_store(world.store, uri), cached_bytes=0)
    samples.row(0)
    world.store.delete([join(uri, "samples", "a.parquet")])
    with pytest.raises(Exception, match=r"vanishing/samples/a\.parquet does not exist"):
        samples.row(100)


def test_a_file_that_is_no_parquet_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
    publish_folder(world.store, {"samples/x.parquet": tmp_path / "x.parquet"}, "s3://dpe/torn", "generation")
    with pytest.raises(BadData, match=r"samples/x\.parquet is no readable Parquet file"):
        Samples(in_store(world.store, "s3://dpe/torn"))


SEEN = """
import json, os
from pathlib import Path

def odd(completions, id, trainer_state, **_):
    line = {"rank": int(os.environ["RANK"]), "step": trainer_state.global_step, "ids": id}
    with Path(os.environ["SEEN"]).open("a") as out:
        out.write(json.dumps(line) + "\\n")
    return [None] * len(completions)
"""


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_every_rank_is_asked_prompts_of_its_own(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.jsonl"))
    rewards = {"answer": 1, **CUSTOM}
    launch = world.launch("disjoint", nodes=2, max_steps=3, rewards=rewards)
    pods = world.start(launch, path=[rewards_package(tmp_path, SEEN)])
    assert [p.wait() for p in pods] == [0, 0], pods[0].output()
    lines = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    asked: Counter[str] = Counter()
    for _, step in groupby(sorted(lines, key=lambda line: line["step"]), key=lambda line: line["step"]):
        first, second = (Counter(line["ids"]) for line in step)
        assert not first.keys() & second.keys()
        assert set(first.values()) == set(second.values()) == {launch.training.rollouts_per_prompt}
        asked.update([*first, *second])
    assert set(asked.values()) == {1}, "24 samples are enough for 12 prompts"
