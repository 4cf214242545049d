"""One iteration's artifacts, small and right, then wrong in one place at a time: the check of that place must fail."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples.shapes import data, truth, verify
from examples.shapes.data import Part
from examples.shapes.upload import publish_folder
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import (
    CategorySamples,
    DiagnosisSummary,
    EvaluationSummary,
    GenerationSummary,
    InputRef,
    Manifest,
    Quota,
)
from dpe_api.diagnosis_spec import Diagnosis, Probe
from dpe_api.launch import ServedModel
from dpe_api.names import BATCH_STAGES
from dpe_api.status import Status
from dpe_jobs.diagnosis.items import ITEMS, SCHEMA, Items
from dpe_jobs.diagnosis.report import describe
from dpe_jobs.diagnosis.sample import PAIRED, QuestionSet
from dpe_jobs.evaluation.compare import compare
from dpe_jobs.generation.samples import SAMPLE_SCHEMA
from dpe_jobs.questions import SCHEMA as QUESTIONS

BY_ORIGIN = "answers are right by the pictures' origins: 4 edit, 5 pool, 5 render"
ROOT = "s3://bkt/ns/shapes-1-12345678"
SETS = {"probe": (Part.PROBE, 2), "test": (Part.TEST, 2)}
SAMPLES = pa.schema([*QUESTIONS, SAMPLE_SCHEMA.field("provenance")])
QUOTAS = [Quota(name=c, weight=1 / 7, quota=2, reachable=True, retention=False) for c in data.CATEGORIES]


def item(name: str, row: data.Row, right: bool) -> dict[str, Any]:
    question = data.question(row)
    text = row.answer if right else "purple"
    return {
        "set": name,
        "id": row.id,
        "category": row.category,
        "question": row.question,
        "answer": row.answer,
        "answer_type": str(question.answer_type),
        "choices": [],
        "facets": [],
        "response": text,
        "correct": right,
        "rollouts": [text],
        "rollouts_correct": [right],
        "pass_rate": float(right),
        "error": None,
    }


class Made:
    """The artifacts, made with the stages' own functions for reports and comparisons."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = MemoryStore(), folder
        self.rows = {name: data.balanced(part, count) for name, (part, count) in SETS.items()}
        for name, rows in self.rows.items():
            manifest = data.write_set(rows, folder / name)
            publish_folder(self.store, folder / name, f"s3://bkt/data/{name}", manifest)
        for uri in ("s3://bkt/models/base", f"{ROOT}/training/model"):
            self.publish(uri, "model", {"config.json": b"{}"})
        sets = [
            QuestionSet(name, self.store.input_ref(f"s3://bkt/data/{name}"), (), data.CATEGORIES, folder, 1)
            for name in SETS
        ]
        inputs = [self.store.input_ref("s3://bkt/models/base"), *(s.source for s in sets)]
        before = self.items("before", lambda number: number % 2 == 0)
        after = self.items("after", lambda number: number % 3 > 0, again=True)
        paired = replace(sets[0], name=PAIRED)
        probe = Probe(uri="s3://bkt/data/probe")
        reports = [
            describe(Items(path), asked, inputs[0], ServedModel(url="", uri=inputs[0].uri), probe, Diagnosis())
            for path, asked in ((before, sets), (after, [*sets, paired]))
        ]
        mixture = json.dumps([q.wire() for q in QUOTAS]).encode()
        self.publish(
            f"{ROOT}/diagnosis",
            "diagnosis",
            {ITEMS: before.read_bytes(), "report.json": dump(reports[0]), "mixture.json": mixture},
            inputs,
            DiagnosisSummary(report=reports[0], quotas=QUOTAS).wire(),
        )
        samples = data.balanced(Part.POOL, 2)
        made = [CategorySamples(name=c, quota=2, candidates=2, kept=2, rejected={}) for c in data.CATEGORIES]
        self.publish(
            f"{ROOT}/generation",
            "generation",
            {"samples/part-00000.parquet": self.parquet([sample(i, r) for i, r in enumerate(samples)])},
            [self.store.input_ref(f"{ROOT}/diagnosis")],
            GenerationSummary(target=14, candidates=14, kept=14, shortfall=0, rejected={}, categories=made).wire(),
        )
        self.publish(f"{ROOT}/training", "training", {"metrics.jsonl": b"{}\n"}, inputs[:1])
        comparisons = [compare(Items(before), Items(after), name, 0.95) for name in ("test", "probe")]
        found = [c for c in comparisons if c is not None]
        self.publish(
            f"{ROOT}/evaluation",
            "evaluation",
            {
                ITEMS: after.read_bytes(),
                "report.json": dump(reports[1]),
                "comparison.json": json.dumps([c.wire() for c in found]).encode(),
            },
            inputs,
            EvaluationSummary(report=reports[1], comparisons=found, accepted=True, reason="r").wire(),
        )
        self.status = status([c.wire() for c in found])

    def publish(
        self,
        uri: str,
        stage: str,
        files: dict[str, bytes],
        inputs: list[InputRef] | None = None,
        summary: dict[str, object] | None = None,
    ) -> None:
        outputs = []
        for name, content in files.items():
            path = self.folder / "file"
            path.write_bytes(content)
            outputs.append(self.store.upload(path, f"{uri}/{name}").model_copy(update={"path": name}))
        manifest = Manifest(
            stage=stage, created_at=datetime.now(UTC), inputs=inputs or [], outputs=outputs, summary=summary or {}
        )
        self.store.publish(uri, manifest)

    def items(self, name: str, right: Callable[[int], bool], *, again: bool = False) -> Path:
        sets = {**self.rows, PAIRED: self.rows["probe"]} if again else self.rows
        found = [item(s, r, right(i)) for s, rows in sets.items() for i, r in enumerate(rows)]
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(found, schema=SCHEMA), path)
        return path

    def parquet(self, rows: list[dict[str, Any]]) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), out)
        return out.getvalue()

    def failed(self) -> list[str]:
        return [f.what for f in verify.findings(verify.Evidence(self.store, self.status)) if not f.ok]


