"""The diagnosis stage: choose questions, ask them, grade, report, mix."""

import logging
import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from dpe_api.artifacts import DiagnosisReport, DiagnosisSummary, InputRef, Quota, Tokens
from dpe_api.launch import DiagnosisLaunch, Launch
from dpe_api.names import Exit
from dpe_jobs.diagnosis.items import ITEMS, Items, keep_sets
from dpe_jobs.diagnosis.memory import read_memory
from dpe_jobs.diagnosis.mixture import MIXTURE, mix
from dpe_jobs.diagnosis.procedure import Asked, ask, draw_probe, publish
from dpe_jobs.diagnosis.report import REPORT, describe, fingerprint
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, take
from dpe_jobs.diagnosis.trained import trained_on
from dpe_jobs.generation.render import load_programs, supply
from dpe_jobs.runtime import ProgressReporter, run_stage
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

_QUOTAS = TypeAdapter(list[Quota])


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
        asked = reuse(launch, store, model, folder) or ask_afresh(launch, store, model, folder)
        report = describe(Items(asked.path), asked.sets, model, launch.probe, launch.diagnosis)
        memory = read_memory(store, launch.previous, launch.mixture.memory)
        categories = report.of(PROBE).categories
        programs = load_programs(launch.generation.sources)
        quotas = mix(
            categories,
            launch.mixture,
            launch.generation.target_samples,
            seed=launch.seed,
            round_number=launch.round,
            memory=memory,
            supply=supply(programs, [c.name for c in categories]) if programs else None,
        )
        (folder / REPORT).write_text(report.model_dump_json(by_alias=True, exclude_none=True, indent=1))
        (folder / MIXTURE).write_bytes(_QUOTAS.dump_json(quotas, by_alias=True, indent=1))
        summary = DiagnosisSummary(report=report, quotas=quotas, reused=asked.reused, tokens=asked.tokens)
        inputs = [model, *(s.source for s in asked.sets), *(memory.inputs if memory else ())]
        publish(launch, store, inputs, [folder / n for n in (ITEMS, REPORT, MIXTURE)], summary.wire())


def ask_afresh(launch: DiagnosisLaunch, store: Store, model: InputRef, folder: Path) -> Asked:
    """Answers to the rows that this round draws."""
    probe = draw_probe(launch, store, launch.round, trained_on(store, model.uri), folder)
    benchmarks = [take(store, b.name, b.uri, folder) for b in launch.benchmarks]
    return ask(launch, store, model, [probe, *benchmarks], folder)


def reuse(launch: DiagnosisLaunch, store: Store, model: InputRef, folder: Path) -> Asked | None:
    """Answers that `launch.reuse` has, when it asked the same model about the same sets in the same way; else None.

    An evaluation asks the rows that this round would draw. A diagnosis whose candidate was rejected has those of its
    own round, which are as good.
    """
    if launch.reuse is None:
        return None
    if store.manifest(launch.reuse) is None:
        log.info("%s has no manifest: asking afresh", launch.reuse)
        return None
    report = DiagnosisReport.model_validate(store.get_json(join(launch.reuse, REPORT)))
    earlier = folder / f"earlier-{ITEMS}"
    store.download(join(launch.reuse, ITEMS), earlier)
    sets = asked_before(launch, store, report, Items(earlier), folder)
    if sets is None or report.fingerprint != fingerprint(model, sets, launch.probe, launch.diagnosis):
        log.info("%s is about another model, other questions or other sampling: asking afresh", launch.reuse)
        return None
    log.info("reusing %d answers of %s", sum(s.size for s in sets), launch.reuse)
    keep_sets(earlier, [s.name for s in sets], folder / ITEMS)
    total = sum(s.size for s in sets)
    ProgressReporter(launch, store, total, done=total)
    return Asked(folder / ITEMS, tuple(sets), Tokens(), reused=True)


def asked_before(
    launch: DiagnosisLaunch, store: Store, report: DiagnosisReport, items: Items, folder: Path
) -> list[QuestionSet] | None:
    """The rows of an earlier report as sets of this launch; None when it has not all of them."""
    wanted = [(PROBE, launch.probe.uri, launch.diagnosis.rollouts_per_item)]
    wanted += [(b.name, b.uri, 0) for b in launch.benchmarks]
    known = {s.name: s for s in report.sets}
    if any(name not in known for name, _, _ in wanted):
        return None
    return [
        QuestionSet(
            name,
            store.input_ref(uri),
            items.ids(name),
            tuple(c.name for c in known[name].categories),
            folder / f"{name}.parquet",
            rollouts,
            excluded=known[name].excluded,
        )
        for name, uri, rollouts in wanted
    ]
