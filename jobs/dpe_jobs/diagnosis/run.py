"""The diagnosis stage: choose questions, ask them, grade, report, mix."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from dpe_api.artifacts import DiagnosisReport, DiagnosisSummary, InputRef, Manifest, Quota, Tokens
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch, Launch
from dpe_api.names import Exit
from dpe_jobs.client import ModelClient
from dpe_jobs.diagnosis.ask import ask_sets, paid
from dpe_jobs.diagnosis.items import ITEMS, Items, write_items
from dpe_jobs.diagnosis.mixture import MIXTURE, mix
from dpe_jobs.diagnosis.report import REPORT, describe, fingerprint
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, sample_probe, take
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import ProgressReporter, package_versions, run_async, run_stage
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

PACKAGES = ("dpe", "numpy", "scipy", "pyarrow", "pillow", "httpx", "math-verify")
_QUOTAS = TypeAdapter(list[Quota])


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking, on the local disk."""

    path: Path
    """items.parquet."""
    tokens: Tokens
    reused: bool = False


def main(launch: Launch) -> Exit:
    """Run the stage."""
    return run_stage(launch, run)


def run(launch: Launch, store: Store) -> None:
    """Diagnose the served model and publish items, report and mixture."""
    assert isinstance(launch, DiagnosisLaunch)
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = store.input_ref(launch.model.uri)
        sets = choose(launch, store, folder)
        asked = reuse(launch, store, model, sets, folder) or ask(launch, store, model, sets, folder)
        report = describe(Items(asked.path), sets, model, launch.diagnosis)
        quotas = mix(
            report.of(PROBE).categories,
            launch.mixture,
            launch.generation.target_samples,
            seed=launch.seed,
            round_number=launch.round,
        )
        publish(launch, store, [model, *(s.source for s in sets)], asked, report, quotas)


def choose(launch: DiagnosisLaunch, store: Store, folder: Path) -> list[QuestionSet]:
    """The probe's sample and all benchmarks, checked."""
    settings = launch.diagnosis
    probe = sample_probe(
        store, launch.probe.uri, launch.probe.sample_size, launch.seed, settings.rollouts_per_item, folder
    )
    return [probe, *(take(store, b.name, b.uri, folder) for b in launch.benchmarks)]


def reuse(
    launch: DiagnosisLaunch, store: Store, model: InputRef, sets: Sequence[QuestionSet], folder: Path
) -> Asked | None:
    """Earlier answers of the same model to the same questions in the same way, or None.

    The rows may be another sample of the probe than this iteration's seed draws, as long as it is as large.
    """
    if launch.reuse is None:
        return None
    if store.manifest(launch.reuse) is None:
        log.info("%s has no manifest: asking afresh", launch.reuse)
        return None
    report = DiagnosisReport.model_validate(store.get_json(join(launch.reuse, REPORT)))
    path = folder / ITEMS
    store.download(join(launch.reuse, ITEMS), path)
    items = Items(path)
    asked = {s.name: items.ids(s.name) for s in sets}
    same_rows = all(len(asked[s.name]) == len(s.ids) for s in sets)
    if not same_rows or report.fingerprint != fingerprint(model, sets, asked, launch.diagnosis):
        log.info("%s is about another model, other questions or other sampling: asking afresh", launch.reuse)
        return None
    log.info("reusing %d answers of %s", len(items.id), launch.reuse)
    total = sum(len(s.ids) for s in sets)
    ProgressReporter(launch, store, total, done=total)
    return Asked(path, Tokens(), reused=True)


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
    same = fingerprint(model, sets, {s.name: s.ids for s in sets}, settings)
    with Ledger(store, join(launch.output, "ledger", same[:16])) as ledger:
        total = sum(len(s.ids) for s in sets)
        progress = ProgressReporter(launch, store, total, done=len(ledger))

        async def asking() -> dict[str, str]:
            async with ModelClient(launch.model.url, concurrency=settings.concurrency) as client:
                return await ask_sets(client, sets, ledger, progress, settings, launch.seed)

        errors = run_async(asking())
        path = folder / ITEMS
        write_items(sets, ledger, errors, path)
        return Asked(path, paid(ledger))


def publish(
    launch: DiagnosisLaunch,
    store: Store,
    inputs: list[InputRef],
    asked: Asked,
    report: DiagnosisReport,
    quotas: list[Quota],
) -> None:
    """Upload the files, then the manifest."""
    folder = asked.path.parent
    (folder / REPORT).write_text(report.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    (folder / MIXTURE).write_bytes(_QUOTAS.dump_json(quotas, by_alias=True, indent=1))
    summary = DiagnosisSummary(report=report, quotas=quotas, reused=asked.reused, tokens=asked.tokens)
    store.publish(
        launch.output,
        Manifest(
            stage=launch.stage,
            attempt=launch.attempt,
            iteration=launch.iteration,
            created_at=datetime.now(UTC),
            inputs=inputs,
            outputs=[store.upload(folder / name, join(launch.output, name)) for name in (ITEMS, REPORT, MIXTURE)],
            summary=summary.wire(),
            seed=launch.seed,
            versions=package_versions(*PACKAGES),
        ),
    )
