"""Whole iterations in one process: the product's stages, told by the operator's own launches and absorbed by its own
summaries. Only pods, vLLM and torchrun are left out.
"""

import hashlib
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from examples.shapes.base_model import BASE_DIR
from examples.shapes.data import CATEGORIES, TEST_PER_CATEGORY, Part, Row, balanced, question, write_all, write_set
from tests.bench.learning.hf_server import served
from tests.unit.operator import given

from dpe_api.artifacts import CategorySamples, GenerationSummary, Manifest
from dpe_api.launch import GenerationLaunch, ServedModel, TrainingLaunch
from dpe_api.names import Stage, artifact_root
from dpe_api.spec import Spec
from dpe_api.status import Phase, StageStatus, Status
from dpe_jobs.diagnosis import run as diagnosis
from dpe_jobs.evaluation import run as evaluation
from dpe_jobs.generation import run as generation
from dpe_jobs.generation.samples import SAMPLE_SCHEMA
from dpe_jobs.store import Store, join
from dpe_jobs.training import rank
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.publish import publish
from dpe_jobs.training.uploads import Uploader
from dpe_jobs.training.warmup import run as warmup
from dpe_jobs.training.warmup import sft
from dpe_jobs.training.warmup.lessons import read_lessons
from dpe_operator.manifests import diagnosis as diagnosis_pod
from dpe_operator.manifests import evaluation as evaluation_pod
from dpe_operator.manifests import generation as generation_pod
from dpe_operator.manifests import training as training_pod
from dpe_operator.manifests.common import Attempt
from dpe_operator.resolve import resolve
from dpe_operator.summaries import absorb
from dpe_operator.world import Iteration, Previous

DATA, MODEL = "s3://dpe/data/shapes", "s3://dpe/models/shapes-base"
PLATFORM = given.platform()

Generate = Callable[[GenerationLaunch, Store], None]
"""What makes the samples of a round."""


def set_up() -> None:
    """One thread, and the surroundings that torchrun gives its only rank."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ["HF_HUB_OFFLINE"] = "1"


def upload_inputs(store: Store, test_per_category: int = TEST_PER_CATEGORY) -> None:
    """The base model, the probe and the benchmark of the example, or a smaller one."""
    with tempfile.TemporaryDirectory() as name:
        write_all(Path(name))
        write_set(balanced(Part.TEST, test_per_category), Path(name) / "test")
        for part in ("probe", "test"):
            for path in (Path(name) / part).iterdir():
                store.upload(path, f"{DATA}/{part}/{path.name}")
    outputs = store.upload_tree(BASE_DIR, MODEL)
    store.publish(MODEL, Manifest(stage="model", created_at=datetime.now(UTC), outputs=outputs))


def publish_rows(launch: GenerationLaunch, store: Store, rows: Sequence[Row]) -> None:
    """Publish questions of easy-vqa as the samples of a round, in place of generation."""
    samples = [
        question(row).row()
        | {
            "target": {"category": row.category, "weakness": ""},
            "provenance": {"diagnosis_ids": [], "tool_calls": [], "source_url": None},
            "pass_rate": None,
            "rollouts": [],
            "retention": False,
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "part-00000.parquet"
        pq.write_table(pa.Table.from_pylist(samples, schema=SAMPLE_SCHEMA), path)
        output = store.upload(path, join(launch.output, "samples", path.name))
    counts = Counter(row.category for row in rows)
    categories = [
        CategorySamples(name=c, quota=counts[c], candidates=counts[c], kept=counts[c], rejected={}) for c in CATEGORIES
    ]
    summary = GenerationSummary(
        target=len(rows), candidates=len(rows), kept=len(rows), shortfall=0, rejected={}, categories=categories
    )
    outputs = [output.model_copy(update={"path": f"samples/{output.path}"})]
    now = datetime.now(UTC)
    manifest = Manifest(stage="generation", created_at=now, outputs=outputs, summary=summary.wire())
    store.publish(launch.output, manifest)


@contextmanager
def uploading(uploader: Uploader) -> Iterator[None]:
    """What the parent of the ranks does meanwhile; without it they wait for their first checkpoint to be stored."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            uploader.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert uploader.finish(60)


