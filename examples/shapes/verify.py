"""Check everything that one iteration left in the object store: `python -m examples.shapes.verify [shapes-1]`.

Checksums of every output and input, the table recomputed from the Parquet files, quotas, the samples' answers read
from their pixels, and that no picture is on both sides of a wall. Exit code 0 when all holds, 1 when something does
not, 2 when it cannot look.
"""

import argparse
import io
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import urllib3
from examples.shapes import data, recompute, truth, view
from examples.shapes.target import Target, Unusable
from kubernetes.client import ApiException
from pydantic import TypeAdapter
from rich.console import Console

from dpe_api.artifacts import (
    Comparison,
    DiagnosisReport,
    DiagnosisSummary,
    EvaluationSummary,
    GenerationSummary,
    Manifest,
    Quota,
)
from dpe_api.launch import StoreAddress
from dpe_api.names import BATCH_STAGES, Stage
from dpe_api.status import Phase, StageState, Status
from dpe_jobs.diagnosis.sample import PAIRED, PROBE
from dpe_jobs.questions import read_questions
from dpe_jobs.store import NotFound, Store, StoreError, join, sha256_file

_TOLERANCE = 1e-6  # of shares that went through JSON


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    ok: bool
    what: str
    details: tuple[str, ...] = ()


class Evidence:
    """What the checks look at, fetched once."""

    def __init__(self, store: Store, status: Status) -> None:
        """ValueError when the iteration has written nothing."""
        if status.artifacts is None or status.resolved is None:
            raise ValueError("the iteration has not started: there is nothing to check")
        self.store, self.status, self.root = store, status, status.artifacts
        self.spec = status.resolved.spec

    def folder(self, *names: str) -> str:
        """A folder of this iteration."""
        return join(self.root, *names)

    def table(self, uri: str) -> list[dict[str, Any]]:
        """All rows of a Parquet file; NotFound."""
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(self.store.get(uri))).to_pylist()
        return rows

    @cached_property
    def before(self) -> list[dict[str, Any]]:
        """Answers of the model that was improved."""
        return self.table(self.folder("diagnosis", "items.parquet"))

    @cached_property
    def after(self) -> list[dict[str, Any]]:
        """Answers of the candidate."""
        return self.table(self.folder("evaluation", "items.parquet"))

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """The training data."""
        files = self.store.parquet_files(self.folder("generation", "samples"))
        return [row for file in files for row in self.table(file)]

    @cached_property
    def quotas(self) -> list[Quota]:
        """The mixture."""
        return TypeAdapter(list[Quota]).validate_json(self.store.get(self.folder("diagnosis", "mixture.json")))

    def manifest(self, *names: str) -> Manifest:
        """The manifest of a folder of this iteration; NotFound."""
        found = self.store.manifest(self.folder(*names))
        if found is None:
            raise NotFound(f"{self.folder(*names)} has no manifest: it was not published")
        return found


def stages_are_complete(seen: Evidence) -> Finding:
    """Every stage is Done and has published."""
    wrong = [
        f"{s}: {seen.status.stage_status(s).state}"
        for s in BATCH_STAGES
        if seen.status.stage_status(s).state is not StageState.DONE
    ]
    wrong += [f"{s}: no manifest" for s in BATCH_STAGES if seen.store.manifest(seen.folder(s)) is None]
    if seen.status.phase not in (Phase.SUCCEEDED, Phase.REJECTED):
        wrong.append(f"the iteration is {seen.status.phase.value}")
    return Finding(not wrong, "every stage is done and has published", tuple(wrong))


def outputs_hold(seen: Evidence) -> Iterator[Finding]:
    """Every file that a manifest names is there, in its size and with its sha256, of the inputs too."""
    folders = [seen.folder(stage) for stage in BATCH_STAGES]
    folders += [seen.folder("training", "model"), seen.spec.probe.uri]
    folders += [benchmark.uri for benchmark in seen.spec.evaluation.benchmarks]
    if seen.status.resolved is not None:
        folders.append(seen.status.resolved.model_uri)
    for folder in folders:
        manifest = seen.store.manifest(folder)
        if manifest is None:
            yield Finding(False, f"{folder}: manifest", ("there is none",))
            continue
        wrong = []
        with tempfile.TemporaryDirectory() as scratch:
            for output in manifest.outputs:
                path = Path(scratch) / "file"
                try:
                    seen.store.download(join(folder, output.path), path)
                except StoreError as error:
                    wrong.append(str(error))
                    continue
                if (path.stat().st_size, sha256_file(path)) != (output.size, output.sha256):
                    wrong.append(f"{output.path}: {path.stat().st_size} bytes, not what the manifest says")
        size = sum(output.size for output in manifest.outputs)
        what = f"{folder}: {len(manifest.outputs)} files, {size} bytes, sha256"
        yield Finding(not wrong and bool(manifest.outputs), what, tuple(wrong) or (("no files",) if not size else ()))


