"""The diagnosis as a process of its own, against a real MinIO and a model over HTTP, killed at random moments.

What holds: the end is that of an undisturbed run; nothing that the ledger in the store has is asked again; what a kill
costs is what was in flight, what came since the last flush (less than 50 answers), and the part that was being put.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.cluster.own_minio import Minio
from tests.fakes import entry_points, worlds
from tests.fakes.openai_server import Asked, FakeModel, Reply, serving

from dpe_api.diagnosis_spec import Probe
from dpe_api.launch import DiagnosisLaunch, StoreAddress
from dpe_api.names import ENV_ACCESS_KEY, ENV_SECRET_KEY, Exit
from dpe_jobs.diagnosis.ask import GREEDY, SAMPLED, key
from dpe_jobs.ledger import FLUSH_ITEMS
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).parents[2]
CONCURRENCY = 8
PROBE, TEST = 210, 120  # rows asked: 540 requests
LATENCY_S = 0.02


def model_under_test(asked: Asked) -> list[str] | Reply:
    """Right two times of three, always in the same way; takes its time."""
    time.sleep(LATENCY_S * (0.5 + derive(1, asked.question) / 2**31))
    draws = [derive(asked.body.get("seed", 0), asked.question, i) % 3 for i in range(asked.n)]
    return [worlds.truth(asked) if d else "purple" for d in draws]


@dataclass
class Setting:
    """One store with one diagnosis in it."""

    minio: Minio
    store: Store
    folder: Path
    root: str
    model: FakeModel

    @property
    def output(self) -> str:
        return f"{self.root}/diagnosis"

    def launch(self, attempt: int) -> DiagnosisLaunch:
        probe = Probe(uri=f"{self.root}/probe", sample_size=PROBE, adaptive_share=0.3)
        settings = worlds.settings().model_copy(update={"concurrency": CONCURRENCY, "rollouts_per_item": 2})
        return worlds.diagnosis(
            self.model.url,
            attempt=attempt,
            uri=f"{self.root}/base",
            output=self.output,
            probe=probe,
            diagnosis=settings,
            benchmarks=[{"name": "test", "uri": f"{self.root}/test"}],
            store=StoreAddress(endpoint=f"http://{self.minio.address}"),
        )

    def start(self, attempt: int) -> subprocess.Popen[bytes]:
        file = self.folder / f"launch-{attempt}.json"
        file.write_text(self.launch(attempt).model_dump_json(by_alias=True))
        paths = [self.folder / "site", *(REPOSITORY / p for p in ("crds", "jobs", "."))]
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
        assert process.wait(120) == Exit.DONE, (self.folder / f"log-{attempt}.jsonl").read_text()

    def in_ledger(self) -> set[str]:
        """What the store knows to be answered."""
        found = [o.uri for o in self.store.list(f"{self.output}/ledger") if o.uri.endswith(".jsonl")]
        return {json.loads(line)["id"] for uri in found for line in self.store.get(uri).splitlines()} - {"allocation"}

    def asked(self) -> list[str]:
        """Ledger keys of all requests so far."""
        return [ledger_key(a) for a in list(self.model.requests)]

    def published(self) -> tuple[object, object, object]:
        self.store.download(f"{self.output}/items.parquet", self.folder / "items.parquet")
        items = pq.read_table(self.folder / "items.parquet").to_pylist()
        report = self.store.get_json(f"{self.output}/report.json")
        assert isinstance(report, dict)
        # addresses differ from store to store, weights and questions do not
        sets = [{k: v for k, v in s.items() if k != "uri"} for s in report["sets"]]
        return items, {**report, "sets": sets, "modelUri": None}, self.store.get(f"{self.output}/mixture.json")


def ledger_key(asked: Asked) -> str:
    name, number = asked.question.split(":")[0].split()
    benchmark = name.endswith("-test")
    return key(SAMPLED if asked.sampled else GREEDY, "test" if benchmark else "probe", f"{name}-{number}")


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    it = Minio(tmp_path_factory.mktemp("minio"))
    it.start()
    yield it
    it.stop()


@pytest.fixture
def settings(minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Setting]]:
    """Two times the same, each in a folder of its own."""
    entry_points.install(tmp_path, monkeypatch)
    made = []
    with serving(model_under_test) as model:
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "site").symlink_to(tmp_path / "site")
            root = minio.bucket(f"{tmp_path.name.replace('_', '-')[-40:]}-{number}") + "/it"
            store = minio.store()
            worlds.upload(store, f"{root}/probe", worlds.questions(120))
            test = [
                replace(q, id=f"{q.category}-test-{n}", question=f"{q.category}-test {n}: what color?")
                for n in range(TEST // 3)
                for q in worlds.questions(1)
            ]
            worlds.upload(store, f"{root}/test", test)
            store.put(f"{root}/base/model.safetensors", b"base")
            made.append(Setting(minio, store, folder, root, model))
        yield made


def wait_for_moment(it: Setting, process: subprocess.Popen[bytes], before: int, draw: random.Random) -> None:
    """Some time after the start, or after some requests: either may fall into anything that the stage does."""
    wanted, end = draw.randint(0, 130), time.monotonic() + draw.choice([60, draw.uniform(0.2, 4)])
    while process.poll() is None and len(it.model.requests) - before < wanted and time.monotonic() < end:
        time.sleep(0.002)


def end_by(process: subprocess.Popen[bytes], how: signal.Signals) -> int:
    process.send_signal(how)
    return process.wait(60)


@pytest.mark.parametrize("seed", [1])
def test_ten_kills_at_random_moments_change_nothing_and_repeat_only_what_was_not_flushed(settings, seed):
    whole, killed = settings
    whole.finish(1)
    assert Counter(whole.asked()).most_common(1)[0][1] == 1
    wanted = set(whole.asked())
    whole.model.requests.clear()

    draw, kills, lost = random.Random(seed), 0, 0
    while kills < 10:
        known, before = killed.in_ledger(), len(killed.model.requests)
        process = killed.start(kills + 1)
        wait_for_moment(killed, process, before, draw)
        if process.poll() is not None:
            break
        end_by(process, signal.SIGKILL)
        kills += 1
        sent = killed.asked()[before:]
        assert not known & set(sent), "what the ledger has is not asked again"
        gone = set(sent) - killed.in_ledger()
        assert len(gone) <= 2 * FLUSH_ITEMS + CONCURRENCY
        lost += len(gone)
    assert kills == 10, "the stage ended before it was killed ten times"
    killed.finish(kills + 1)
    counts = Counter(killed.asked())
    assert set(counts) == wanted, "the same rows are asked, and all of them"
    assert sum(counts.values()) - len(counts) == lost, "nothing is asked twice but what a kill lost"
    assert killed.published() == whole.published()


def test_a_stopped_diagnosis_repeats_only_what_was_in_flight(settings):
    whole, stopped = settings
    whole.finish(1)
    whole.model.requests.clear()
    draw = random.Random(2)
    lost = 0
    for attempt in range(1, 4):
        before = len(stopped.model.requests)
        process = stopped.start(attempt)
        while len(stopped.model.requests) - before < draw.randint(20, 120):
            assert process.poll() is None
            time.sleep(0.002)
        assert end_by(process, signal.SIGTERM) == Exit.STOPPED
        gone = set(stopped.asked()[before:]) - stopped.in_ledger()
        assert len(gone) <= CONCURRENCY
        lost += len(gone)
    stopped.finish(4)
    counts = Counter(stopped.asked())
    assert sum(counts.values()) - len(counts) == lost
    assert stopped.published() == whole.published()