def dump(model: Any) -> bytes:
    return bytes(model.model_dump_json(by_alias=True).encode())


def rendered(row: data.Row) -> dict[str, Any]:
    """A picture that is in no set: the pool's, with one pixel of its ground changed."""
    from PIL import Image

    with Image.open(row.image) as image:
        changed = image.convert("RGB")
    corner = max(((x, y) for x in (0, 63) for y in (0, 63)), key=lambda p: min(changed.getpixel(p)))
    changed.putpixel(corner, (254, 253, 252))
    out = io.BytesIO()
    changed.save(out, "PNG")
    return data.question(row).row() | {"image": {"bytes": out.getvalue(), "path": None}}


def sample(number: int, row: data.Row) -> dict[str, Any]:
    """In turns a drawn picture, one of the pool, and one of the pool in another colour: as its provenance says."""
    shape, color = truth.see(row.image.read_bytes())
    pool = {"source": "pool:s3://bkt/pool", "id": data.pixel_key(row.image)[:32]}
    drawn = {"tool": "render:shapes", "arguments": {"shape": shape, "color": color}}
    recoloured = {"tool": "edit:recolour", "arguments": {"color": color, "shape": shape}}
    calls, origins = (
        ([drawn], [{"source": "render:shapes", "id": f"color-{number}"}]),
        ([], [pool]),
        ([recoloured], [{"source": "edit:recolour", "id": f"{number}"}, pool]),
    )[number % 3]
    provenance = {"tool_calls": [json.dumps(call) for call in calls], "origins": origins}
    return rendered(row) | {"source": origins[0]["source"], "provenance": provenance}