def inputs_match(seen: Evidence) -> Finding:
    """What a stage says that it read is what is there now."""
    wrong, count = [], 0
    for stage in BATCH_STAGES:
        for wanted in seen.manifest(stage).inputs:
            count += 1
            try:
                now = seen.store.input_ref(wanted.uri).sha256
            except StoreError as error:
                wrong.append(f"{stage}: {error}")
                continue
            if now != wanted.sha256:
                wrong.append(f"{stage}: {wanted.uri} has changed since it was read")
    return Finding(not wrong and count > 0, f"{count} inputs are what the stages read", tuple(wrong))


def answers_are_graded_right(seen: Evidence) -> Finding:
    """Grading the stored responses again gives the stored grades."""
    wrong = [f"before: {i}" for i in recompute.misgraded(seen.before)]
    wrong += [f"after: {i}" for i in recompute.misgraded(seen.after)]
    return Finding(not wrong, f"{len(seen.before)} + {len(seen.after)} items are graded right", tuple(wrong))


def reports_equal_items(seen: Evidence) -> Iterator[Finding]:
    """report.json of diagnosis and evaluation says what items.parquet says."""
    for stage, items in ((Stage.DIAGNOSIS, seen.before), (Stage.EVALUATION, seen.after)):
        report = DiagnosisReport.model_validate_json(seen.store.get(seen.folder(stage, "report.json")))
        wrong = []
        for part in report.sets:
            counted = recompute.accuracies(recompute.of_set(items, part.name).values())
            said = {c.name: (c.correct, c.n) for c in part.categories if c.n}
            if said != counted:
                wrong.append(f"{part.name}: the report says {said}, the items {counted}")
            shares = recompute.macro(right / n for right, n in counted.values())
            if not math.isclose(shares, part.macro.value, abs_tol=_TOLERANCE):
                wrong.append(f"{part.name}: macro is {shares:.4f}, the report says {part.macro.value:.4f}")
        yield Finding(not wrong and bool(report.sets), f"{stage}: report.json equals items.parquet", tuple(wrong))


def _differences(said: Comparison, counted: dict[str, recompute.Change], where: str) -> Iterator[str]:
    """How a comparison differs from the counted one."""
    names = {c.name: c for c in said.categories}
    if set(names) != set(counted):
        yield f"{where}: categories {sorted(names)}, counted {sorted(counted)}"
        return
    for name, change in counted.items():
        told = names[name]
        close = all(
            math.isclose(a, b, abs_tol=_TOLERANCE)
            for a, b in (
                (told.before, change.before),
                (told.after, change.after),
                (told.delta.value, change.after - change.before),
            )
        )
        if told.n != change.n or not close or not told.delta.low <= told.delta.value <= told.delta.high:
            yield f"{where}: {name} is told as {told.n}: {told.before} -> {told.after}, counted {change}"
    before = recompute.macro(c.before for c in counted.values())
    after = recompute.macro(c.after for c in counted.values())
    if not (
        math.isclose(before, said.before, abs_tol=_TOLERANCE) and math.isclose(after, said.after, abs_tol=_TOLERANCE)
    ):
        yield f"{where}: macro is told as {said.before} -> {said.after}, counted {before} -> {after}"


def table_equals_items(seen: Evidence) -> Iterator[Finding]:
    """Before and after by category: status, comparison.json and the manifest against items.parquet."""
    summary = EvaluationSummary.model_validate(seen.manifest("evaluation").summary)
    stored = TypeAdapter(list[Comparison]).validate_json(seen.store.get(seen.folder("evaluation", "comparison.json")))
    told = {
        "status": [Comparison.model_validate(e.model_dump()) for e in seen.status.evaluation],
        "comparison.json": stored,
        "manifest.json": summary.comparisons,
    }
    for source, comparisons in told.items():
        wrong: list[str] = []
        for said in comparisons:
            # the probe's rows are the diagnosis's own; the evaluation's `probe` is the sample of the next round
            again = PAIRED if said.name == PROBE else said.name
            pair = recompute.of_set(seen.before, said.name), recompute.of_set(seen.after, again)
            wrong += _differences(said, recompute.changes(*pair), said.name)
        yield Finding(
            not wrong and bool(comparisons),
            f"{source}: {', '.join(c.name for c in comparisons) or 'nothing'} equals items.parquet",
            tuple(wrong),
        )


