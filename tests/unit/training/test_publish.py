from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import IterationId, Manifest
from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import Stage
from dpe_api.training_spec import Training
from dpe_jobs.store import AlreadyPublished
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.publish import publish

LAUNCH = TrainingLaunch(
    stage=Stage.TRAINING,
    iteration=IterationId(namespace="dpe", name="one", uid="0" * 32),
    attempt=2,
    seed=3,
    store=StoreAddress(endpoint="http://127.0.0.1:1"),
    output="s3://dpe/training",
    model_uri="s3://dpe/base",
    samples_artifact="s3://dpe/generation",
    training=Training(nodes=1, gpus_per_node=0, rollout_engine="transformers"),
    rendezvous_host="127.0.0.1",
)


def test_an_attempt_that_comes_second_leaves_the_model_of_the_first_as_it_is(tmp_path: Path) -> None:
    store = MemoryStore()
    store.publish(f"{LAUNCH.output}/model", Manifest(stage="model", created_at=datetime.now(UTC)))
    before = dict(store.objects)
    with pytest.raises(AlreadyPublished, match="another attempt came first"):
        publish(LAUNCH, store, Pod(0, tmp_path, tmp_path), None)
    assert store.objects == before
