"""The evaluation stage: ask the candidate what the base was asked, compare, judge."""

import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from dpe_api.artifacts import Comparison, EvaluationSummary, InputRef, Manifest
from dpe_api.launch import EvaluationLaunch, Launch
from dpe_api.names import Exit
from dpe_jobs.diagnosis.items import ITEMS, Items
from dpe_jobs.diagnosis.report import REPORT, describe
from dpe_jobs.diagnosis.run import PACKAGES, Asked, ask
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, take
from dpe_jobs.evaluation.compare import compare, judge
from dpe_jobs.runtime import BadConfig, BadData, package_versions, run_stage
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

COMPARISON = "comparison.json"
_COMPARISONS = TypeAdapter(list[Comparison])


def main(launch: Launch) -> Exit:
    """Run the stage."""
    return run_stage(launch, run)


def run(launch: Launch, store: Store) -> None:
    """Evaluate the served candidate and publish items, report, comparison and verdict."""
    assert isinstance(launch, EvaluationLaunch)
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = store.input_ref(launch.model.uri)
        earlier = store.input_ref(launch.diagnosis_artifact)
        before_path = folder / f"before-{ITEMS}"
        store.download(join(launch.diagnosis_artifact, ITEMS), before_path)
        before = Items(before_path)
        sets = same_questions(launch, store, before, folder)
        asked = ask(launch, store, model, sets, folder)
        after = Items(asked.path)
        summary = EvaluationSummary(
            report=describe(after, sets, model, launch.diagnosis),
            tokens=asked.tokens,
            **verdict(launch, before, after, sets),
        )
        log.info("%s", summary.reason)
        publish(launch, store, [model, earlier, *(s.source for s in sets)], asked, summary)


def same_questions(launch: EvaluationLaunch, store: Store, before: Items, folder: Path) -> list[QuestionSet]:
    """The rows that the diagnosis asked, with their images.

    BadConfig when the diagnosis asked other sets, BadData when rows are gone.
    """
    wanted = [(PROBE, launch.probe.uri), *((b.name, b.uri) for b in launch.benchmarks)]
    missing = [name for name, _ in wanted if name not in before.names()]
    if missing:
        raise BadConfig(
            "NotDiagnosed",
            f"{launch.diagnosis_artifact} has no answers to {', '.join(missing)}: the benchmarks of diagnosis and "
            "evaluation must be the same",
        )
    rollouts = launch.diagnosis.rollouts_per_item
    return [
        take(store, name, uri, folder, rollouts=rollouts if name == PROBE else 0, only=frozenset(before.ids(name)))
        for name, uri in wanted
    ]


def verdict(launch: EvaluationLaunch, before: Items, after: Items, sets: list[QuestionSet]) -> dict[str, object]:
    """Comparisons on every set, and the gate's word: fields of the summary."""
    gate = launch.evaluation.gate
    comparisons = []
    for questions in sets:
        seed = derive(launch.seed, "bootstrap", questions.name)
        comparison = compare(before, after, questions.name, gate.confidence, seed)
        if comparison is None:
            raise BadData("NothingToCompare", f"no item of {questions.name} was answered by both models")
        comparisons.append(comparison)
    accepted, reason = judge(comparisons, gate)
    return {"comparisons": comparisons, "confidence": gate.confidence, "accepted": accepted, "reason": reason}


def publish(
    launch: EvaluationLaunch, store: Store, inputs: list[InputRef], asked: Asked, summary: EvaluationSummary
) -> None:
    """Upload the files, then the manifest."""
    folder = asked.path.parent
    (folder / REPORT).write_text(summary.report.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    (folder / COMPARISON).write_bytes(_COMPARISONS.dump_json(summary.comparisons, by_alias=True, indent=1))
    store.publish(
        launch.output,
        Manifest(
            stage=launch.stage,
            attempt=launch.attempt,
            iteration=launch.iteration,
            created_at=datetime.now(UTC),
            inputs=inputs,
            outputs=[store.upload(folder / name, join(launch.output, name)) for name in (ITEMS, REPORT, COMPARISON)],
            summary=summary.wire(),
            seed=launch.seed,
            versions=package_versions(*PACKAGES),
        ),
    )
