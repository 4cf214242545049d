"""The generation stage: plan targets, select, write, validate, solve, keep; plan what is missing again; publish."""

import asyncio
import hashlib
import json
import logging
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dpe_api.artifacts import GenerationSummary, InputRef, Manifest, OutputFile
from dpe_api.generation_spec import Review
from dpe_api.launch import GenerationLaunch, Launch
from dpe_api.names import DRAFT, REVIEW, Exit
from dpe_jobs import prompts
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.diagnosis.ask import paid
from dpe_jobs.diagnosis.report import served_as
from dpe_jobs.generation import card, page, review
from dpe_jobs.generation.agents.staff import Staff
from dpe_jobs.generation.dedup import Seen
from dpe_jobs.generation.findings import read_findings
from dpe_jobs.generation.gallery import SHOWN, Gallery
from dpe_jobs.generation.judge import Judge
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.pictures import Processor, read_processor
from dpe_jobs.generation.quality.reserved import Reserved, earlier_samples, reserve
from dpe_jobs.generation.samples import SampleFiles, few_licences
from dpe_jobs.generation.schedule import Schedule, warmups
from dpe_jobs.generation.shards import Shard, merge_galleries, merge_outputs, merge_summaries, shard_manifests
from dpe_jobs.generation.stream import Flow, Spool, Stream
from dpe_jobs.generation.team import check_supply, hire
from dpe_jobs.ledger import Ledger
from dpe_jobs.patience import patience_s
from dpe_jobs.runtime import BadData, ProgressReporter, Transient, package_versions, run_async, run_stage
from dpe_jobs.seeds import derive
from dpe_jobs.store import Store, join

log = logging.getLogger(__name__)

READY_S = 120.0  # the operator starts this stage when the model is ready; a Service may lag behind
PACKAGES = ("dpe", "numpy", "pyarrow", "pillow", "httpx")


def main(launch: Launch) -> Exit:
    """Run the stage."""
    return run_stage(launch, run)


def run(launch: Launch, store: Store) -> None:
    """Make the samples that the diagnosis asks for, or this shard's part of them, and publish them."""
    assert isinstance(launch, GenerationLaunch)
    if store.manifest(launch.output) is not None:
        log.info("%s is published already", launch.output)
        return
    if launch.reviewed:
        apply_review(launch, store)
        return
    if launch.generation.review is Review.REQUIRED:
        launch = launch.model_copy(update={"output": join(launch.output, DRAFT)})
        if store.manifest(launch.output) is not None:
            log.info("%s is published already, and nobody has accepted it yet", launch.output)
            return
    shard = Shard.of_this_pod(launch.generation.shards)
    if shard.count > 1 and store.manifest(shard.folder(launch.output)) is not None:
        log.info("shard %d is published already", shard.index)
    else:
        make_samples(launch, store, shard)
    if shard.count > 1:
        merge(launch, store, shard.count)


def make_samples(launch: GenerationLaunch, store: Store, shard: Shard) -> None:
    """Fill the quotas of one shard and publish it."""
    findings = read_findings(store, launch.diagnosis_artifact)
    processor = read_processor(store, launch.model.uri, launch.context_tokens)
    model = store.input_ref(launch.model.uri)
    folder = shard.folder(launch.output)
    seed = derive(launch.seed, launch.round, "generation", *shard.parts)
    target = shard.part(launch.generation.target_samples)
    progress = ProgressReporter(launch, store, target, unit="samples", folder=folder)
    with (
        tempfile.TemporaryDirectory() as name,
        Ledger(store, join(folder, "ledger", solver_fingerprint(launch, model))) as ledger,
        Ledger(store, join(folder, "ledger", "agents")) as answers,
        reserve(store, launch.decontaminate, progress.beat) as reserved,
        hire(launch, store, findings, seed, shard, inspector(launch, processor, reserved), progress.beat) as hired,
    ):
        team, supplies, refs = hired
        schedule = Schedule(
            shard.quotas(findings.quotas),
            check_supply(supplies, findings.quotas),
            shard.part(launch.generation.max_candidates),
            target,
            {name: shard.part(wanted) for name, wanted in warmups(findings.quotas, launch.warmup).items()},
        )
        scratch, gallery = Path(name), Gallery(findings.quotas)
        with SampleFiles(store, launch.output, folder, scratch, schedule.lines, shard.name) as files:
            spool = Spool(scratch / "spool")
            flow = Flow(launch, schedule, team, progress, spool, files, gallery, shard.prefix(launch.round))
            staff = Staff(launch, store, findings, supplies, seed, answers, 1 / shard.count)
            run_async(fill(flow, store, staff, ledger))
            log.info("%d candidates judged, %d of %d samples kept", schedule.judged, schedule.kept, schedule.target)
            summary = summarise(schedule, files, ledger, staff)
            if shard.count == 1:
                check_some(summary)
            read = [store.input_ref(uri) for uri in (launch.diagnosis_artifact, *launch.decontaminate)]
            inputs = [model, *read, *refs]
            outputs, now = files.finish(), datetime.now(UTC)
            if shard.count == 1:
                outputs += show(launch, store, gallery, summary, inputs, scratch, now)
                outputs += ask_for_review(launch, store, gallery, outputs, scratch)
            else:
                gallery.write(scratch / SHOWN)
                outputs.append(store.upload(scratch / SHOWN, join(folder, SHOWN)))
            publish(launch, store, folder, inputs, outputs, summary, now)


