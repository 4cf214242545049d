"""What diagnosis and evaluation do alike: draw the rows of a round, ask, grade, attribute, and publish."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from dpe_api.artifacts import AnswerType, DiagnosisReport, InputRef, Manifest, Quota, Tokens
from dpe_api.endpoints import Endpoint
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch
from dpe_jobs import asking, prompts
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.diagnosis import page
from dpe_jobs.diagnosis.adaptive import Answered, allocate
from dpe_jobs.diagnosis.ask import amount, ask_sets, paid
from dpe_jobs.diagnosis.categorise import CATEGORIES, assign, presample, read_known, write_known
from dpe_jobs.diagnosis.items import ITEMS, NOT_JUDGED, graded, read_rows, to_judge, write_items
from dpe_jobs.diagnosis.judge import Graded, grade_all
from dpe_jobs.diagnosis.report import REPORT, fingerprint
from dpe_jobs.diagnosis.sample import PROBE, QuestionSet, sample_probe, survey, take
from dpe_jobs.diagnosis.trained import Trained
from dpe_jobs.graders import is_programmatic
from dpe_jobs.ledger import Ledger
from dpe_jobs.outputs import check_unpublished
from dpe_jobs.patience import patience_s
from dpe_jobs.questions import read_local
from dpe_jobs.runtime import BadConfig, BadData, ProgressReporter, package_versions, run_async
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

PACKAGES = ("dpe", "numpy", "scipy", "pyarrow", "pillow", "httpx", "math-verify", "pint", "jinja2")
LEDGER = "ledger"
_POOL = "probe_pool"
_ALLOCATION = "allocation"  # where the adaptive rows went: once decided, it stands

Launch = DiagnosisLaunch | EvaluationLaunch


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking, on the local disk."""

    items: Path
    """items.parquet."""
    sets: tuple[QuestionSet, ...]
    """With all rows that were asked."""
    tokens: Tokens
    reused: bool = False

    @property
    def probe(self) -> QuestionSet:
        """The rows of the probe, with their images."""
        return next(s for s in self.sets if s.name == PROBE)


def endpoint(launch: Launch, name: str) -> Endpoint:
    """An endpoint of the launch. BadConfig when it has none of this name."""
    for found in launch.endpoints:
        if found.name == name:
            return found
    raise BadConfig("UnknownEndpoint", f"{name} is none of the entries of spec.endpoints: add it or correct the name")


def sub_ledger(launch: Launch, store: Store, name: str) -> Ledger:
    """The ledger of one kind of request; the answers have one by their fingerprint."""
    return Ledger(store, join(launch.output, LEDGER, name))


def report_progress(launch: Launch, store: Store, ledger: Ledger, total: int, unit: str) -> None:
    """Let progress.json tell how a ledger grows: a stage that tells nothing for long is taken for dead."""
    ledger.on_append = ProgressReporter(launch, store, total, done=min(len(ledger), total), unit=unit).advance


def draw_probe(
    launch: Launch, store: Store, round_number: int, trained: Trained, known_in: str | None, folder: Path
) -> tuple[QuestionSet, Tokens]:
    """The probe rows that a round draws, checked, and what their categories cost.

    BadConfig when any row of the probe needs a judge and there is none. `known_in` is the folder of a diagnosis that
    has assigned categories. Three passes over the probe at most: ids, categories and what trained the model; the rows
    that an endpoint looks at; the rows that are asked.
    """
    probe, tokens = launch.probe, Tokens()
    progress = ProgressReporter(launch, store, 1, unit="rows read")

    def tell(rows: int) -> None:
        progress.set(rows, total=rows + 1)  # nobody knows how many there are

    seen = survey(store, probe.uri, trained, categories=probe.categorise is None, tell=tell)
    # of all rows, not of those that are drawn: else a later round, after a training, would be the first to miss it
    check_judge(launch, seen.kinds)
    categories: Mapping[str, str] = seen.categories
    uncategorised = 0
    if probe.categorise is not None:
        pool = presample(seen.ids, probe.sample_size)
        looked_at = take(store, _POOL, probe.uri, folder, only=pool, categories=dict.fromkeys(pool, ""))
        categories, tokens = categorise(launch, store, looked_at.path, len(pool), known_in, folder)
        uncategorised = len(pool) - len(categories)
        looked_at.path.unlink()
        if not categories:
            raise BadData("NoCategories", f"no row of {probe.uri} got a category from {probe.categorise.endpoint}")
    rollouts = launch.diagnosis.rollouts_per_item
    sample = sample_probe(store, probe, seen, categories, launch.seed, round_number, rollouts, folder)
    return replace(sample, uncategorised=uncategorised), tokens


