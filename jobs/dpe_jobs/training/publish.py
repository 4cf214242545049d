"""The trained model, the metrics and the manifests: each file before the manifest that promises it."""

import hashlib
import json
import logging
from datetime import UTC, datetime

from dpe_api.artifacts import Manifest, OutputFile, TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.runtime import package_versions
from dpe_jobs.store import Store, join, media_type
from dpe_jobs.training.metrics import read_rows, summarise
from dpe_jobs.training.pod import Pod

log = logging.getLogger(__name__)

MODEL = "model"
METRICS = "metrics.jsonl"
_PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "dpe")


def _publish_model(launch: TrainingLaunch, store: Store, pod: Pod, resumed: int | None) -> Manifest:
    """Metrics and model; the model's manifest also carries the summary, so that the last step can be repeated."""
    result = json.loads(pod.result_file.read_text())
    rows = read_rows(pod.metrics_file)
    summary = summarise(rows, resumed, result["worldSize"], result["peakRssBytes"])
    metrics = store.upload(pod.metrics_file, join(launch.output, METRICS))
    manifest = Manifest(
        stage=MODEL,
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=datetime.now(UTC),
        inputs=[store.input_ref(launch.model_uri), store.input_ref(launch.samples_artifact)],
        outputs=store.upload_tree(pod.trained, join(launch.output, MODEL)),
        summary={"training": summary.wire(), "metrics": metrics.wire()},
        seed=launch.seed,
        versions=package_versions(*_PACKAGES),
    )
    store.publish(join(launch.output, MODEL), manifest)
    return manifest


def _publish_stage(launch: TrainingLaunch, store: Store, model: Manifest) -> None:
    data = store.get(join(launch.output, MODEL, MANIFEST))
    own = OutputFile(
        path=f"{MODEL}/{MANIFEST}",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        media_type=media_type(MANIFEST),
    )
    files = [o.model_copy(update={"path": f"{MODEL}/{o.path}"}) for o in model.outputs]
    store.publish(
        launch.output,
        Manifest(
            stage=str(launch.stage),
            attempt=launch.attempt,
            iteration=launch.iteration,
            created_at=datetime.now(UTC),
            inputs=model.inputs,
            outputs=[*files, own, OutputFile.model_validate(model.summary["metrics"])],
            summary=TrainingSummary.model_validate(model.summary["training"]).wire(),
            seed=launch.seed,
            versions=model.versions,
        ),
    )


def finish(launch: TrainingLaunch, store: Store, index: int) -> bool:
    """Whether nothing is left to train: the artifact is there, or an earlier attempt ended just before its manifest."""
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return True
    model = store.manifest(join(launch.output, MODEL))
    if model is None:
        return False
    log.info("attempt %d published the model; only the manifest is missing", model.attempt)
    if index == 0:
        _publish_stage(launch, store, model)
    return True


def publish(launch: TrainingLaunch, store: Store, pod: Pod, resumed: int | None) -> None:
    """Publish the run of this pod. AlreadyPublished: another attempt came first."""
    _publish_stage(launch, store, _publish_model(launch, store, pod, resumed))
