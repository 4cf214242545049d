"""The public benchmarks of a stage, one run of lmms-eval each. What is finished is in the store, and not run again."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpe_api.artifacts import InputRef, TaskComparison, TaskResult, Tokens
from dpe_api.evaluation_spec import LmmsEvalTask
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch
from dpe_jobs.diagnosis.report import served_as
from dpe_jobs.lmms_eval import program, results
from dpe_jobs.lmms_eval.compare import compare
from dpe_jobs.outputs import check_unpublished, download_output, read_output
from dpe_jobs.runtime import BadConfig, ProgressReporter
from dpe_jobs.seeds import derive
from dpe_jobs.store import ChecksumMismatch, NotFound, Store, join

log = logging.getLogger(__name__)

Launch = DiagnosisLaunch | EvaluationLaunch


def file_names(task: str) -> tuple[str, str, str]:
    """Of the raw results, the raw samples, and our own reading of them, which is uploaded last."""
    return f"lmms-eval-{task}-results.json", f"lmms-eval-{task}-samples.jsonl", f"lmms-eval-{task}.json"


@dataclass(frozen=True, slots=True)
class _Asking:
    """What all tasks of a stage have in common."""

    launch: Launch
    store: Store
    model: InputRef
    version: str
    folder: Path
    """On the local disk, for the files that are published."""

    def fingerprint(self, task: LmmsEvalTask) -> str:
        """Of what decides the answers, as far as it can be known: nobody tells when a volume's data changes."""
        parts = [self.model.sha256, task.task, task.limit, self.version, *served_as(self.launch.model)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def fetch(self, task: LmmsEvalTask, where: str) -> TaskResult | None:
        """What a folder of the store has about the task, with its files; None when it has not just this."""
        raw, samples, own = file_names(task.task)
        try:
            found = TaskResult.model_validate_json(read_output(self.store, where, own))
            if found.fingerprint != self.fingerprint(task):
                log.info("%s is about another model, other questions or another lmms-eval: asking afresh", where)
                return None
            for name in (raw, samples):
                download_output(self.store, where, name, self.folder / name)
        except NotFound:
            return None
        except ChecksumMismatch as error:
            log.warning("asking afresh: %s", error)
            return None
        return found

    def ask(self, task: LmmsEvalTask) -> None:
        """Run lmms-eval. Transient, with its words, when it fails."""
        work = self.folder / "lmms-eval"
        work.mkdir()
        try:
            out, data = work / "out", program.data_folder()
            progress = ProgressReporter(self.launch, self.store, 1, unit=f"questions of {task.task}")
            concurrency = self.launch.diagnosis.concurrency
            seed = derive(self.launch.seed, "lmms-eval", task.task)
            arguments = program.command(task, self.launch.model.url, out, concurrency=concurrency, seed=seed, data=data)
            said = program.run(arguments, work, data, lambda done, total: progress.set(done, total=total))
            written = results.find(out, task.task)
            if written is None:
                raise program.failure(task.task, said)
            results.check_answered(task.task, written.samples)
            raw, samples, _ = file_names(task.task)
            shutil.move(written.results, self.folder / raw)
            shutil.move(written.samples, self.folder / samples)
        finally:
            shutil.rmtree(work)

    def result(self, task: LmmsEvalTask) -> TaskResult:
        """What one task says, from the store where it is known, else asked and put there."""
        finished = self.fetch(task, self.launch.output)
        raw, samples, own = file_names(task.task)
        if finished is None:
            reuse = self.launch.reuse if isinstance(self.launch, DiagnosisLaunch) else None
            reused = reuse is not None and self.fetch(task, reuse) is not None
            if not reused:
                self.ask(task)
            finished = results.read(task, self.folder / raw, version=self.version, fingerprint=self.fingerprint(task))
            if reused:
                finished = finished.model_copy(update={"tokens": Tokens()})
        if task.gate and results.scores(finished, self.folder / samples) is None:
            raise BadConfig(
                "NotPaired",
                f"spec.evaluation.lmmsEval: {task.task} has gate, but {finished.metric} is no mean of a score from "
                f"0 to 1 of each question: name another metric of {', '.join(finished.metrics)}, or leave gate out",
            )
        (self.folder / own).write_text(finished.model_dump_json(by_alias=True, indent=1))
        check_unpublished(self.store, self.launch.output)
        for name in (raw, samples, own):
            self.store.upload(self.folder / name, join(self.launch.output, name))
        log.info("lmms-eval %s: %s %g of %d questions", task.task, finished.metric, finished.value, finished.n)
        return finished


def ask_tasks(
    launch: Launch, tasks: Sequence[LmmsEvalTask], store: Store, model: InputRef, folder: Path
) -> list[TaskResult]:
    """Results of the served model on all tasks; their files are in `folder` then, under `file_names`."""
    if not tasks:
        return []
    asking = _Asking(launch, store, model, program.version(folder), folder)
    return [asking.result(task) for task in tasks]


def files(tasks: Sequence[LmmsEvalTask]) -> list[str]:
    """Names of all files that `ask_tasks` leaves."""
    return [name for task in tasks for name in file_names(task.task)]


def compare_tasks(
    launch: EvaluationLaunch, store: Store, after: Sequence[TaskResult], folder: Path
) -> list[TaskComparison]:
    """The candidate's results beside the base's. BadConfig when the diagnosis has none."""
    gate = launch.evaluation.gate
    compared = []
    for task, found in zip(launch.evaluation.lmms_eval, after, strict=True):
        _, samples, own = file_names(task.task)
        data = store.find(join(launch.diagnosis_artifact, own))
        if data is None:
            raise BadConfig("NotDiagnosed", f"{launch.diagnosis_artifact} has no {own}: the base was not asked it")
        earlier = folder / f"before-{samples}"
        download_output(store, launch.diagnosis_artifact, samples, earlier)
        compared.append(
            compare(
                TaskResult.model_validate_json(data),
                found,
                (earlier, folder / samples),
                gate=task.gate,
                confidence=gate.confidence,
                seed=derive(launch.seed, "bootstrap", "lmms-eval", task.task),
            )
        )
    return compared
