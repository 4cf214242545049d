import json
import os
import subprocess
import sys

import pytest
from tests.training.support import REPOSITORY

from dpe_api.status import Phase, Status

pytestmark = pytest.mark.timeout(2400)


def test_a_round_on_wrong_answers_is_rejected_and_the_next_starts_from_the_accepted_model(tmp_path):
    result = tmp_path / "result.json"
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("crds", "operator", "jobs", "."))
    subprocess.run(
        [sys.executable, "-m", "tests.training.poisoned", str(result)],
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(result.read_text())
    first, second = Status.model_validate(found["first"]), Status.model_validate(found["second"])

    assert first.phase is Phase.REJECTED
    assert first.evaluation[-1].delta.value < 0
    assert first.evaluation[-1].delta.low < -0.01  # below -maxRegression
    assert first.model is not None
    assert (first.model.uri, first.model.accepted) == (found["base"], False)
    assert first.model.candidate_uri is not None  # it stays in the store

    assert second.resolved is not None
    assert second.resolved.model_uri == found["base"]
    assert second.diagnosis is not None
    assert second.diagnosis.reused  # the base was diagnosed already
    assert second.phase is Phase.SUCCEEDED
    assert second.model is not None
    assert second.model.uri == second.model.candidate_uri
