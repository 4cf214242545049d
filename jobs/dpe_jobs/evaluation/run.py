"""The evaluation stage: ask the candidate what the base was asked, compare, judge; diagnose it for the next round."""

import logging
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from dpe_api.artifacts import Comparison, DiagnosisSummary, EvaluationSummary, InputRef, Manifest, TaskComparison
from dpe_api.launch import EvaluationLaunch, Launch
from dpe_api.names import Exit, Stage
from dpe_jobs.diagnosis.attribution import attribute_by_rules
from dpe_jobs.diagnosis.items import ASKED, ITEMS, Items, as_asked, read_rows, regrade
from dpe_jobs.diagnosis.procedure import add, ask, draw_probe, publish
from dpe_jobs.diagnosis.report import describe, fingerprint
from dpe_jobs.diagnosis.sample import PAIRED, PROBE, QuestionSet, take
from dpe_jobs.diagnosis.trained import Trained, trained_on
from dpe_jobs.evaluation.compare import compare, judge
from dpe_jobs.lmms_eval.run import ask_tasks, compare_tasks, files
from dpe_jobs.outputs import download_output
from dpe_jobs.rounds import page
from dpe_jobs.rounds.read import earlier_rounds, read_round
from dpe_jobs.runtime import BadConfig, BadData, StageError, Transient, run_stage
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

COMPARISON = "comparison.json"
BEFORE = f"before-{ITEMS}"
OTHERWISE = (
    "the base model was diagnosed under another serving, judge or release: compare with care, or start a new iteration"
)
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
        before = read_before(launch, store, folder)
        trained = trained_on(store, model.uri)
        again = same_rows(launch, store, before, trained, folder)
        check_unchanged(launch, store, folder / BEFORE, again)
        before = graded_alike(launch, folder)
        probe, tokens = draw_probe(launch, store, launch.round + 1, trained, launch.diagnosis_artifact, folder)
        sets = [probe, *again]
        asked = ask(launch, store, model, sets, folder)
        after = Items(asked.items)
        tasks = launch.evaluation.lmms_eval
        answered = ask_tasks(launch, tasks, store, model, folder)
        compared = compare_tasks(launch, store, answered, folder)
        measured = describe(after, asked.sets, model, launch.model, launch.probe, launch.diagnosis, launch.endpoints)
        said = verdict(launch, before, after, compared)
        if diagnosed_otherwise(launch, store, before):
            log.warning("%s: %s", launch.diagnosis_artifact, OTHERWISE)
            said["reason"] = f"{said['reason']}; {OTHERWISE}"
        summary = EvaluationSummary(
            report=measured, tokens=add(asked.tokens, tokens, *(t.tokens for t in answered)), **said
        )
        log.info("%s", summary.reason)
        (folder / COMPARISON).write_bytes(_COMPARISONS.dump_json(summary.comparisons, by_alias=True, indent=1))
        # by rules only: the iteration that goes on from here has its endpoint look at the same wrong answers
        attribution = attribute_by_rules(asked.items, launch.diagnosis).report
        report = measured.model_copy(update={"attribution": attribution})
        inputs = [model, earlier, *(s.source for s in sets), *previous_evaluation(launch, store)]
        others = [COMPARISON, *files(tasks), *draw_rounds(launch, store, summary, folder)]
        publish(launch, store, folder, inputs, asked, report, [], others, summary.wire())


def previous_evaluation(launch: EvaluationLaunch, store: Store) -> list[InputRef]:
    """The evaluation of the round before, which makes the rounds a chain; none in a first round, or when it is gone."""
    if launch.previous is None:
        return []
    folder = join(launch.previous, Stage.EVALUATION)
    return [store.input_ref(folder)] if store.manifest(folder) is not None else []


def draw_rounds(launch: EvaluationLaunch, store: Store, summary: EvaluationSummary, folder: Path) -> list[str]:
    """Write run.html of the rounds up to this one; names of what was written: nothing where a stage of it is gone."""
    root = launch.output.removesuffix(f"/{Stage.EVALUATION}")
    now = datetime.now(UTC)
    own = Manifest(stage=launch.stage, iteration=launch.iteration, created_at=now, summary=summary.wire())
    try:
        rounds = [*earlier_rounds(store, launch.previous), read_round(store, root, own)]
    except BadData as error:
        log.warning("no %s: %s", page.PAGE, error)
        return []
    page.write(rounds, folder / page.PAGE, created_at=now)
    return [page.PAGE]


def read_before(launch: EvaluationLaunch, store: Store, folder: Path) -> Items:
    """What the base answered. BadConfig when the diagnosis asked other sets."""
    path = folder / BEFORE
    download_output(store, launch.diagnosis_artifact, ITEMS, path)
    before = Items(path)
    missing = [name for name in (PROBE, *(b.name for b in launch.benchmarks)) if name not in before.names()]
    if missing:
        raise BadConfig(
            "NotDiagnosed",
            f"{launch.diagnosis_artifact} has no answers to {', '.join(missing)}: the benchmarks of diagnosis and "
            "evaluation must be the same",
        )
    return before


