"""The trained model, the metrics and the manifests: each file before the manifest that promises it."""

import hashlib
import json
import logging
from datetime import UTC, datetime

from pydantic import TypeAdapter

from dpe_api.artifacts import Manifest, OutputFile, TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST
from dpe_jobs.outputs import check_unpublished
from dpe_jobs.runtime import package_versions
from dpe_jobs.store import Store, join, media_type
from dpe_jobs.training import page
from dpe_jobs.training.metrics import read_rows, summarise
from dpe_jobs.training.pod import Pod, Result
from dpe_jobs.training.warmup.run import Warmed

log = logging.getLogger(__name__)

MODEL = "model"
ADAPTER = "adapter"
_FILES = TypeAdapter(list[OutputFile])
_PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "datasets", "dpe")


def _publish_model(
    launch: TrainingLaunch, store: Store, pod: Pod, resumed: int | None, warmed: Warmed | None
) -> Manifest:
    """Metrics and model; the model's manifest also carries the summary, so that the last step can be repeated."""
    check_unpublished(store, join(launch.output, MODEL))
    result = Result(**json.loads(pod.result_file.read_text()))
    rows = read_rows(pod.metrics_file)
    summary = summarise(rows, resumed, result)
    if warmed is not None:
        summary = summary.model_copy(update={"warmup": warmed.summary})
    now = datetime.now(UTC)
    shown = pod.work / page.PAGE
    page.write(rows, summary, launch, shown, now)
    told = [pod.metrics_file, shown, *([] if warmed is None else [warmed.metrics])]
    beside = [store.upload(path, join(launch.output, path.name)) for path in told]
    if pod.adapter.exists():
        files = store.upload_tree(pod.adapter, join(launch.output, ADAPTER))
        beside += [file.model_copy(update={"path": f"{ADAPTER}/{file.path}"}) for file in files]
    manifest = Manifest(
        stage=MODEL,
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=now,
        inputs=[store.input_ref(launch.model_uri), store.input_ref(launch.samples_artifact)],
        outputs=store.upload_tree(pod.trained, join(launch.output, MODEL)),
        summary={"training": summary.wire(), "beside": [file.wire() for file in beside]},
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
            outputs=[*files, own, *_FILES.validate_python(model.summary["beside"])],
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


def publish(launch: TrainingLaunch, store: Store, pod: Pod, resumed: int | None, warmed: Warmed | None = None) -> None:
    """Publish the run of this pod. AlreadyPublished: another attempt came first."""
    _publish_stage(launch, store, _publish_model(launch, store, pod, resumed, warmed))
