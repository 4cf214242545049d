"""The generation stage: plan targets, draw, write, validate, solve, keep; plan what is missing again; publish."""

import asyncio
import hashlib
import io
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import prometheus_client
from PIL import Image

from dpe_api.artifacts import GenerationSummary, InputRef, Manifest, OutputFile, Tokens
from dpe_api.launch import GenerationLaunch, Launch
from dpe_api.names import Exit
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.generation.candidates import make
from dpe_jobs.generation.dedup import Reserved
from dpe_jobs.generation.findings import Findings, read_findings
from dpe_jobs.generation.judge import Judge, Verdict
from dpe_jobs.generation.planner import Plan
from dpe_jobs.generation.render import load_programs
from dpe_jobs.generation.samples import SampleFiles, rejected_row, sample_row
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import read_questions
from dpe_jobs.runtime import BadData, ProgressReporter, Transient, package_versions, run_async, run_stage
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

SAMPLES = prometheus_client.Counter("dpe_samples_total", "Candidates by what became of them", ["outcome"])
READY_S = 120.0  # the operator starts this stage when the model is ready; a Service may lag behind
PACKAGES = ("dpe", "numpy", "pyarrow", "pillow", "httpx")


def main(launch: Launch) -> Exit:
    """Run the stage."""
    return run_stage(launch, run)


def run(launch: Launch, store: Store) -> None:
    """Make the samples that the diagnosis asks for and publish them."""
    assert isinstance(launch, GenerationLaunch)
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return
    findings = read_findings(store, launch.diagnosis_artifact)
    plan = Plan(
        findings.quotas,
        load_programs(launch.generation.sources),
        findings.weaknesses,
        launch.generation.max_candidates,
        derive(launch.seed, launch.round, "generation"),
        launch.generation.target_samples,
    )
    reserved = reserve(store, launch.decontaminate)
    model = store.input_ref(launch.model.uri)
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger(store, join(launch.output, "ledger", solver_fingerprint(launch, model))) as ledger,
        SampleFiles(store, launch.output, Path(folder)) as files,
    ):
        run_async(fill(launch, store, findings, plan, reserved, ledger, files))
        if plan.kept == 0:
            raise BadData("NoSamples", f"{_reasons(plan)}: widen spec.generation.filter or raise maxCandidates")
        inputs = [model, *(store.input_ref(uri) for uri in (launch.diagnosis_artifact, *launch.decontaminate))]
        publish(launch, store, inputs, files.finish(), summarise(plan, ledger))


def reserve(store: Store, sets: Sequence[str]) -> Reserved:
    """The pictures of probe and benchmarks."""

    def pictures() -> Iterator[Image.Image]:
        for uri in sets:
            for question in read_questions(store, uri):
                with Image.open(io.BytesIO(question.image)) as image:
                    yield image.convert("RGB")

    reserved = Reserved(pictures())
    log.info("%d pictures of %d question sets are reserved", len(reserved), len(sets))
    return reserved


def solver_fingerprint(launch: GenerationLaunch, model: InputRef) -> str:
    """Names the ledger: answers of other weights, or sampled otherwise, must not be found."""
    band = launch.generation.filter
    asked = [model.sha256, launch.seed, band.rollouts, band.temperature, band.top_k, launch.max_tokens]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


async def fill(
    launch: GenerationLaunch,
    store: Store,
    findings: Findings,
    plan: Plan,
    reserved: Reserved,
    ledger: Ledger,
    files: SampleFiles,
) -> None:
    """Plan, judge and settle waves until the quotas are met or the budget is used."""
    progress = ProgressReporter(launch, store, plan.target, unit="samples")
    async with ModelClient(launch.model.url, concurrency=launch.concurrency) as client:
        try:
            await client.wait_ready(READY_S)
        except RequestFailed as error:
            raise Transient("ModelNotReady", str(error)) from error
        judge = Judge(launch, plan, client, ledger, reserved, progress)
        while wave := plan.next_wave():
            verdicts = await judge.judge(wave)
            await asyncio.to_thread(settle, verdicts, plan, findings, files, launch.round)
            await asyncio.to_thread(progress.set, plan.kept)
            log.info("%d candidates judged, %d of %d samples kept", len(wave), plan.kept, plan.target)


def settle(verdicts: Sequence[Verdict], plan: Plan, findings: Findings, files: SampleFiles, round_number: int) -> None:
    """Keep or reject, in the order of the wave. What is kept is drawn again: nobody held its picture."""
    for verdict in verdicts:
        target = verdict.target
        reason = plan.settle(target.category, verdict.reason)
        SAMPLES.labels(reason or "Kept").inc()
        if reason is not None:
            files.reject(rejected_row(verdict, reason))
            continue
        program = plan.tallies[target.category].program
        assert program is not None
        candidate = make(program, target, round_number)
        if candidate.id != verdict.id:
            raise BadData(
                "NotReproducible",
                f"program {program.name} drew another picture for the same target ({verdict.id}, {candidate.id}): its "
                f"draw must depend on knobs and rng alone",
            )
        files.keep(sample_row(candidate, verdict, findings.examples(target.category, candidate.facets)))


def _reasons(plan: Plan) -> str:
    total = sum((tally.rejected for tally in plan.tallies.values()), Counter())
    reasons = ", ".join(f"{count} {reason}" for reason, count in total.most_common())
    return f"none of {sum(t.planned for t in plan.tallies.values())} candidates was kept ({reasons})"


def summarise(plan: Plan, ledger: Ledger) -> GenerationSummary:
    """The stage's summary. Tokens are those of all attempts."""
    categories = plan.report()
    rejected: Counter[str] = sum((Counter(c.rejected) for c in categories), Counter())
    paid = list(ledger)
    return GenerationSummary(
        target=plan.target,
        candidates=sum(c.candidates for c in categories),
        kept=plan.kept,
        shortfall=plan.target - plan.kept,
        rejected=dict(sorted(rejected.items())),
        categories=categories,
        tokens=Tokens(
            prompt=sum(row["prompt_tokens"] for row in paid), completion=sum(row["completion_tokens"] for row in paid)
        ),
    )


def publish(
    launch: GenerationLaunch,
    store: Store,
    inputs: list[InputRef],
    outputs: list[OutputFile],
    summary: GenerationSummary,
) -> None:
    """Put the manifest, last."""
    manifest = Manifest(
        stage=launch.stage,
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=datetime.now(UTC),
        inputs=inputs,
        outputs=outputs,
        summary=summary.wire(),
        seed=launch.seed,
        versions=package_versions(*PACKAGES),
    )
    store.publish(launch.output, manifest)