def status(evaluation: list[dict[str, Any]]) -> Status:
    spec = {
        "seed": 0,
        "probe": {"uri": "s3://bkt/data/probe"},
        "generation": {"targetSamples": 14},
        "evaluation": {"benchmarks": [{"name": "test", "uri": "s3://bkt/data/test"}]},
    }
    categories = [
        {"name": q.name, "n": 2, "errors": 0, "accuracy": 0.5, "low": 0, "high": 1, "weight": q.weight, "quota": 2}
        for q in QUOTAS
    ]
    return Status.model_validate(
        {
            "phase": "Succeeded",
            "artifacts": ROOT,
            "resolved": {"round": 0, "modelUri": "s3://bkt/models/base", "spec": spec},
            "stages": [{"name": s, "state": "Done"} for s in BATCH_STAGES],
            "diagnosis": {"overall": {"value": 0.5, "low": 0, "high": 1}, "categories": categories},
            "samples": {"candidates": 14, "kept": 14, "keptByCategory": {q.name: 2 for q in QUOTAS}},
            "evaluation": evaluation,
        }
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def made(whole: Made) -> Any:
    kept, state = dict(whole.store.objects), whole.status
    yield whole
    whole.store.objects, whole.status = kept, state


def edit(made: Made, name: str, change: Callable[[list[dict[str, Any]]], None], schema: pa.Schema) -> None:
    """Change rows of a Parquet file, and its manifest with it: only what the rows say is wrong then."""
    uri = f"{ROOT}/{name}"
    rows = pq.read_table(io.BytesIO(made.store.get(uri))).to_pylist()
    change(rows)
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    path = made.folder / "edited"
    path.write_bytes(out.getvalue())
    stage, _, file = name.partition("/")
    output = made.store.upload(path, uri).model_copy(update={"path": file})
    manifest = made.store.manifest(f"{ROOT}/{stage}")
    assert manifest is not None
    outputs = [output if o.path == file else o for o in manifest.outputs]
    made.store.objects[f"{ROOT}/{stage}/manifest.json"] = dump(manifest.model_copy(update={"outputs": outputs}))


def test_a_whole_iteration_passes_every_check(made: Made) -> None:
    assert made.failed() == []


def test_a_changed_byte_of_an_output_is_found(made: Made) -> None:
    made.store.objects[f"{ROOT}/training/model/config.json"] = b"[]"
    assert made.failed() == [f"{ROOT}/training/model: 1 files, 2 bytes, sha256"]


def test_a_lost_output_is_found(made: Made) -> None:
    del made.store.objects[f"{ROOT}/training/metrics.jsonl"]
    assert made.failed() == [f"{ROOT}/training: 1 files, 3 bytes, sha256"]


def test_an_input_that_was_replaced_after_it_was_read_is_found(made: Made) -> None:
    manifest = json.loads(made.store.get("s3://bkt/models/base/manifest.json"))
    made.store.objects["s3://bkt/models/base/manifest.json"] = json.dumps(manifest | {"seed": 7}).encode()
    assert [what for what in made.failed() if "inputs" in what] == ["8 inputs are what the stages read"]


def test_a_stage_that_did_not_publish_is_found(made: Made) -> None:
    del made.store.objects[f"{ROOT}/training/manifest.json"]
    assert "every stage is done and has published" in made.failed()


def test_a_table_in_the_status_that_the_items_do_not_bear_out_is_found(made: Made) -> None:
    first = made.status.evaluation[0]
    category = first.categories[0].model_copy(update={"after": 1.0})
    better = first.model_copy(update={"categories": [category, *first.categories[1:]]})
    made.status = made.status.model_copy(update={"evaluation": [better, *made.status.evaluation[1:]]})
    assert made.failed() == ["status: test, probe equals items.parquet"]


def test_a_wrong_grade_is_found(made: Made) -> None:
    edit(made, "evaluation/items.parquet", lambda rows: rows[0].update(response="purple", correct=True), SCHEMA)
    assert "28 + 42 items are graded right" in made.failed()


def test_quotas_that_do_not_sum_to_the_target_are_found(made: Made) -> None:
    uri = f"{ROOT}/diagnosis/mixture.json"
    quotas = json.loads(made.store.get(uri))
    quotas[0]["quota"] = 3
    made.store.objects[uri] = json.dumps(quotas).encode()
    assert "quotas of 7 categories sum to 14" in made.failed()


def test_a_sample_with_a_wrong_answer_is_found(made: Made) -> None:
    def wrong(rows: list[dict[str, Any]]) -> None:
        row = next(r for r in rows if r["category"] == "color")
        row["answer"] = "blue" if row["answer"] != "blue" else "red"

    edit(made, "generation/samples/part-00000.parquet", wrong, SAMPLES)
    assert made.failed() == ["14 samples have the right answer", BY_ORIGIN]


def test_a_picture_of_the_pool_that_is_another_one_than_recorded_is_found(made: Made) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        of_pool = [r for r in rows if r["source"].startswith("pool:")]
        looks = {row["id"]: truth.see(row["image"]["bytes"]) for row in of_pool}
        first = of_pool[0]
        other = next(row for row in of_pool if set(looks[row["id"]]).isdisjoint(looks[first["id"]]))
        first["provenance"]["origins"], other["provenance"]["origins"] = (
            other["provenance"]["origins"],
            first["provenance"]["origins"],
        )

    edit(made, "generation/samples/part-00000.parquet", swap, SAMPLES)
    assert made.failed() == [BY_ORIGIN]


def test_an_edit_that_did_something_else_than_was_recorded_is_found(made: Made) -> None:
    def otherwise(rows: list[dict[str, Any]]) -> None:
        row = next(r for r in rows if r["source"] == "edit:recolour")
        (call,) = map(json.loads, row["provenance"]["tool_calls"])
        call["arguments"]["color"] = "teal" if call["arguments"]["color"] != "teal" else "red"
        row["provenance"]["tool_calls"] = [json.dumps(call)]

    edit(made, "generation/samples/part-00000.parquet", otherwise, SAMPLES)
    assert made.failed() == [BY_ORIGIN]


def test_a_sample_whose_picture_is_in_the_test_set_is_found(made: Made) -> None:
    picture = made.rows["test"][0]

    def leak(rows: list[dict[str, Any]]) -> None:
        place = next(i for i, r in enumerate(rows) if r["category"] == picture.category)
        rows[place] = sample(0, picture) | {"image": data.question(picture).row()["image"]}

    edit(made, "generation/samples/part-00000.parquet", leak, SAMPLES)
    (failed,) = made.failed()
    assert failed.startswith("test: ")


def test_more_samples_than_the_quota_are_found(made: Made) -> None:
    def more(rows: list[dict[str, Any]]) -> None:
        rows.append(rows[0] | {"id": "another"})

    edit(made, "generation/samples/part-00000.parquet", more, SAMPLES)
    assert made.failed() == ["15 samples are counted right"]