def quotas_add_up(seen: Evidence) -> Finding:
    """Weights sum to 1, quotas to the target; status and summary tell the same."""
    target = seen.spec.generation.target_samples
    wrong = []
    if sum(q.quota for q in seen.quotas) != target:
        wrong.append(f"quotas sum to {sum(q.quota for q in seen.quotas)}, the target is {target}")
    if not math.isclose(sum(q.weight for q in seen.quotas), 1.0, abs_tol=_TOLERANCE):
        wrong.append(f"weights sum to {sum(q.weight for q in seen.quotas)}")
    if DiagnosisSummary.model_validate(seen.manifest("diagnosis").summary).quotas != seen.quotas:
        wrong.append("mixture.json and the diagnosis's manifest differ")
    diagnosis = seen.status.diagnosis
    told = {c.name: c.quota for c in diagnosis.categories} if diagnosis else {}
    if told != {q.name: q.quota for q in seen.quotas}:
        wrong.append(f"the status tells {told}")
    return Finding(not wrong, f"quotas of {len(seen.quotas)} categories sum to {target}", tuple(wrong))


def samples_are_counted_right(seen: Evidence) -> Finding:
    """Kept samples by category: Parquet, summary and status; none above its quota."""
    summary = GenerationSummary.model_validate(seen.manifest("generation").summary)
    counted = Counter(str(row["category"]) for row in seen.samples)
    wrong = []
    if len({row["id"] for row in seen.samples}) != len(seen.samples):
        wrong.append("ids occur twice")
    if {c.name: c.kept for c in summary.categories if c.kept} != dict(counted):
        wrong.append(f"the summary tells {[(c.name, c.kept) for c in summary.categories]}, there are {dict(counted)}")
    if summary.kept != len(seen.samples) or summary.shortfall != summary.target - summary.kept:
        wrong.append(f"kept {summary.kept}, shortfall {summary.shortfall}, there are {len(seen.samples)} samples")
    told = seen.status.samples
    if told is None or {k: v for k, v in told.kept_by_category.items() if v} != dict(counted):
        wrong.append(f"the status tells {told}")
    wrong += [f"{q.name}: {counted[q.name]} kept, quota {q.quota}" for q in seen.quotas if counted[q.name] > q.quota]
    return Finding(not wrong, f"{len(seen.samples)} samples are counted right", tuple(wrong))


def samples_answers_are_right(seen: Evidence) -> Finding:
    """The answer of every sample, read from its picture by code that did not draw it."""
    wrong = []
    for row in seen.samples:
        expected = truth.answer(row["question"], *truth.see(row["image"]["bytes"]))
        if expected != row["answer"]:
            wrong.append(f"{row['id']}: {row['question']!r} says {row['answer']!r}, the picture {expected!r}")
    return Finding(not wrong and bool(seen.samples), f"{len(seen.samples)} samples have the right answer", tuple(wrong))


def _told(row: dict[str, Any], pool: dict[str, dict[str, str]]) -> dict[str, str] | None:
    """Facts of a sample's picture by what is known of where it comes from; None when its origin is not recorded.

    Of a picture of the pool: what easy-vqa's answers tell. Of an edited one: its parent's, changed as was recorded.
    """
    calls = [json.loads(call) for call in row["provenance"]["tool_calls"]]
    origins = row["provenance"]["origins"]
    first = origins[-1]
    if first["source"].startswith("pool:"):
        known = {key[: len(first["id"])]: facts for key, facts in pool.items()}
        facts = known.get(first["id"])
    elif calls and calls[0]["tool"].startswith("render:"):
        facts = {name: calls[0]["arguments"][name] for name in ("shape", "color")}
    else:
        return None
    if facts is None:
        return None
    if origins[0]["source"] == "edit:recolour":
        facts = facts | {"color": calls[-1]["arguments"]["color"]}
    return facts


