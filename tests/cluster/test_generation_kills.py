"""The generation as a process of its own, against a real MinIO and a model over HTTP, killed at random moments.

What holds: the same samples are kept, byte for byte; nothing that the ledger in the store has is asked again; what a
kill costs is what was in flight, what came since the last flush (less than 50), and the part that was being put.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.cluster.own_minio import Minio
from tests.fakes import entry_points
from tests.fakes.openai_server import Asked, FakeModel, serving
from tests.unit.generation import world

from dpe_api.generation_spec import Source, SourceKind
from dpe_api.launch import GenerationLaunch, StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, Exit
from dpe_jobs.ledger import FLUSH_ITEMS
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
CONCURRENCY = 8
WANTED = {"color": 20, "color_fine": 90, "shape_ref": 70}  # color is strong: it is not asked
LATENCY_S = 0.02
SEED = 7


def model_under_test(asked: Asked) -> list[str]:
    """Solves half of it, always in the same way; takes its time."""
    time.sleep(LATENCY_S * (0.5 + derive(1, asked.body["seed"]) / 2**31))
    return list(world.solves(0.5)(asked))


@dataclass
class Setting:
    """One store with one generation in it."""

    minio: Minio
    store: Store
    folder: Path
    root: str
    model: FakeModel

    @property
    def output(self) -> str:
        return f"{self.root}/generation"

    def launch(self, attempt: int) -> GenerationLaunch:
        return world.launch(
            self.model.url,
            attempt=attempt,
            output=self.output,
            store=StoreAddress(endpoint=f"http://{self.minio.address}"),
            concurrency=CONCURRENCY,
            generation={
                "target_samples": sum(WANTED.values()),
                "max_candidates": 10 * sum(WANTED.values()),
                "sources": [
                    Source(kind=SourceKind.RENDER, program="shapes"),
                    Source(kind=SourceKind.EDIT, program="recolour", share=0.5),
                ],
            },
        )

    def start(self, attempt: int) -> subprocess.Popen[bytes]:
        file = self.folder / f"launch-{attempt}.json"
        file.write_text(self.launch(attempt).model_dump_json(by_alias=True))
        paths = [self.folder.parent / "site", *(REPOSITORY / p for p in ("crds", "jobs", "."))]
        env = {
            **os.environ,
            ENV_ACCESS_KEY: self.minio.key,
            ENV_SECRET_KEY: self.minio.secret,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        with (self.folder / f"log-{attempt}.jsonl").open("wb") as log:
            command = [sys.executable, "-m", "tests.fakes.stage_process", str(file)]
            return subprocess.Popen(command, env=env, cwd=REPOSITORY, stderr=log)

    def finish(self, attempt: int) -> None:
        process = self.start(attempt)
        assert process.wait(200) == Exit.DONE, (self.folder / f"log-{attempt}.jsonl").read_text()

    def in_ledger(self) -> set[int]:
        """Seeds of the requests whose answers the store knows."""
        found = [o.uri for o in self.store.list(f"{self.output}/ledger") if o.uri.endswith(".jsonl")]
        ids = {json.loads(line)["id"] for uri in found for line in self.store.get(uri).splitlines()}
        return {derive(SEED, "generation", "rollouts", name) for name in ids}

    def asked(self) -> list[int]:
        """Seeds of all requests so far: one for each candidate."""
        return [a.body["seed"] for a in list(self.model.requests)]

    def published(self) -> tuple[dict[str, str], list[dict[str, object]]]:
        """Files of samples, and rejections but for those of candidates that nobody needed."""
        manifest = self.store.manifest(self.output)
        assert manifest is not None
        rejected = pq.read_table(io.BytesIO(self.store.get(f"{self.output}/rejected.parquet"))).to_pylist()
        files = {o.path: o.sha256 for o in manifest.outputs if o.path.startswith("samples/")}
        return files, [row for row in rejected if row["reason"] != "Surplus"]


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    it = Minio(tmp_path_factory.mktemp("minio"))
    it.start()
    it.bucket("dpe")
    world.fill(it.store(), WANTED)
    yield it
    it.stop()


@pytest.fixture
def settings(minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Setting]]:
    """Two times the same, each with a server of its own."""
    entry_points.install(tmp_path, monkeypatch)
    made = []
    with serving(model_under_test) as one, serving(model_under_test) as other:
        for number, model in enumerate((one, other)):
            folder = tmp_path / str(number)
            folder.mkdir()
            made.append(Setting(minio, minio.store(), folder, f"s3://dpe/{tmp_path.name}-{number}", model))
        yield made


def wait_for_moment(it: Setting, process: subprocess.Popen[bytes], before: int, draw: random.Random) -> None:
    """Some time after the start, or after some requests: either may fall into anything that the stage does."""
    wanted, end = draw.randint(0, 90), time.monotonic() + draw.choice([60, draw.uniform(0.2, 4)])
    while process.poll() is None and len(it.model.requests) - before < wanted and time.monotonic() < end:
        time.sleep(0.002)


@pytest.mark.parametrize("seed", [1])
def test_ten_kills_at_random_moments_keep_the_same_samples_and_repeat_only_what_was_not_flushed(settings, seed):
    whole, killed = settings
    whole.finish(1)
    assert Counter(whole.asked()).most_common(1)[0][1] == 1

    draw, lost = random.Random(seed), 0
    for number in range(10):
        known, before = killed.in_ledger(), len(killed.model.requests)
        process = killed.start(number + 1)
        wait_for_moment(killed, process, before, draw)
        assert process.poll() is None, "the stage ended before it was killed ten times"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        sent = killed.asked()[before:]
        assert not known & set(sent), "what the ledger has is not asked again"
        gone = set(sent) - killed.in_ledger()
        assert len(gone) <= 2 * FLUSH_ITEMS + CONCURRENCY
        lost += len(gone)
    killed.finish(11)
    counts = Counter(killed.asked())
    assert sum(counts.values()) - len(counts) <= lost, "nothing is asked twice but what a kill lost"
    assert killed.published() == whole.published()
