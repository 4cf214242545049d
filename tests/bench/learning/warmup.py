"""Accuracy by category after the warm-up alone, at several settings: `python -m tests.bench.learning.warmup`.

It learns from easy-vqa's own questions on the images of the pool, balanced over answers: 256 of negation, and 42 of
each other category for retention. Greedy answers, and the chance that a sampled one is right, on 490 test rows.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from examples.shapes.base_model import BASE_DIR, Encoder, accuracies
from examples.shapes.data import CATEGORIES, Part, Row, balanced, by_answer, question
from tests.bench.learning import one_process, rounds
from tests.fakes.memory_store import MemoryStore
from transformers import AutoModelForImageTextToText, AutoProcessor

from dpe_api.artifacts import Manifest
from dpe_api.launch import TrainingLaunch
from dpe_api.names import Stage
from dpe_jobs.generation.samples import SAMPLE_SCHEMA, WARMUP
from dpe_jobs.store import Store, join
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.warmup import sft
from dpe_operator.manifests import training as training_pod

HARD = "negation"
HARD_ROWS = 256
RETENTION_ROWS = 42  # of each category
TEST_ROWS = 70  # of each category
SETTINGS: list[dict[str, Any]] = [
    {"maxSteps": 60, "batchSize": 32, "learningRate": 1e-4, "retentionShare": 0.5},
    {"maxSteps": 60, "batchSize": 32, "learningRate": 3e-4, "retentionShare": 0.5},
    {"maxSteps": 60, "batchSize": 32, "learningRate": 1e-3, "retentionShare": 0.75},
    {"maxSteps": 200, "batchSize": 32, "learningRate": 3e-4, "retentionShare": 0.75},
    {"maxSteps": 60, "batchSize": 32, "learningRate": 1e-4, "retentionShare": 0.9},
]


def lessons() -> list[Row]:
    """What the warm-up learns from."""
    chosen: list[Row] = []
    for rows in by_answer(Part.POOL)[HARD].values():
        unique = {(row.image, row.question): row for row in rows}.values()
        chosen += sorted(unique, key=lambda row: hashlib.sha256(row.id.encode()).digest())[: HARD_ROWS // 2]
    return chosen + [row for row in balanced(Part.POOL, RETENTION_ROWS) if row.category != HARD]


def publish(store: Store, artifact: str, chosen: list[Row]) -> None:
    """Publish them as a generation does."""
    rows = [question(row).row() | {"retention": row.category != HARD, "rollouts": [f" {row.answer}"]} for row in chosen]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "part-00000.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA), path)
        output = store.upload(path, join(artifact, WARMUP, path.name))
    outputs = [output.model_copy(update={"path": f"{WARMUP}/{output.path}"})]
    store.publish(artifact, Manifest(stage="generation", created_at=datetime.now(UTC), outputs=outputs))


def measure(model: Path) -> dict[str, tuple[float, float]]:
    """By category: greedy accuracy, and the chance of a right answer."""
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        found: dict[str, tuple[float, float]] = accuracies(
            loaded, Encoder(AutoProcessor.from_pretrained(model)), balanced(Part.TEST, TEST_ROWS)
        )
        return found


def warmed_up(launch: TrainingLaunch, store: Store, setting: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What the base model can after a warm-up with this setting."""
    training = launch.training.model_validate(launch.training.wire() | {"warmup": setting})
    with tempfile.TemporaryDirectory() as name:
        pod = Pod(0, Path(name) / "base", Path(name) / "work")
        store.fetch_tree(launch.model_uri, pod.model)
        pod.prepare(launch)
        sft.train(launch.model_copy(update={"training": training}), pod, store)
        return measure(pod.warmed / "model")


def line(name: str, found: Mapping[str, tuple[float, float]]) -> str:
    """A row of the table."""
    return f"| {name} | " + " | ".join(f"{found[c][0]:.2f} / {found[c][1]:.2f}" for c in CATEGORIES) + " |"


def main() -> None:
    """Print the table, a row as soon as it is known."""
    one_process.set_up()
    store = MemoryStore()
    one_process.upload_inputs(store)
    own, status = one_process.start(rounds.make_spec("dpe", 0, 48), None, "warmup")
    launch = training_pod.launch(one_process.attempt(own, status, Stage.TRAINING))
    publish(store, launch.samples_artifact, lessons())
    print("| setting | " + " | ".join(CATEGORIES) + " |\n|---|" + "---|" * len(CATEGORIES))
    print(line("base", measure(BASE_DIR)), flush=True)
    for setting in SETTINGS:
        print(line(json.dumps(setting), warmed_up(launch, store, setting)), flush=True)


if __name__ == "__main__":
    main()
