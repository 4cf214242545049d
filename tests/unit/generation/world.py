"""A published diagnosis, question sets to keep clear of, and models of known skill."""

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.fakes import worlds
from tests.fakes.openai_server import Asked, Script

from dpe_api.artifacts import (
    AnswerType,
    CategoryReport,
    DiagnosisReport,
    GenerationSummary,
    Interval,
    IterationId,
    Quota,
    SetReport,
)
from dpe_api.generation_spec import Generation, SolverFilter, Source, SourceKind
from dpe_api.launch import GenerationLaunch, ServedModel, StoreAddress
from dpe_api.names import Stage
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.questions import Question, facet_pairs
from dpe_jobs.store import Store

DIAGNOSIS = f"{worlds.ROOT}/diagnosis"
OUT = f"{worlds.ROOT}/generation"
QUOTAS = {"color": 4, "color_fine": 12, "shape": 6}
STRONG = {"color"}


def quotas(wanted: Mapping[str, int] = QUOTAS) -> list[Quota]:
    total = sum(wanted.values())
    return [
        Quota(name=name, weight=quota / total, quota=quota, reachable=True, retention=name in STRONG)
        for name, quota in wanted.items()
    ]


def put_diagnosis(store: Store, wanted: Mapping[str, int] = QUOTAS) -> None:
    half = Interval(value=0.5, low=0.4, high=0.6)
    categories = [
        CategoryReport(name=n, n=20, errors=0, correct=10, accuracy=half, rollouts=180, pass_rate=half) for n in wanted
    ]
    probe = SetReport(name="probe", uri=worlds.PROBE_URI, n=60, errors=0, macro=half, categories=categories)
    report = DiagnosisReport(model_uri=worlds.BASE_URI, model_sha256="0", fingerprint="f", sets=[probe])
    store.put(f"{DIAGNOSIS}/report.json", report.model_dump_json(by_alias=True).encode())
    store.put(f"{DIAGNOSIS}/mixture.json", json.dumps([q.wire() for q in quotas(wanted)]).encode())
    rows = [
        {
            "set": "probe",
            "id": f"{name}-{hue}",
            "category": name,
            "question": "what color is the shape?",
            "answer": hue,
            "response": "red",
            "correct": hue == "red",
            "facets": facets(hue),
        }
        for name in wanted
        for hue in ("red", "teal", "brown", "gray", "green")
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        store.upload(path, f"{DIAGNOSIS}/items.parquet")


def facets(hue: str) -> list[dict[str, str]]:
    return facet_pairs({"color": hue})


def reserved_question(number: int) -> Question:
    drawn = Shapes().draw({"color": "red", "shape": "circle"}, random.Random(f"reserved {number}"))
    return Question(f"p-{number}", png(drawn.image), "what shape is present?", "circle", AnswerType.EXACT, "shape")


def fill(store: Store, wanted: Mapping[str, int] = QUOTAS) -> None:
    store.put(f"{worlds.BASE_URI}/model.safetensors", b"base")
    worlds.upload(store, worlds.PROBE_URI, [reserved_question(n) for n in range(5)])
    put_diagnosis(store, wanted)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def truth(asked: Asked) -> str:
    with Image.open(io.BytesIO(asked.image)) as image:
        return Shapes().answer(image, asked.question)


def solves(share: float) -> Script:
    """Right with this chance, by the request's seed alone; answers as a served model does, with a space in front."""

    def script(asked: Asked) -> list[str]:
        rng = random.Random(asked.body["seed"])
        ease = rng.gauss(share, 0.2)
        return [f" {truth(asked)}" if rng.random() < ease else " purple" for _ in range(asked.n)]

    return script


def launch(url: str, *, attempt: int = 1, **changes: Any) -> GenerationLaunch:
    generation = {
        "target_samples": 22,
        "max_candidates": 220,
        "sources": [Source(kind=SourceKind.RENDER, program="shapes")],
        "filter": SolverFilter(),
        **changes.pop("generation", {}),
    }
    return GenerationLaunch.model_validate(
        {
            "iteration": IterationId(namespace="team", name="shapes-1", uid="0a1b2c3d-0000"),
            "attempt": attempt,
            "seed": 7,
            "store": StoreAddress(endpoint="http://store:9000"),
            "stage": Stage.GENERATION,
            "output": OUT,
            "model": ServedModel(url=url, uri=worlds.BASE_URI),
            "diagnosis_artifact": DIAGNOSIS,
            "generation": Generation.model_validate(generation),
            "max_tokens": 4,
            "concurrency": 4,
            "max_error_rate": 0.05,
            "probe": worlds.PROBE_URI,
            "context_tokens": 1024,
            "answer_tokens": 4,
            "decontaminate": [worlds.PROBE_URI],
            **changes,
        }
    )


def summary(store: Store) -> GenerationSummary:
    manifest = store.manifest(OUT)
    assert manifest is not None
    return GenerationSummary.model_validate(manifest.summary)


def table(store: Store, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(store.get(f"{OUT}/{name}"))).to_pylist()
    return rows


def samples(store: Store) -> list[dict[str, Any]]:
    manifest = store.manifest(OUT)
    assert manifest is not None
    return [row for o in manifest.outputs if o.path.startswith("samples/") for row in table(store, o.path)]
