"""Small question sets and launches for the tests of the stages that ask a model."""

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from dpe_api.artifacts import AnswerType, InputRef, IterationId, Manifest, OutputFile
from dpe_api.diagnosis_spec import Diagnosis, Mixture, Probe
from dpe_api.evaluation_spec import Benchmark, Evaluation, Gate
from dpe_api.generation_spec import Generation
from dpe_api.launch import DiagnosisLaunch, EvaluationLaunch, ServedModel, StoreAddress
from dpe_api.names import Stage
from dpe_jobs.questions import Question, write_questions
from dpe_jobs.store import Store
from tests.fakes.openai_server import Asked, Script

ROOT = "s3://dpe/team/shapes-1-0a1b2c3d"
PROBE_URI, TEST_URI = "s3://dpe/data/probe", "s3://dpe/data/test"
BASE_URI, CANDIDATE_URI = "s3://dpe/models/base", f"{ROOT}/training/model"
COLORS = ("red", "green", "blue")
CATEGORIES = ("color", "hue", "negation")


def picture(color: str, size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def question(number: int, category: str) -> Question:
    color = COLORS[number % len(COLORS)]
    return Question(
        id=f"{category}-{number}",
        image=picture(color, 8 + number % 5),
        question=f"{category} {number}: what color is it?",
        answer=color,
        answer_type=AnswerType.EXACT,
        category=category,
        facets={"color": color},
    )


def questions(per_category: int) -> list[Question]:
    return [question(n, c) for n in range(per_category) for c in CATEGORIES]


def upload(store: Store, uri: str, rows: list[Question]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "part-0.parquet"
        write_questions(rows, path)
        store.upload(path, f"{uri}/part-0.parquet")


def fill(store: Store, per_category: int = 10) -> None:
    """A probe, a benchmark, and the weights of two models."""
    upload(store, PROBE_URI, questions(per_category))
    upload(store, TEST_URI, questions(per_category))
    store.put(f"{BASE_URI}/model.safetensors", b"base")
    store.put(f"{CANDIDATE_URI}/model.safetensors", b"candidate")


def train(store: Store, model_uri: str, base_uri: str, samples_uri: str, samples: list[Question]) -> None:
    """Publish samples, and a model that was trained on them."""
    upload(store, f"{samples_uri}/samples", samples)
    data = store.get(f"{samples_uri}/samples/part-0.parquet")
    digest = hashlib.sha256(data).hexdigest()
    file = OutputFile(path="samples/part-0.parquet", size=len(data), sha256=digest, media_type="")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store.publish(samples_uri, Manifest(stage="generation", created_at=now, outputs=[file]))
    inputs = [InputRef(uri=base_uri, sha256=""), InputRef(uri=samples_uri, sha256="")]
    store.publish(model_uri, Manifest(stage="model", created_at=now, inputs=inputs))


def truth(asked: Asked) -> str:
    number = asked.question.split(":")[0].split()[1]
    return COLORS[int(number) % len(COLORS)]


def knows(*categories: str) -> Script:
    """A model that is right in these categories and wrong in the others, greedy and sampled alike."""

    def script(asked: Asked) -> list[str]:
        right = asked.question.split()[0] in categories
        return [f" {truth(asked).upper()}." if right else "purple"] * asked.n

    return script


def _common(stage: Stage, attempt: int) -> dict[str, object]:
    return {
        "iteration": IterationId(namespace="team", name="shapes-1", uid="0a1b2c3d-0000"),
        "attempt": attempt,
        "seed": 7,
        "store": StoreAddress(endpoint="http://store:9000"),
        "stage": stage,
        "output": f"{ROOT}/{stage}",
        "probe": Probe(uri=PROBE_URI, sample_size=15),
        "benchmarks": [Benchmark(name="test", uri=TEST_URI)],
    }


def settings(**changes: object) -> Diagnosis:
    return Diagnosis(rollouts_per_item=3, max_tokens=4, concurrency=4, **changes)


def diagnosis(url: str, *, attempt: int = 1, uri: str = BASE_URI, **changes: object) -> DiagnosisLaunch:
    return DiagnosisLaunch.model_validate(
        {
            **_common(Stage.DIAGNOSIS, attempt),
            "model": ServedModel(url=url, uri=uri),
            "diagnosis": settings(),
            "mixture": Mixture(),
            "generation": Generation(target_samples=100),
            **changes,
        }
    )


def evaluation(url: str, *, attempt: int = 1, **changes: object) -> EvaluationLaunch:
    benchmarks = [Benchmark(name="test", uri=TEST_URI)]
    return EvaluationLaunch.model_validate(
        {
            **_common(Stage.EVALUATION, attempt),
            "model": ServedModel(url=url, uri=CANDIDATE_URI),
            "diagnosis": settings(),
            "diagnosis_artifact": f"{ROOT}/diagnosis",
            "evaluation": Evaluation(benchmarks=benchmarks, gate=Gate()),
            **changes,
        }
    )