def inspector(launch: GenerationLaunch, processor: Processor | None, reserved: Reserved) -> Inspector:
    """Who looks at pictures and questions. BadConfig: a language or a licence that nobody knows."""
    tokens, pixels = launch.answer_tokens, launch.max_pixels
    return Inspector(launch.generation.quality, reserved, processor, answer_tokens=tokens, max_pixels=pixels)


def solver_fingerprint(launch: GenerationLaunch, model: InputRef) -> str:
    """Names the ledger: answers of other weights, or served or sampled otherwise, must not be found."""
    band = launch.generation.filter
    asked = [model.sha256, launch.seed, band.rollouts, band.temperature, band.top_k, launch.max_tokens]
    asked += served_as(launch.model)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


async def fill(flow: Flow, store: Store, staff: Staff, ledger: Ledger) -> None:
    """Make, judge and settle candidates until the quotas are met or the budget is used."""
    launch = flow.launch
    wait_s = patience_s(launch.max_tokens, launch.concurrency * launch.generation.filter.rollouts)
    async with (
        ModelClient(launch.model.url, concurrency=launch.concurrency, timeout_s=wait_s) as client,
        staff.join(flow.team) as team,
    ):
        try:
            await client.wait_ready(READY_S)
        except RequestFailed as error:
            raise Transient("ModelNotReady", str(error)) from error
        earlier = earlier_samples(store, launch.model.uri, flow.progress.beat)
        warmed = frozenset(line.category for line in flow.schedule.lines.values() if line.warmup)
        with Seen() as seen:
            judge = await asyncio.to_thread(Judge, launch, client, ledger, team.inspector, seen, earlier, warmed)
            await Stream(replace(flow, team=team), judge).run()
        await asyncio.to_thread(flow.progress.set, flow.schedule.kept)


def summarise(schedule: Schedule, files: SampleFiles, ledger: Ledger, staff: Staff) -> GenerationSummary:
    """The summary of a stage or of a shard. Tokens are those of all attempts."""
    categories = schedule.report()
    rejected: Counter[str] = sum((Counter(c.rejected) for c in categories), Counter())
    return GenerationSummary(
        target=schedule.target,
        candidates=sum(c.candidates for c in categories),
        kept=schedule.kept,
        warmup=schedule.warmed,
        shortfall=schedule.target - schedule.kept,
        rejected=dict(sorted(rejected.items())),
        sources=dict(sorted(files.sources.items())),
        licences=few_licences(files.licences),
        categories=categories,
        tokens=paid(ledger, staff.ledger),
        spending=staff.spent,
    )


def check_some(summary: GenerationSummary) -> None:
    """BadData when nothing was kept: there is nothing to train on."""
    if summary.kept:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.rejected.items(), key=lambda item: -item[1]))
    used_up = [spent.endpoint for spent in summary.spending if spent.budget_spent]
    mend = "widen spec.generation.filter or raise maxCandidates"
    if used_up:
        mend = f"the budget of endpoint {', '.join(used_up)} is used up: raise spec.endpoints[].budget"
    raise BadData("NoSamples", f"none of {summary.candidates} candidates was kept ({reasons or 'no reasons'}): {mend}")


