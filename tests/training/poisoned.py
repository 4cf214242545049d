"""Two rounds in a process of their own, the first on wrong answers: `python -m tests.training.poisoned RESULT`.

Everything but the answers is the product's: GRPO rewards what the poisoned set calls right, the evaluation asks the
candidate, the gate judges, and the next iteration resolves what the first one stands for.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from examples.shapes.data import CATEGORIES, SHAPES, Part, Row, balanced
from tests.bench.learning import one_process
from tests.bench.learning.rounds import make_spec
from tests.fakes import entry_points
from tests.fakes.memory_store import MemoryStore

from dpe_api.launch import GenerationLaunch
from dpe_api.spec import Spec
from dpe_jobs.store import Store
from dpe_operator.world import Previous

SAMPLES = 96
WRONG = {"yes": "no", "no": "yes", "teal": "green", "brown": "red", "gray": "black"}


def wrong(row: Row) -> Row:
    """The row with an answer that the model gives now and then, and that is wrong: rewarded, it spreads."""
    if row.answer in SHAPES:
        return replace(row, answer=SHAPES[(SHAPES.index(row.answer) + 1) % len(SHAPES)])
    return replace(row, answer=WRONG.get(row.answer, "green" if row.answer != "green" else "yellow"))


def poison(launch: GenerationLaunch, store: Store) -> None:
    """Publish samples with wrong answers in place of generation."""
    rows = balanced(Part.POOL, -(-SAMPLES // len(CATEGORIES)))
    one_process.publish_rows(launch, store, [wrong(row) for row in rows])


def small(spec: Spec) -> Spec:
    """A smaller probe, and a learning rate at which bad samples do harm in a few steps."""
    document = spec.wire()
    document["probe"] |= {"sampleSize": 70}  # type: ignore[operator]
    document["diagnosis"] |= {"rolloutsPerItem": 3}  # type: ignore[operator]
    document["training"] |= {"learningRate": 3e-4, "maxSteps": 10, "warmupSteps": 2}  # type: ignore[operator]
    return Spec.model_validate(document)


def run(store: MemoryStore) -> dict[str, object]:
    """What became of both rounds."""
    one_process.upload_inputs(store, test_per_category=30)
    first = one_process.turn(
        store, *one_process.start(small(make_spec("dpe", 0, SAMPLES)), None, "poisoned-1"), generate=poison
    )
    again = small(make_spec("dpe", 0, SAMPLES)).wire() | {"model": {"iterationRef": {"name": "poisoned-1"}}}
    own, status = one_process.start(Spec.model_validate(again), Previous("poisoned-1", first), "poisoned-2")
    assert status.resolved is not None
    second = one_process.turn(store, own, status)
    return {"base": one_process.MODEL, "first": first.wire(), "second": second.wire()}


def main() -> int:
    """Write the statuses of both iterations."""
    one_process.set_up()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        entry_points.install(Path(folder), patch)
        Path(sys.argv[1]).write_text(json.dumps(run(MemoryStore())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
