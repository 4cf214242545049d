"""What diagnosis and evaluation do alike: draw the rows of a round, ask, grade, and publish with a manifest."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.artifacts import InputRef, Manifest, Tokens
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch
from dpe_jobs.client import ModelClient
from dpe_jobs.diagnosis.adaptive import Answered, allocate
from dpe_jobs.diagnosis.ask import amount, ask_sets, paid
from dpe_jobs.diagnosis.items import ITEMS, graded, read_rows, write_items
from dpe_jobs.diagnosis.report import fingerprint
from dpe_jobs.diagnosis.sample import QuestionSet, sample_probe
from dpe_jobs.diagnosis.trained import Trained
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import ProgressReporter, package_versions, run_async
from dpe_jobs.store import Store, join

PACKAGES = ("dpe", "numpy", "scipy", "pyarrow", "pillow", "httpx", "math-verify")
_ALLOCATION = "allocation"  # where the adaptive rows went: once decided, it stands


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking, on the local disk."""

    path: Path
    """items.parquet."""
    sets: tuple[QuestionSet, ...]
    """With all rows that were asked."""
    tokens: Tokens
    reused: bool = False


def draw_probe(
    launch: DiagnosisLaunch | EvaluationLaunch, store: Store, round_number: int, trained: Trained, folder: Path
) -> QuestionSet:
    """The probe rows that a round draws, checked."""
    rollouts = launch.diagnosis.rollouts_per_item
    return sample_probe(store, launch.probe, trained, launch.seed, round_number, rollouts, folder)


def _count(questions: QuestionSet, ledger: Ledger) -> dict[str, Answered]:
    """How the first rows of a set were answered."""
    n = dict.fromkeys(questions.categories, 0)
    correct = dict.fromkeys(questions.categories, 0)
    for row in read_rows(questions):
        item = graded(questions, row, ledger, None)
        if item.get("correct") is not None:
            n[row["category"]] += 1
            correct[row["category"]] += item["correct"]
    return {c: Answered(n[c], correct[c], len(questions.spare.get(c, ()))) for c in questions.categories}


def spare_rows(questions: QuestionSet, ledger: Ledger, confidence: float) -> list[str]:
    """The spare rows to ask, given the answers so far. Kept in the ledger: a later attempt decides the same."""
    found = ledger.get(_ALLOCATION)
    if found is None:
        given = allocate(_count(questions, ledger), questions.adaptive, confidence)
        found = {"id": _ALLOCATION, "rows": given}
        ledger.append(found)
        ledger.flush()
    return [name for category, rows in found["rows"].items() for name in questions.spare[category][:rows]]


def ask(
    launch: DiagnosisLaunch | EvaluationLaunch,
    store: Store,
    model: InputRef,
    sets: Sequence[QuestionSet],
    folder: Path,
) -> Asked:
    """Ask the served model and grade its answers. Also when stopped, what was answered is in the ledger."""
    settings = launch.diagnosis
    # answers to other questions or of other weights must not be found: uploads may change between attempts
    same = fingerprint(model, sets, launch.probe, settings)
    with Ledger(store, join(launch.output, "ledger", same[:16])) as ledger:
        done = len(ledger) - (_ALLOCATION in ledger)
        progress = ProgressReporter(launch, store, amount(sets).requests, done=done, unit="requests")

        async def decide(questions: QuestionSet) -> list[str]:
            return await asyncio.to_thread(spare_rows, questions, ledger, settings.confidence)

        async def asking() -> tuple[list[QuestionSet], dict[str, str]]:
            async with ModelClient(launch.model.url, concurrency=settings.concurrency) as client:
                return await ask_sets(client, sets, ledger, progress, settings, launch.seed, decide)

        asked, errors = run_async(asking())
        path = folder / ITEMS
        write_items(asked, ledger, errors, path)
        return Asked(path, tuple(asked), paid(ledger))


def publish(
    launch: DiagnosisLaunch | EvaluationLaunch,
    store: Store,
    inputs: list[InputRef],
    files: Sequence[Path],
    summary: dict[str, object],
) -> None:
    """Upload the files, then the manifest."""
    store.publish(
        launch.output,
        Manifest(
            stage=launch.stage,
            attempt=launch.attempt,
            iteration=launch.iteration,
            created_at=datetime.now(UTC),
            inputs=inputs,
            outputs=[store.upload(path, join(launch.output, path.name)) for path in files],
            summary=summary,
            seed=launch.seed,
            versions=package_versions(*PACKAGES),
        ),
    )