def same_rows(
    launch: EvaluationLaunch, store: Store, before: Items, trained: Trained, folder: Path
) -> list[QuestionSet]:
    """The rows that the diagnosis asked, of the probe but for those that the candidate was trained on since.

    BadData when rows are gone.
    """
    known = before.categories(PROBE)
    probe = take(store, PAIRED, launch.probe.uri, folder, only=known.keys(), categories=known, trained=trained)
    return [probe, *(take(store, b.name, b.uri, folder, only=frozenset(before.ids(b.name))) for b in launch.benchmarks)]


def check_unchanged(launch: EvaluationLaunch, store: Store, before: Path, sets: Sequence[QuestionSet]) -> None:
    """BadData when a row that is asked again has another question, answer or option than the diagnosis asked.

    Pictures are not kept beside the answers: whether those are the same cannot be told of files that were replaced.
    """
    manifest = store.manifest(launch.diagnosis_artifact)
    read = {i.uri: i.sha256 for i in manifest.inputs} if manifest else {}
    known: dict[tuple[str, str], dict[str, object]] = {}
    with pq.ParquetFile(before) as file:
        for batch in file.iter_batches(columns=["set", "id", *ASKED]):
            known |= {(row["set"], row["id"]): row for row in batch.to_pylist()}
    for questions in sets:
        uri = questions.source.uri
        if read.get(uri, questions.source.sha256) != questions.source.sha256:
            log.warning("%s was uploaded anew since the diagnosis: its pictures are taken to be the same", uri)
        for row in read_rows(questions):
            then, now = known[questions.asked_as, row["id"]], as_asked(row, launch.diagnosis)
            for column in ASKED:
                if then[column] != now[column]:
                    raise BadData(
                        "QuestionsChanged",
                        f"{uri}, row {row['id']!r}: its {column} is {now[column]!r}, and was {then[column]!r} when the "
                        "diagnosis asked it: put the question set back as it was, or start a new iteration",
                    )


def graded_alike(launch: EvaluationLaunch, folder: Path) -> Items:
    """What the base answered, graded as the candidate's answers will be: the diagnosis may have had other graders."""
    path = folder / f"regraded-{BEFORE}"
    regrade(folder / BEFORE, [PROBE, *(b.name for b in launch.benchmarks)], path)
    return Items(path)


def diagnosed_otherwise(launch: EvaluationLaunch, store: Store, before: Items) -> bool:
    """Whether the diagnosis would have another fingerprint now: the system may have been upgraded since.

    Of the rows and files that it asked, which `check_unchanged` looks at. Its graders do not matter either.
    """
    manifest = store.manifest(launch.diagnosis_artifact)
    if manifest is None:
        return False
    report = DiagnosisSummary.model_validate(manifest.summary).report
    read = {i.uri: i for i in manifest.inputs}
    rollouts = {PROBE: launch.diagnosis.rollouts_per_item}
    sets = [
        QuestionSet(s.name, read[s.uri], before.ids(s.name), (), Path(), rollouts.get(s.name, 0)) for s in report.sets
    ]
    base = InputRef(uri=report.model_uri, sha256=report.model_sha256)
    now = fingerprint(base, launch.model, sets, launch.probe, launch.diagnosis, launch.endpoints)
    return report.fingerprint != now


def nothing_to_compare(before: Items, after: Items, name: str) -> StageError:
    """Why the gate has nothing on a set: for now, while the candidate owes answers; else no attempt will change it."""
    again = PAIRED if name == PROBE else name
    told = f"no item of {name} was answered by both models"
    answered = before.ids_answered(name)
    if answered & (frozenset(after.ids(again)) - after.ids_answered(again)):
        return Transient("NothingToCompare", f"{told}: the candidate's answers are missing, and are asked for again")
    if not answered:
        return BadData("NothingToCompare", f"{told}: the diagnosis has no answers to it: start a new iteration")
    return BadData("NothingToCompare", f"{told}: the candidate was trained on all its rows: add rows to it")


def verdict(
    launch: EvaluationLaunch, before: Items, after: Items, tasks: Sequence[TaskComparison]
) -> dict[str, object]:
    """Comparisons on every set, and the gate's word: fields of the summary."""
    gate = launch.evaluation.gate
    benchmarks = [b.name for b in launch.benchmarks]
    comparisons = []
    for name in (PROBE, *benchmarks):
        comparison = compare(before, after, name, gate.confidence)
        if comparison is not None:
            comparisons.append(comparison)
        elif name != PROBE or not benchmarks:
            raise nothing_to_compare(before, after, name)
        else:
            log.warning("no item of the probe was answered by both models: the gate looks at the benchmarks alone")
    accepted, reason = judge(comparisons, gate, tasks)
    return {
        "comparisons": comparisons,
        "lmms_eval": tasks,
        "confidence": gate.confidence,
        "accepted": accepted,
        "reason": reason,
    }
