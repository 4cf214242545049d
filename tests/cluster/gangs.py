"""Iterations of which only the training is real: what comes before it lies in the store, so that it begins at once."""

import json
import re
from typing import Any

from examples.shapes.upload import BASE_DIR, model_manifest, publish_folder
from kubernetes import client
from tests.cluster.operators import Lab
from tests.training.support import draw_samples
from tests.unit.operator import given

from dpe_api.artifacts import TrainingSummary
from dpe_api.names import LABEL_ITERATION, LABEL_STAGE, MANIFEST, Stage
from dpe_api.status import StageStatus
from dpe_jobs.store import join

SAMPLES = "samples/part-00000.parquet"
STEPS = 14  # two gangs on two cores are not equally fast: none may end before the other has a checkpoint
DECISIVE = ("loss", "reward", "entropy", "gradNorm", "completionLength", "totalTokens")
SETTINGS: dict[str, Any] = {
    "nodes": 2,
    "maxSteps": STEPS,
    "promptsPerStep": 4,
    "rolloutsPerPrompt": 4,
    "learningRate": 1e-4,
    "maxCompletionLength": 4,
    "precision": "fp32",
    "gradientCheckpointing": False,
    "rolloutEngine": "transformers",
    "checkpointEverySteps": 2,
    "deepspeed": {"zeroStage": 2},
}
"""A small training of the example's model on two ranks."""


def make_real(facts: dict[str, Any]) -> None:
    """Let the platform run what the stages are, and not their doubles."""
    for part in ("jobs", "training"):
        container: dict[str, Any] = facts[part]
        container["command"] = ["/opt/venv/bin/python", "-m", "dpe_jobs"]
        container["env"] = [{"name": name, "value": value} for name, value in ENVIRONMENT.items()]
        container["resources"] = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
    for pool in facts["pools"].values():
        pool["sharedMemory"] = "512Mi"


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}


def give_model(lab: Lab) -> None:
    """The example's base model."""
    publish_folder(lab.store, BASE_DIR, f"s3://{lab.bucket}/{lab.namespace}/base", model_manifest(BASE_DIR))


def train(lab: Lab, name: str, gpus: int) -> None:
    """Begin an iteration whose diagnosis and generation are published already. `gpus`: pretended ones for each pod."""
    lab.create(name, suspend=True, training={**SETTINGS, "gpusPerNode": gpus})
    path = lab.folder / f"{name}.parquet"
    draw_samples(path, 24)
    root = lab.root(name)
    file = lab.store.upload(path, join(root, Stage.GENERATION, SAMPLES)).model_copy(update={"path": SAMPLES})
    for stage, outputs in ((Stage.DIAGNOSIS, []), (Stage.GENERATION, [file])):
        lab.store.publish(join(root, stage), given.manifest(stage).model_copy(update={"outputs": outputs}))
    lab.patch({"suspend": False}, name)


def stage(lab: Lab, name: str) -> StageStatus:
    """The training's entry in the iteration's status."""
    return lab.status(name).stage_status(Stage.TRAINING)


def pods(lab: Lab, name: str) -> list[client.V1Pod]:
    """Pods of the training that run and are not told to stop."""
    chosen = f"{LABEL_ITERATION}={name},{LABEL_STAGE}={Stage.TRAINING}"
    found = lab.core.list_namespaced_pod(lab.namespace, label_selector=chosen).items
    return [p for p in found if p.status.phase == "Running" and p.metadata.deletion_timestamp is None]


def nodes(lab: Lab, name: str) -> list[str]:
    """Nodes on which its pods run, one for each pod."""
    return sorted(p.spec.node_name for p in pods(lab, name))


def saved(lab: Lab, name: str) -> int:
    """The step of its newest whole checkpoint; 0: it has none."""
    pattern = re.compile(r"/checkpoints/step-(\d+)-attempt-\d+/" + re.escape(MANIFEST))
    found = [pattern.search(o.uri) for o in lab.store.list(join(lab.root(name), Stage.TRAINING, "checkpoints"))]
    return max((int(match[1]) for match in found if match), default=0)


def summary(lab: Lab, name: str) -> TrainingSummary | None:
    """What the finished training says of itself."""
    manifest = lab.store.manifest(join(lab.root(name), Stage.TRAINING))
    return None if manifest is None else TrainingSummary.model_validate(manifest.summary)


def metrics(lab: Lab, name: str) -> list[dict[str, float]]:
    """The published metrics, a row for each step."""
    text = lab.store.get(join(lab.root(name), Stage.TRAINING, "metrics.jsonl"))
    return [json.loads(line) for line in text.splitlines()]
