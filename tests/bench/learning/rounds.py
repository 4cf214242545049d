"""Several rounds of the spiral on easy-vqa, in one process: what diagnosis, filter and fresh samples bring.

    python -m tests.bench.learning.rounds --out results.jsonl        # goes on where an earlier run stopped
    python -m tests.bench.learning.table results.jsonl

Arms, with the same number of samples and steps a round:

dpe                 the gap mixture of `examples/shapes/iteration-1.yaml`, and the difficulty filter
uniform             all categories alike, with the filter
uniform-unfiltered  all categories alike, no filter
warmup              dpe, and before GRPO a supervised warm-up on what is out of reach
static              one set for all rounds, chosen before the first: easy-vqa's own questions on the images of the pool,
                    all categories alike; each round trains on its next third
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples.shapes.data import CATEGORIES, Part, balanced
from tests.bench.learning import one_process
from tests.fakes import entry_points
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import EvaluationSummary
from dpe_api.generation_spec import SourceKind
from dpe_api.launch import GenerationLaunch
from dpe_api.names import Stage
from dpe_api.spec import Spec
from dpe_api.status import Status
from dpe_jobs.generation import run as generation
from dpe_jobs.store import Store
from dpe_operator.world import Previous

EXAMPLE = Path(__file__).parents[3] / "examples" / "shapes" / "iteration-1.yaml"
ROUNDS = 3
PROMPTS_PER_STEP = 16
BUDGETS = {48: 4, 96: 8, 192: 16}  # samples a round: optimizer steps a round
NO_FILTER = {"rollouts": 1, "minPassRate": 0.0, "maxPassRate": 1.0}
WARMUP = {"maxSteps": 60, "batchSize": 32, "learningRate": 1e-4, "samplesPerCategory": 64, "retentionShare": 0.9}
ARMS: dict[str, dict[str, Any]] = {
    "dpe": {},
    "warmup": {"training": {"warmup": WARMUP}, "generation": {"maxCandidates": 2048}},
    "uniform": {"mixture": {"policy": "uniform"}},
    "uniform-unfiltered": {"mixture": {"policy": "uniform"}, "generation": {"filter": NO_FILTER}},
    "static": {"mixture": {"policy": "uniform"}, "generation": {"filter": NO_FILTER}},
}


def make_spec(arm: str, seed: int, samples: int) -> Spec:
    """The example's spec with the arm's mixture and filter and the budget, for one process; its drawn images alone."""
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())["spec"]
    found["seed"] = seed
    found["diagnosis"]["concurrency"] = 64
    drawn = [source for source in found["generation"]["sources"] if source["kind"] == SourceKind.RENDER]
    found["generation"] |= {"targetSamples": samples, "maxCandidates": 8 * samples, "sources": drawn}
    found["training"] |= {
        "nodes": 1,
        "gpusPerNode": 0,
        "maxSteps": BUDGETS[samples],
        "promptsPerStep": PROMPTS_PER_STEP,
        "deepspeed": {"zeroStage": 0},
        "checkpointEverySteps": 1000,
    }
    for section, changes in ARMS[arm].items():
        found[section] |= changes
    return Spec.model_validate(found)


def static_samples(launch: GenerationLaunch, store: Store, round_number: int) -> None:
    """Publish the round's third of the static set in place of generation."""
    target = launch.generation.target_samples
    chosen = balanced(Part.POOL, -(-ROUNDS * target // len(CATEGORIES)))
    chosen.sort(key=lambda row: hashlib.sha256(f"{launch.seed}/{row.id}".encode()).digest())
    one_process.publish_rows(launch, store, chosen[round_number * target : (round_number + 1) * target])


def figures(store: Store, status: Status) -> dict[str, Any]:
    """What a round brought: the candidate on the test set, the gate's word, the samples."""
    manifest = store.manifest(f"{status.artifacts}/{Stage.EVALUATION}")
    assert manifest is not None
    assert status.samples is not None
    assert status.diagnosis is not None
    summary = EvaluationSummary.model_validate(manifest.summary)
    test = summary.report.of("test")
    compared = next(c for c in summary.comparisons if c.name == "test")
    return {
        "accepted": summary.accepted,
        "macro": test.macro.wire(),
        "delta": compared.delta.wire(),
        "before": {c.name: c.before for c in compared.categories},
        "after": {c.name: c.accuracy.wire() for c in test.categories},
        "sampled": {c.name: c.pass_rate.wire() for c in summary.report.of("probe").categories if c.pass_rate},
        "changes": {c.name: c.delta.wire() for c in compared.categories},
        "kept": status.samples.kept_by_category,
        "candidates": status.samples.candidates,
        "shortfall": status.samples.shortfall,
        "quotas": {c.name: c.quota for c in status.diagnosis.categories},
        "tokens": status.cost.tokens,
    }


def diagnose_base(store: Store, seed: int) -> str:
    """Folder of the base's diagnosis, which all arms of a seed begin with."""
    return one_process.diagnose(store, *one_process.start(make_spec("dpe", seed, 192), None, f"base-{seed}"))


def chain(store: Store, arm: str, seed: int, samples: int, base_diagnosis: str) -> Iterator[dict[str, Any]]:
    """The rounds of one arm, each from what the one before accepted."""
    spec, previous = make_spec(arm, seed, samples), None
    for number in range(ROUNDS):
        began = time.monotonic()
        name = f"{arm}-{samples}-{seed}-{number}"
        own, status = one_process.start(spec, previous, name)
        if status.resolved is not None and previous is None:  # every arm starts from the same answers
            resolved = status.resolved.model_copy(update={"reuse_diagnosis": base_diagnosis})
            status = status.model_copy(update={"resolved": resolved})
        generate = partial(static_samples, round_number=number) if arm == "static" else generation.run
        status = one_process.turn(store, own, status, generate)
        row = {"arm": arm, "seed": seed, "samples": samples, "round": number + 1}
        yield row | figures(store, status) | {"seconds": round(time.monotonic() - began, 1)}
        previous = Previous(name, status)
        spec = Spec.model_validate({"seed": seed, "model": {"iterationRef": {"name": name}}})
    store.delete([o.uri for o in store.list("s3://dpe/bench") if "/base-" not in o.uri])


def finished(path: Path) -> set[tuple[str, int, int]]:
    """Arm, seed and budget of the chains that a results file holds whole."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(r["arm"], r["seed"], r["samples"]) for r in rows if r["round"] == ROUNDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and append a line per round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results, a JSON line per round")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", nargs="+", type=int, default=list(BUDGETS), choices=list(BUDGETS))
    options = parser.parse_args(arguments)
    one_process.set_up()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        entry_points.install(Path(folder), patch)
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Run every chain that the results do not hold."""
    store = MemoryStore()
    one_process.upload_inputs(store)
    known, bases = finished(options.out), dict[int, str]()
    for samples, seed in product(options.samples, options.seeds):
        missing = [arm for arm in options.arms if (arm, seed, samples) not in known]
        if missing and seed not in bases:
            bases[seed] = diagnose_base(store, seed)
        for arm in missing:
            rows = list(chain(store, arm, seed, samples, bases[seed]))
            with options.out.open("a") as out:
                out.writelines(json.dumps(row) + "\n" for row in rows)
            last = rows[-1]
            print(arm, seed, samples, [round(r["macro"]["value"], 3) for r in rows], last["seconds"], "s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