def train(launch: TrainingLaunch, store: Store) -> None:
    """The training stage with its only rank in this process."""
    with tempfile.TemporaryDirectory() as name:
        pod = Pod(0, Path(name) / "base", Path(name) / "work")
        store.fetch_tree(launch.model_uri, pod.model)
        pod.prepare(launch)
        lessons = None if launch.training.warmup is None else read_lessons(store, launch.samples_artifact)
        if lessons is not None:
            sft.train(launch, pod, store)
            warmup.publish(launch, store, pod, lessons)
        warmed = warmup.warm_up(launch, store, pod)
        pod = pod if warmed is None else warmed.pod
        with uploading(Uploader(launch, pod, store)):
            rank.train(launch, pod, store, rank.StopRequest(pod, 0))
        publish(launch, store, pod, None, warmed)
    store.delete([o.uri for o in store.list(join(launch.output, "checkpoints"))])


def serving(store: Store, uri: str, folder: Path) -> Any:
    """A server of a model of the store."""
    shutil.rmtree(folder, ignore_errors=True)
    store.fetch_tree(uri, folder)
    return served(folder)


def start(spec: Spec, previous: Previous | None, name: str) -> tuple[Iteration, Status]:
    """An iteration that has just been accepted."""
    own = Iteration("bench", name, hashlib.sha256(name.encode()).hexdigest())
    root = artifact_root("dpe", "", own.namespace, own.name, own.uid)
    stages = [StageStatus(name=s) for s in Stage]
    return own, Status(resolved=resolve(spec, previous), artifacts=root, stages=stages)


def attempt(own: Iteration, status: Status, stage: Stage) -> Attempt:
    """The first attempt of a stage."""
    assert status.resolved is not None
    return Attempt(own, PLATFORM, status.resolved, status.artifacts or "", stage, 1, "server")


def absorbed(store: Store, status: Status, stage: Stage) -> Status:
    """The status after a stage has published."""
    manifest = store.manifest(f"{status.artifacts}/{stage}")
    assert manifest is not None
    return absorb(status, stage, manifest)[0]


def diagnose(store: Store, own: Iteration, status: Status) -> str:
    """Run the diagnosis alone; its folder."""
    assert status.resolved is not None
    uri = status.resolved.model_uri
    with tempfile.TemporaryDirectory() as folder, serving(store, uri, Path(folder) / "model") as url:
        launch = diagnosis_pod.launch(attempt(own, status, Stage.DIAGNOSIS))
        diagnosis.run(launch.model_copy(update={"model": ServedModel(url=url, uri=uri)}), store)
    return launch.output


def turn(store: Store, own: Iteration, status: Status, generate: Generate = generation.run) -> Status:
    """All stages of an iteration; its status as the operator would have it at the end."""
    assert status.resolved is not None
    base, candidate = status.resolved.model_uri, f"{status.artifacts}/{Stage.TRAINING}/model"
    with tempfile.TemporaryDirectory() as folder:
        with serving(store, base, Path(folder) / "base") as url:
            model = ServedModel(url=url, uri=base)
            asked = diagnosis_pod.launch(attempt(own, status, Stage.DIAGNOSIS))
            diagnosis.run(asked.model_copy(update={"model": model}), store)
            status = absorbed(store, status, Stage.DIAGNOSIS)
            wanted = generation_pod.launch(attempt(own, status, Stage.GENERATION))
            generate(wanted.model_copy(update={"model": model}), store)
            status = absorbed(store, status, Stage.GENERATION)
        train(training_pod.launch(attempt(own, status, Stage.TRAINING)), store)
        status = absorbed(store, status, Stage.TRAINING)
        with serving(store, candidate, Path(folder) / "candidate") as url:
            compared = evaluation_pod.launch(attempt(own, status, Stage.EVALUATION))
            evaluation.run(compared.model_copy(update={"model": ServedModel(url=url, uri=candidate)}), store)
        status = absorbed(store, status, Stage.EVALUATION)
    assert status.model is not None
    phase = Phase.SUCCEEDED if status.model.accepted else Phase.REJECTED
    return status.model_copy(update={"phase": phase})