def categorise(
    launch: Launch, store: Store, rows: Path, total: int, known_in: str | None, folder: Path
) -> tuple[dict[str, str], Tokens]:
    """Categories by id, and their cost. What is known then is in `folder`, to be published."""
    settings = launch.probe.categorise
    if settings is None:
        raise ValueError("spec.probe.categorise is not set")
    with sub_ledger(launch, store, "categories") as ledger:
        report_progress(launch, store, ledger, total, "rows categorised")
        found = run_async(
            assign(
                endpoint(launch, settings.endpoint),
                settings,
                read_local(rows),
                total,
                ledger,
                known=read_known(store, known_in),
                max_error_rate=launch.diagnosis.max_error_rate,
                fit=partial(asking.fit, max_pixels=launch.diagnosis.max_pixels),
            )
        )
        write_known(found.known, folder / CATEGORIES)
        return found.categories, paid(ledger)


def kinds_of(sets: Sequence[QuestionSet]) -> set[AnswerType]:
    """The answer types of some sets, spare rows included."""
    kinds: set[str] = set()
    for questions in sets:
        kinds |= set(pq.read_table(questions.path, columns=["answer_type"])["answer_type"].unique().to_pylist())
    return {AnswerType(kind) for kind in kinds}


def check_judge(launch: Launch, kinds: Collection[AnswerType]) -> bool:
    """Whether answers of these types need a judge. BadConfig when they do and there is none."""
    needed = any(not is_programmatic(kind) for kind in kinds)
    if needed and launch.diagnosis.judge is None:
        raise BadConfig(
            "NoJudge", "a question set has rows of answer_type judge: name an endpoint in spec.diagnosis.judge.endpoint"
        )
    return needed


@dataclass(frozen=True, slots=True)
class _Grading:
    """How answers become grades: by program, and by the judge where that is needed."""

    launch: Launch
    store: Store
    answers: Ledger
    verdicts: Ledger | None
    """None: no row needs a judge."""
    broken: dict[str, RequestFailed] = field(default_factory=dict)
    """What the judge failed on in this attempt: an answer may be in several sets, and is graded more than once."""

    async def judged(self, sets: Sequence[QuestionSet]) -> Graded:
        """Verdicts on all answers that need one; those of earlier calls are in the ledger."""
        judge = self.launch.diagnosis.judge
        if self.verdicts is None or judge is None:
            return NOT_JUDGED
        cases = [list(to_judge(questions, self.answers)) for questions in sets]
        responses = sum(len(case.responses) for of_set in cases for case in of_set)
        report_progress(self.launch, self.store, self.verdicts, responses, "verdicts")
        correct: dict[str, tuple[bool, ...]] = {}
        errors: dict[str, str] = {}
        for questions, of_set in zip(sets, cases, strict=True):  # each set has its own bound of errors
            graded_set = await grade_all(
                endpoint(self.launch, judge.endpoint),
                of_set,
                self.verdicts,
                total=questions.size,
                max_error_rate=self.launch.diagnosis.max_error_rate,
                broken=self.broken,
            )
            correct |= graded_set.correct
            errors |= graded_set.errors
        return Graded(correct, errors)

    async def spare_rows(self, questions: QuestionSet) -> list[str]:
        """The spare rows to ask, given the answers so far. Kept in the ledger: a later attempt decides the same."""
        if _ALLOCATION not in self.answers:
            verdicts = await self.judged([questions])
            await asyncio.to_thread(self._allocate, questions, verdicts)
        given = self.answers[_ALLOCATION]["rows"]
        return [name for category, rows in given.items() for name in questions.spare[category][:rows]]

    def _allocate(self, questions: QuestionSet, verdicts: Graded) -> None:
        n = dict.fromkeys(questions.categories, 0)
        correct = dict.fromkeys(questions.categories, 0)
        for row in read_rows(questions):
            item = graded(questions, row, self.answers, self.launch.diagnosis, verdicts=verdicts)
            if item.get("correct") is not None:
                n[row["category"]] += 1
                correct[row["category"]] += item["correct"]
        answered = {c: Answered(n[c], correct[c], len(questions.spare[c])) for c in questions.categories}
        given = allocate(answered, questions.adaptive, self.launch.diagnosis.confidence)
        self.answers.append({"id": _ALLOCATION, "rows": given})
        self.answers.flush()