def pictures_show_what_is_recorded(seen: Evidence) -> Finding:
    """Pictures of the pool show what easy-vqa says, edited ones what the edit made of it, drawn ones what was drawn."""
    pool, wrong = data.known_pictures(data.Part.POOL), []
    for row in seen.samples:
        told = _told(row, pool)
        if told is None:
            wrong.append(f"{row['id']}: its origin {row['provenance']['origins']} is not known")
            continue
        shape, color = truth.see(row["image"]["bytes"])
        facts = {"shape": shape, "color": color} | told
        expected = truth.answer(row["question"], facts["shape"], facts["color"])
        if not told.items() <= {"shape": shape, "color": color}.items() or expected != row["answer"]:
            wrong.append(f"{row['id']}: {row['question']!r} says {row['answer']!r}, its origin {told} {expected!r}")
    kinds = Counter(str(row["source"]).split(":")[0] for row in seen.samples)
    what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return Finding(
        not wrong and bool(seen.samples), f"answers are right by the pictures' origins: {what}", tuple(wrong)
    )


def walls_hold(seen: Evidence) -> Iterator[Finding]:
    """No picture, compared by its decoded pixels, is in two of: base training data, probe, pool, test, samples.

    But samples are made of the pool's.
    """
    sets = {
        str(part): {data.pixel_key(p) for p in {row.image for row in data.rows(part)}}
        for part in (data.Part.BASE, data.Part.POOL)
    }
    asked = {"probe": seen.spec.probe.uri, **{b.name: b.uri for b in seen.spec.evaluation.benchmarks}}
    for name, uri in asked.items():
        sets[name] = {data.pixel_key(io.BytesIO(q.image)) for q in read_questions(seen.store, uri)}
    sets["samples"] = {data.pixel_key(io.BytesIO(row["image"]["bytes"])) for row in seen.samples}
    names = list(sets)
    for i, one in enumerate(names):
        others = [name for name in names[i + 1 :] if (one, name) != (str(data.Part.POOL), "samples")]
        shared = {other: len(sets[one] & sets[other]) for other in others}
        wrong = tuple(f"{count} also in {other}" for other, count in shared.items() if count)
        if shared:
            yield Finding(not wrong, f"{one}: {len(sets[one])} pictures, none in {', '.join(shared)}", wrong)


CHECKS: tuple[Callable[[Evidence], Finding | Iterator[Finding]], ...] = (
    stages_are_complete,
    outputs_hold,
    inputs_match,
    answers_are_graded_right,
    reports_equal_items,
    table_equals_items,
    quotas_add_up,
    samples_are_counted_right,
    samples_answers_are_right,
    pictures_show_what_is_recorded,
    walls_hold,
)


def findings(seen: Evidence) -> Iterator[Finding]:
    """All checks; one that cannot be made is a failed one."""
    for check in CHECKS:
        try:
            found = check(seen)
            yield from [found] if isinstance(found, Finding) else found
        except (StoreError, ValueError, KeyError, ArithmeticError) as error:
            yield Finding(False, str(check.__doc__).splitlines()[0], (f"{type(error).__name__}: {error}",))


def show(console: Console, found: Finding) -> None:
    """One line, and up to ten lines of what is wrong."""
    sign, style = ("OK    ", "green") if found.ok else ("FAILED", "bold red")
    console.print(f"[{style}]{sign}[/] ", end="")
    console.print(found.what, markup=False, highlight=False, soft_wrap=True)
    for line in found.details[:10]:
        console.print(f"         {line}", markup=False, highlight=False, soft_wrap=True)
    if len(found.details) > 10:
        console.print(f"         and {len(found.details) - 10} more")


def main() -> int:
    """Exit code of the verification."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="shapes-1", help="the DPEIteration (default: %(default)s)")
    name = parser.parse_args().name
    console = Console()
    try:
        target = Target.from_env()
        status = target.status(name)
        if status is None:
            raise Unusable(f"there is no DPEIteration {name} in namespace {target.namespace}: `make demo` makes one")
        seen = Evidence(Store.from_env(StoreAddress(endpoint=os.environ["DPE_S3_ENDPOINT"])), status)
    except KeyError as error:
        console.print(f'{error} is not set: run `eval "$(make -s env)"` first', style="red")
        return 2
    except (Unusable, ValueError, ApiException, urllib3.exceptions.HTTPError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    console.print(f"{name}: {seen.root}", highlight=False, soft_wrap=True)
    results = []
    for found in findings(seen):
        show(console, found)
        results.append(found.ok)
    if status.evaluation:
        console.print(view.result_table(status))
    console.print(f"{sum(results)} of {len(results)} checks hold", style="green" if all(results) else "bold red")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
