"""One pod, one rank: the whole stage against a real object store."""

from pathlib import Path

import pytest
from tests.training.support import World

from dpe_api.artifacts import TrainingSummary
from dpe_jobs.store import join

pytestmark = pytest.mark.timeout(300)


def test_one_pod_trains_and_publishes_a_whole_model(world: World, tmp_path: Path) -> None:
    launch = world.launch("one")
    (pod,) = world.start(launch)
    assert pod.wait() == 0, pod.output()
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    summary = TrainingSummary.model_validate(manifest.summary)
    assert (summary.steps, summary.resumed_from_step, summary.world_size) == (6, None, 1)
    for output in manifest.outputs:
        world.store.download(join(launch.output, output.path), tmp_path / output.path, output.sha256)
