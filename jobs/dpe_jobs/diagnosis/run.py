"""The diagnosis stage: choose questions, ask them, grade, say why answers are wrong, mix."""

import logging
import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from dpe_api.artifacts import AttributionReport, DiagnosisReport, DiagnosisSummary, InputRef, Quota, Tokens
from dpe_api.launch import DiagnosisLaunch, Launch
from dpe_api.names import Exit
from dpe_jobs.diagnosis.ask import paid
from dpe_jobs.diagnosis.attribution import attribute_by_endpoint, attribute_by_rules, most_frequent
from dpe_jobs.diagnosis.categorise import CATEGORIES, read_known, write_known
from dpe_jobs.diagnosis.items import ITEMS, Items, regrade
from dpe_jobs.diagnosis.memory import read_memory
from dpe_jobs.diagnosis.mixture import MIXTURE, Memory, mix
from dpe_jobs.diagnosis.procedure import (
    LEDGER,
    Asked,
    add,
    ask,
    check_judge,
    draw_probe,
    endpoint,
    kinds_of,
    publish,
    report_progress,
    sub_ledger,
)
from dpe_jobs.diagnosis.report import REPORT, describe, fingerprint
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, questions_path, take
from dpe_jobs.diagnosis.trained import trained_on
from dpe_jobs.generation.team import known_limits
from dpe_jobs.ledger import Ledger
from dpe_jobs.lmms_eval.run import ask_tasks, files
from dpe_jobs.outputs import download_output, read_output
from dpe_jobs.runtime import ProgressReporter, run_async, run_stage
from dpe_jobs.store import ChecksumMismatch, Store, join

log = logging.getLogger(__name__)

_QUOTAS = TypeAdapter(list[Quota])
_ATTRIBUTION = "attribution"


def main(launch: Launch) -> Exit:
    """Run the stage."""
    return run_stage(launch, run)


def run(launch: Launch, store: Store) -> None:
    """Diagnose the served model and publish items, report, page and mixture."""
    assert isinstance(launch, DiagnosisLaunch)
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = store.input_ref(launch.model.uri)
        asked = reuse(launch, store, model, folder) or ask_afresh(launch, store, model, folder)
        measured = describe(
            Items(asked.items), asked.sets, model, launch.model, launch.probe, launch.diagnosis, launch.endpoints
        )
        attribution, tokens = attribute(launch, store, asked)
        tasks = ask_tasks(launch, launch.lmms_eval, store, model, folder)
        memory = read_memory(store, launch.previous, launch.mixture.memory)
        quotas = mixture(launch, measured, memory)
        (folder / MIXTURE).write_bytes(_QUOTAS.dump_json(quotas, by_alias=True, indent=1))
        summary = DiagnosisSummary(
            report=measured,
            quotas=quotas,
            weaknesses=most_frequent(attribution),
            lmms_eval=tasks,
            reused=asked.reused,
            tokens=add(asked.tokens, tokens, *(t.tokens for t in tasks)),
        )
        inputs = [model, *(s.source for s in asked.sets), *(memory.inputs if memory else ())]
        report = measured.model_copy(update={"attribution": attribution})
        others = [MIXTURE, *files(launch.lmms_eval)]
        publish(launch, store, folder, inputs, asked, report, quotas, others, summary.wire())


def ask_afresh(launch: DiagnosisLaunch, store: Store, model: InputRef, folder: Path) -> Asked:
    """Answers to the rows that this round draws."""
    benchmarks = [take(store, b.name, b.uri, folder) for b in launch.benchmarks]
    check_judge(launch, kinds_of(benchmarks))  # before an endpoint is paid for categories
    probe, tokens = draw_probe(launch, store, launch.round, trained_on(store, model.uri), launch.reuse, folder)
    asked = ask(launch, store, model, [probe, *benchmarks], folder)
    return Asked(asked.items, asked.sets, add(asked.tokens, tokens))


def reuse(launch: DiagnosisLaunch, store: Store, model: InputRef, folder: Path) -> Asked | None:
    """Answers that `launch.reuse` has, when it asked the same model about the same sets in the same way; else None.

    An evaluation asks the rows that the next round draws. The diagnosis of a round whose candidate was rejected has
    rows of its own, which are as good.
    """
    if launch.reuse is None:
        return None
    if store.manifest(launch.reuse) is None:
        log.info("%s has no manifest: asking afresh", launch.reuse)
        return None
    earlier = folder / f"earlier-{ITEMS}"
    try:
        report = DiagnosisReport.model_validate_json(read_output(store, launch.reuse, REPORT))
        download_output(store, launch.reuse, ITEMS, earlier)
    except ChecksumMismatch as error:
        log.warning("asking afresh: %s", error)
        return None
    items = Items(earlier)
    sets = asked_before(launch, store, report, items, folder)
    same = sets and fingerprint(model, launch.model, sets, launch.probe, launch.diagnosis, launch.endpoints)
    if not sets or report.fingerprint != same:
        log.info("%s is about another model, serving, questions or sampling: asking afresh", launch.reuse)
        return None
    total = sum(s.size for s in sets)
    log.info("reusing %d answers of %s", total, launch.reuse)
    known = items.categories(PROBE)
    take(store, PROBE, launch.probe.uri, folder, only=known.keys(), categories=known)  # for those who look at images
    try:
        regrade(earlier, [s.name for s in sets], folder / ITEMS)
    except ValueError as error:
        log.warning("asking afresh, which tells the row at fault: %s", error)
        return None
    if launch.probe.categorise is not None:
        write_known(read_known(store, launch.reuse), folder / CATEGORIES)
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
            questions_path(folder, name),
            rollouts,
            excluded=known[name].excluded,
            uncategorised=known[name].uncategorised,
        )
        for name, uri, rollouts in wanted
    ]


def attribute(launch: DiagnosisLaunch, store: Store, asked: Asked) -> tuple[AttributionReport, Tokens]:
    """Why answers are wrong, and what an endpoint took for telling it."""
    settings = launch.diagnosis
    rules = attribute_by_rules(asked.items, settings)
    if settings.attribution.endpoint is None:
        return rules.report, Tokens()
    teacher = endpoint(launch, settings.attribution.endpoint)
    with sub_ledger(launch, store, _ATTRIBUTION) as ledger:
        if asked.reused and launch.reuse is not None:
            # what was said of the same wrong answers, where they were diagnosed, is paid for
            for row in Ledger(store, join(launch.reuse, LEDGER, _ATTRIBUTION)):
                ledger.append(row | {"prompt_tokens": 0, "completion_tokens": 0, "calls": 0})
        most = min(settings.attribution.max_calls, rules.report.wrong)
        report_progress(launch, store, ledger, most, "wrong answers")
        report = run_async(attribute_by_endpoint(teacher, rules, asked.items, asked.probe.path, settings, ledger))
        return report, paid(ledger)


def mixture(launch: DiagnosisLaunch, report: DiagnosisReport, memory: Memory | None) -> list[Quota]:
    """The quotas."""
    categories = report.of(PROBE).categories
    return mix(
        categories,
        launch.mixture,
        launch.generation.target_samples,
        seed=launch.seed,
        round_number=launch.round,
        memory=memory,
        supply=known_limits(launch.generation.sources, [c.name for c in categories]),
    )