def show(
    launch: GenerationLaunch,
    store: Store,
    gallery: Gallery,
    summary: GenerationSummary,
    inputs: list[InputRef],
    scratch: Path,
    created_at: datetime,
) -> list[OutputFile]:
    """Put what is for people to look at beside the samples."""
    page.write(gallery, summary, launch, store, scratch / page.PAGE, created_at)
    model = next(one.sha256 for one in inputs if one.uri == launch.model.uri)
    card.write(summary, launch, model, versions(), scratch / card.CARD, created_at)
    return [store.upload(scratch / name, join(launch.output, name)) for name in (page.PAGE, card.CARD)]


def ask_for_review(
    launch: GenerationLaunch, store: Store, gallery: Gallery, outputs: list[OutputFile], scratch: Path
) -> list[OutputFile]:
    """Put what a review needs beside the samples of a draft; nothing where none is asked for."""
    if launch.generation.review is not Review.REQUIRED:
        return []
    review.write(store, launch.output, review.sample_outputs(outputs), scratch / REVIEW)
    gallery.write(scratch / SHOWN)
    return [store.upload(scratch / name, join(launch.output, name)) for name in (REVIEW, SHOWN)]


def apply_review(launch: GenerationLaunch, store: Store) -> None:
    """Publish the generation of a draft that a person has accepted. BadData "BadReview": a mark is no good."""
    uri = join(launch.output, DRAFT)
    manifest = store.manifest(uri)
    if manifest is None:
        raise BadData("NoDraft", f"{uri} has no manifest: nothing was reviewed")
    draft = review.Draft(store, uri, manifest, launch.output)
    marks = review.read_marks(draft)
    progress = ProgressReporter(launch, store, len(draft.samples), unit="files")
    gallery, now = Gallery(read_findings(store, launch.diagnosis_artifact).quotas), datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        outputs, summary = review.apply(draft, marks, gallery, scratch, progress)
        inputs = [*manifest.inputs, store.input_ref(uri), *([marks.source] if marks.source else [])]
        outputs += show(launch, store, gallery, summary, inputs, scratch, now)
    log.info("%d samples are dropped by review, %d are kept", len(marks.dropped), summary.kept)
    publish(launch, store, launch.output, inputs, outputs, summary, now)


def versions() -> dict[str, str]:
    """Of what made the samples: packages, and hashes of prompts."""
    return package_versions(*PACKAGES) | prompts.versions()


def publish(
    launch: GenerationLaunch,
    store: Store,
    folder: str,
    inputs: list[InputRef],
    outputs: list[OutputFile],
    summary: GenerationSummary,
    created_at: datetime,
) -> None:
    """Put the manifest of a stage or of a shard, last."""
    manifest = Manifest(
        stage=launch.stage,
        attempt=launch.attempt,
        iteration=launch.iteration,
        created_at=created_at,
        inputs=inputs,
        outputs=outputs,
        summary=summary.wire(),
        seed=launch.seed,
        versions=versions(),
    )
    store.publish(folder, manifest)


def merge(launch: GenerationLaunch, store: Store, count: int) -> None:
    """Publish the stage when all shards have published; else another one will."""
    manifests = shard_manifests(store, launch.output, count)
    if manifests is None:
        log.info("other shards are still at work: the last one publishes for all")
        return
    summary = merge_summaries([GenerationSummary.model_validate(m.summary) for m in manifests])
    check_some(summary)
    outputs = merge_outputs(store, launch.output, manifests)
    gallery = merge_galleries(store, launch.output, manifests, read_findings(store, launch.diagnosis_artifact).quotas)
    # the same time whoever merges: two that do so at once put the same page
    created_at, inputs = max(manifest.created_at for manifest in manifests), manifests[0].inputs
    with tempfile.TemporaryDirectory() as scratch:
        outputs += show(launch, store, gallery, summary, inputs, Path(scratch), created_at)
        outputs += ask_for_review(launch, store, gallery, outputs, Path(scratch))
    publish(launch, store, launch.output, inputs, outputs, summary, created_at)
