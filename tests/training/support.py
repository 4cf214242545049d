"""A gang on one machine: an object store, a tiny real model, drawn samples, and pods as processes."""

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from tests.patience import deadline

from dpe_api.artifacts import IterationId, Manifest, OutputFile
from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import Stage
from dpe_api.training_spec import DeepSpeed, Training
from dpe_jobs.questions import SCHEMA
from dpe_jobs.store import Store, join

REPOSITORY = Path(__file__).parents[2]
BASE = REPOSITORY / "examples" / "shapes" / "base"
COLORS = {"teal": (0, 128, 128), "brown": (165, 42, 42), "gray": (128, 128, 128), "red": (255, 0, 0)}
HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on, below the ephemeral ones: a client that retries could connect to itself there."""
    while True:
        port = random.SystemRandom().randint(15000, 30000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind((HOST, port))
            return port


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 180) -> None:
    """Until a condition holds; AssertionError naming it when it does not."""
    end = deadline(seconds)
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def draw_samples(path: Path, count: int, seed: int = 0) -> None:
    """Coloured rectangles with the question for their colour, as Parquet."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        name = rng.choice(sorted(COLORS))
        image = Image.new("RGB", (64, 64), (240, 240, 240))
        x, y = rng.randint(4, 24), rng.randint(4, 24)
        ImageDraw.Draw(image).rectangle((x, y, x + rng.randint(15, 30), y + rng.randint(15, 30)), fill=COLORS[name])
        png = io.BytesIO()
        image.save(png, "PNG")
        rows.append(
            {
                "id": f"s-{number}",
                "image": {"bytes": png.getvalue(), "path": None},
                "question": "what color is the shape?",
                "answer": name,
                "answer_type": "exact",
                "choices": [],
                "category": "color_fine",
                "facets": [],
                "source": "drawn",
                "licence": "CC0-1.0",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)


def publish_folder(store: Store, files: dict[str, Path], uri: str, stage: str) -> None:
    """Upload files and a manifest of them."""
    outputs: list[OutputFile] = []
    for name, path in files.items():
        outputs.append(store.upload(path, join(uri, name)).model_copy(update={"path": name}))
    store.publish(uri, Manifest(stage=stage, created_at=datetime.now(UTC), outputs=outputs))


@dataclass
class World:
    """An object store with a base model and samples in it."""

    store: Store
    address: StoreAddress
    folder: Path
    bucket: str = "dpe"
    pods: list[subprocess.Popen[str]] = field(default_factory=list)
    credentials: dict[str, str] = field(default_factory=dict)
    """Environment of the pods where it is not that of the tests."""

    @property
    def model_uri(self) -> str:
        return f"s3://{self.bucket}/models/base"

    @property
    def samples_uri(self) -> str:
        return f"s3://{self.bucket}/generation"

    def fill(self, samples: int = 24) -> None:
        """Upload the base model and drawn samples."""
        publish_folder(self.store, {p.name: p for p in BASE.iterdir()}, self.model_uri, "model")
        path, hard = self.folder / "part-00000.parquet", self.folder / "warmup-00000.parquet"
        draw_samples(path, samples)
        draw_samples(hard, 6, seed=1)
        files = {"samples/part-00000.parquet": path, "warmup/000-00000.parquet": hard}
        publish_folder(self.store, files, self.samples_uri, "generation")

    def launch(self, name: str, attempt: int = 0, nodes: int = 1, zero: int = 0, **training: object) -> TrainingLaunch:
        """A small run; `training` overrides fields of spec.training."""
        settings = {
            "nodes": nodes,
            "gpus_per_node": 0,
            "max_steps": 6,
            "prompts_per_step": 4,
            "rollouts_per_prompt": 4,
            "learning_rate": 1e-4,
            "max_completion_length": 4,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "rollout_engine": "transformers",
            "checkpoint_every_steps": 2,
            "deepspeed": DeepSpeed(zero_stage=zero),
            **training,
        }
        return TrainingLaunch(
            stage=Stage.TRAINING,
            iteration=IterationId(namespace="dpe", name=name, uid=hashlib.sha256(name.encode()).hexdigest()[:32]),
            attempt=attempt,
            seed=3,
            store=self.address,
            output=f"s3://{self.bucket}/runs/{name}/training",
            model_uri=self.model_uri,
            samples_artifact=self.samples_uri,
            training=Training.model_validate(settings),
            rendezvous_host=HOST,
        )

    def start(
        self, launch: TrainingLaunch, model: Path = BASE, *, path: Sequence[Path] = (), outage_s: float | None = None
    ) -> list["RunningPod"]:
        """Start all pods of an attempt; `path` holds packages of users, `outage_s` is how long a store may be away."""
        port, started = free_port(), []
        for index in range(launch.training.nodes):
            work = self.folder / f"{launch.iteration.name}-{launch.attempt}-{index}"
            work.mkdir(parents=True)
            file, output = work / "pod.json", work / "output.log"
            file.write_text(json.dumps(launch.wire()))
            sources = (REPOSITORY / "crds", REPOSITORY / "jobs", *path)
            arguments = (file, index, model, work, port, *([] if outage_s is None else [outage_s]))
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("pod.py")), *map(str, arguments)],
                env={**os.environ, **self.credentials, "PYTHONPATH": os.pathsep.join(map(str, sources))},
                stdout=output.open("w"),
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.pods.append(process)
            started.append(RunningPod(process, work))
        return started

    def run(self, launch: TrainingLaunch, seconds: float = 300) -> list[int]:
        """Exit codes of all pods of an attempt."""
        return [pod.wait(seconds) for pod in self.start(launch)]


@dataclass(frozen=True)
class RunningPod:
    """A pod as a process."""

    process: subprocess.Popen[str]
    work: Path

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; what its ranks are doing when it does not end."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            for pid in self.rank_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
            wait_for("stacks of the ranks", lambda: "most recent call first" in self.output(), 10)
            raise AssertionError(f"still running after {seconds} s:\n{self.output()}") from None

    def output(self) -> str:
        """What it printed."""
        return (self.work / "output.log").read_text()

    def steps(self) -> int:
        """Steps that it has recorded."""
        file = self.work / "metrics.jsonl"
        return file.read_text().count("\n") if file.exists() else 0

    def rank_pids(self) -> list[int]:
        """Processes of its ranks."""
        return [int(p.read_text()) for p in (self.work / "ranks").glob("started-*")]

    def reason(self) -> str:
        """Reason in its termination message."""
        return str(json.loads((self.work / "termination-log").read_text())["reason"])