def ask(launch: Launch, store: Store, model: InputRef, sets: Sequence[QuestionSet], folder: Path) -> Asked:
    """Ask the served model and grade its answers. Also when stopped, what was answered is in the ledger."""
    settings = launch.diagnosis
    if any(b.name == PROBE for b in launch.benchmarks):
        raise BadConfig("ReservedName", f"a benchmark is named {PROBE}, as the probe itself is: name it otherwise")
    needs_judge = check_judge(launch, kinds_of(sets))
    # answers to other questions or of other weights must not be found: uploads may change between attempts
    same = fingerprint(model, launch.model, sets, launch.probe, settings, launch.endpoints)
    with (
        Ledger(store, join(launch.output, LEDGER, same[:16])) as ledger,
        sub_ledger(launch, store, "judge") as verdicts,
    ):
        grading = _Grading(launch, store, ledger, verdicts if needs_judge else None)
        done = len(ledger) - (_ALLOCATION in ledger)
        progress = ProgressReporter(launch, store, amount(sets).requests, done=done, unit="requests")

        async def asking_and_judging() -> tuple[list[QuestionSet], dict[str, str], Graded]:
            most = max(questions.rollouts for questions in sets) + 1
            wait_s = patience_s(settings.max_tokens, settings.concurrency * most)
            async with ModelClient(launch.model.url, concurrency=settings.concurrency, timeout_s=wait_s) as client:
                asked, errors = await ask_sets(
                    client, sets, ledger, progress, settings, launch.seed, grading.spare_rows
                )
            await asyncio.to_thread(ledger.flush)  # judging may take long, and nothing is appended meanwhile
            return asked, errors, await grading.judged(asked)

        asked, errors, judged = run_async(asking_and_judging())
        path = folder / ITEMS
        write_items(asked, ledger, settings, errors, judged, path)
        return Asked(path, tuple(asked), paid(ledger, verdicts))


def publish(
    launch: Launch,
    store: Store,
    folder: Path,
    inputs: Sequence[InputRef],
    asked: Asked,
    report: DiagnosisReport,
    quotas: Sequence[Quota],
    others: Sequence[str],
    summary: dict[str, object],
) -> None:
    """Write report and page, upload them with items and `others`, then the manifest.

    AlreadyPublished: another attempt came first.
    """
    (folder / REPORT).write_text(report.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    now = datetime.now(UTC)
    page.write(
        report,
        quotas,
        asked.items,
        asked.probe.path,
        folder / page.PAGE,
        settings=launch.diagnosis,
        created_at=now,
    )
    names = [ITEMS, REPORT, page.PAGE, *others]
    if (folder / CATEGORIES).exists():
        names.append(CATEGORIES)
    check_unpublished(store, launch.output)
    store.publish(
        launch.output,
        Manifest(
            stage=launch.stage,
            attempt=launch.attempt,
            iteration=launch.iteration,
            created_at=now,
            inputs=list(inputs),
            outputs=[store.upload(folder / name, join(launch.output, name)) for name in names],
            summary=summary,
            seed=launch.seed,
            versions=package_versions(*PACKAGES) | prompts.versions(),
        ),
    )


def add(*tokens: Tokens) -> Tokens:
    """Tokens of several ledgers."""
    return Tokens(prompt=sum(t.prompt for t in tokens), completion=sum(t.completion for t in tokens))
