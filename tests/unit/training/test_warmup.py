"""The warm-up's plumbing: what it learns from and when, its settings, its place in the store, its figures."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import IterationId, Manifest, WarmupSummary
from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import Stage
from dpe_api.training_spec import RolloutEngine, Training, Warmup
from dpe_jobs.generation.samples import SAMPLE_SCHEMA
from dpe_jobs.runtime import BadConfig
from dpe_jobs.store import join
from dpe_jobs.training import weights
from dpe_jobs.training.launcher import torchrun_arguments
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.settings import sft_arguments, warmup_batch_of_rank
from dpe_jobs.training.warmup import run
from dpe_jobs.training.warmup.lessons import Lessons, lesson_order, read_lessons, retention_in_batch
from dpe_jobs.training.warmup.metrics import METRICS, WarmupStep, append, read, summarise
from dpe_jobs.training.warmup.sft import refuse_lost

SAMPLES = "s3://dpe/generation"


def training(**fields: object) -> Training:
    small = {"nodes": 1, "gpus_per_node": 0, "rollout_engine": RolloutEngine.TRANSFORMERS, "precision": "fp32"}
    return Training.model_validate({**small, "warmup": {}, **fields})


def launch(attempt: int = 0, **fields: object) -> TrainingLaunch:
    return TrainingLaunch(
        stage=Stage.TRAINING,
        iteration=IterationId(namespace="dpe", name="one", uid="0" * 32),
        attempt=attempt,
        seed=3,
        store=StoreAddress(endpoint="http://127.0.0.1:1"),
        output="s3://dpe/training",
        model_uri="s3://dpe/base",
        samples_artifact=SAMPLES,
        training=training(**fields),
        rendezvous_host="127.0.0.1",
    )


def row(name: str, category: str, *, retention: bool = False, question: str = "which?") -> dict[str, object]:
    return {
        "id": name,
        "image": {"bytes": b"", "path": None},
        "question": question,
        "answer": "no",
        "answer_type": "exact",
        "category": category,
        "retention": retention,
        "rollouts": [] if retention else [" yes", " no", "yes"],
    }


def put_samples(store: MemoryStore, folder: Path, files: dict[str, list[dict[str, object]]]) -> None:
    outputs = []
    for name, rows in files.items():
        path = folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA), path)
        outputs.append(store.upload(path, join(SAMPLES, name)).model_copy(update={"path": name}))
    store.publish(SAMPLES, Manifest(stage="generation", created_at=datetime.now(UTC), outputs=outputs))


@pytest.fixture
def lessons(tmp_path: Path) -> Lessons:
    store = MemoryStore()
    hard = [row(f"n-{n}", "negation") for n in range(5)]
    hard.insert(2, row("thinks", "negation", question="which? Think in <think> tags."))
    strong = [row(f"c-{n}", "color", retention=True) for n in range(3)]
    files = {"samples/000.parquet": [row("g", "color")], "warmup/001.parquet": hard, "warmup/002.parquet": strong}
    put_samples(store, tmp_path, files)
    found = read_lessons(store, SAMPLES)
    assert found is not None
    return found


def test_lessons_are_the_warm_ups_samples_and_none_of_grpos(lessons: Lessons) -> None:
    assert [lessons.samples.row(n)["id"] for n in lessons.numbers] == ["n-0", "n-1", "n-2", "n-3", "n-4"]
    assert [lessons.samples.row(n)["id"] for n in lessons.retention] == ["c-0", "c-1", "c-2"]
    assert lessons.categories == {"negation": 5}, "what asks for thoughts has no answer that could be taught"
    assert lessons.space == " ", "as most of the model's own answers begin"


def test_a_generation_without_a_category_out_of_reach_has_no_lessons(tmp_path: Path) -> None:
    store = MemoryStore()
    put_samples(store, tmp_path, {"samples/000.parquet": [row("c-0", "color")]})
    assert read_lessons(store, SAMPLES) is None
    assert run.warm_up(launch(), store, Pod(0, tmp_path, tmp_path)) is None


@given(steps=st.integers(1, 20), size=st.integers(1, 20), share=st.floats(0, 0.99), seed=st.integers(0, 9))
def test_every_batch_has_the_same_number_of_retention_samples_and_all_are_used_alike(
    steps: int, size: int, share: float, seed: int
) -> None:
    found = Lessons(None, [0, 2, 5], [1, 3], {"negation": 3}, "")  # type: ignore[arg-type]
    warmup = Warmup(max_steps=steps, batch_size=size, retention_share=share)
    order = lesson_order(found, warmup, seed)
    assert len(order) == steps * size
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        assert sum(number in found.retention for number in batch) == retention_in_batch(found, warmup)
    used = Counter(order)
    assert set(used) <= {*found.numbers, *found.retention}
    for numbers in (found.numbers, found.retention):
        counts = [used[number] for number in numbers]
        assert max(counts) - min(counts) <= 1
    assert order == lesson_order(found, warmup, seed)


def test_without_retention_samples_a_batch_is_all_new() -> None:
    found = Lessons(None, [0], [], {"negation": 1}, "")  # type: ignore[arg-type]
    assert lesson_order(found, Warmup(batch_size=8, max_steps=2), 0) == [0] * 16


@pytest.mark.parametrize(("world", "micro", "expected"), [(1, None, (48, 1)), (2, None, (24, 1)), (2, 7, (6, 4))])
def test_a_step_of_the_warm_up_has_its_batch_size_over_all_ranks(
    world: int, micro: int | None, expected: tuple[int, int]
) -> None:
    spec = training(warmup={"batch_size": 48}, micro_batch_size=micro)
    assert spec.warmup is not None
    assert warmup_batch_of_rank(spec, spec.warmup, world) == expected


def test_a_batch_that_the_ranks_cannot_share_is_refused_by_its_field() -> None:
    with pytest.raises(BadConfig, match=r"spec\.training\.warmup\.batchSize is 5, not a multiple of the 2 ranks"):
        warmup_batch_of_rank(training(), Warmup(batch_size=5), 2)


def test_the_warm_up_shares_machine_and_optimizer_with_grpo_and_nothing_of_its_algorithm() -> None:
    spec = training(
        deepspeed={"zero_stage": 2}, weight_decay=0.1, trainer={"extra": {"adam_beta2": 0.98, "top_p": 0.9}}
    )
    assert spec.warmup is not None
    found = sft_arguments(spec, spec.warmup, 5, 1, False, Path("out"))
    assert found["deepspeed"]["zero_optimization"]["stage"] == 2
    assert (found["weight_decay"], found["adam_beta2"], found["learning_rate"]) == (0.1, 0.98, 1e-6)
    assert not {"beta", "num_generations", "top_p", "temperature"} & set(found)


@pytest.mark.parametrize(
    "wrong", [{"max_steps": 0}, {"retention_share": 1.0}, {"samples_per_category": 0}, {"epochs": 1}]
)
def test_a_wrong_field_of_the_warm_up_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        training(warmup=wrong)


def test_the_gang_of_the_warm_up_is_told_so(tmp_path: Path) -> None:
    pod = Pod(0, tmp_path, tmp_path)
    assert torchrun_arguments(launch(), pod, 1, warmup=True)[-1] == "--warmup"
    assert "--warmup" not in torchrun_arguments(launch(), pod, 1)


def left_by_the_ranks(pod: Pod) -> None:
    (pod.warmed / "model").mkdir(parents=True)
    (pod.warmed / "model" / "model.safetensors").write_bytes(f"of {pod.work.name}".encode())
    for step in range(1, 11):
        append(pod.warmed / METRICS, WarmupStep(step=step, loss=2.0 / step, seconds=0.5))


def test_a_warm_up_that_is_done_is_never_repeated_and_every_attempt_goes_on_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    store.put("s3://dpe/base/config.json", b"{}")
    put_samples(store, tmp_path, {"samples/0.parquet": [row("c-0", "color")], "warmup/1.parquet": [row("n-0", "neg")]})
    ran = []

    def gang(it: TrainingLaunch, pod: Pod, *_: object, warmup: bool) -> None:
        ran.append((it.attempt, warmup))
        left_by_the_ranks(pod)

    monkeypatch.setattr(run, "run_gang", gang)
    for attempt in (1, 2):
        pod = Pod(0, tmp_path / "base", tmp_path / f"work-{attempt}")
        pod.prepare(launch(attempt))
        warmed = run.warm_up(launch(attempt), store, pod)
        assert warmed is not None
        assert (warmed.pod.model / "model.safetensors").read_bytes() == b"of work-1"
        assert (warmed.summary.steps, warmed.summary.samples) == (10, {"neg": 1})
        assert len(read(warmed.metrics)) == 10
    assert ran == [(1, True)]


def test_a_warm_up_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(join(run.folder(launch(), 0), "model", "model.safetensors"), b"cut short")
    assert run.complete(store, launch()) is None


def test_the_summary_tells_what_was_learned_from_and_how_the_loss_went(lessons: Lessons, tmp_path: Path) -> None:
    path = tmp_path / METRICS
    for step in range(1, 11):
        append(path, WarmupStep(step=step, loss=11 - step, seconds=0.5))
    with path.open("a") as out:
        out.write(json.dumps({"step": 11})[:-3])
    found = summarise(read(path), lessons, Warmup(max_steps=10, batch_size=4))
    assert found == WarmupSummary(
        steps=10, samples={"negation": 5}, retention=3, first_loss=9.5, last_loss=1.5, seconds=5.0
    )


def test_two_adapters_joined_add_up_to_what_they_add_one_after_the_other(tmp_path: Path) -> None:
    generator, found = torch.Generator().manual_seed(0), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tensors = {
            "base_model.model.q_proj.lora_A.weight": torch.randn(2, 5, generator=generator),
            "base_model.model.q_proj.lora_B.weight": torch.randn(3, 2, generator=generator),
        }
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
        found.append(tensors)
    weights.join(tmp_path / "first", tmp_path / "second")
    joined = load_file(tmp_path / "second" / "adapter_model.safetensors")
    a, b = (joined[f"base_model.model.q_proj.lora_{part}.weight"] for part in "AB")
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    scale, layer = config["lora_alpha"] / config["r"], "base_model.model.q_proj.lora"
    expected = sum(2 * tensors[f"{layer}_B.weight"] @ tensors[f"{layer}_A.weight"] for tensors in found)
    torch.testing.assert_close(scale * b @ a, expected)


@pytest.mark.parametrize(("share", "lost"), [(0.02, True), (0.49, True), (0.5, False), (1.0, False)])
def test_a_warmup_that_the_weights_did_not_take_is_no_warmup(share: float, lost: bool) -> None:
    if lost:
        with pytest.raises(BadConfig, match=rf"took only {share:.0%}.*raise spec.training.warmup.learningRate"):
            refuse_lost(share)
    else:
        refuse_lost(share)
