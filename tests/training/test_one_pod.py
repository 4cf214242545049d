"""One pod, one rank: the whole stage against a real object store."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from tests.training.support import BASE, RunningPod, World, free_port, publish_folder, wait_for
from transformers import AutoModelForImageTextToText, AutoProcessor

from dpe_api.artifacts import TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_api.names import MANIFEST, Exit
from dpe_api.training_spec import ModelPart
from dpe_jobs.runtime import Transient
from dpe_jobs.store import join
from dpe_jobs.training import gang
from dpe_jobs.training.checkpoints import complete
from dpe_jobs.training.metrics import last_row
from dpe_jobs.training.parts import part_of
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.uploads import Uploader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def trained(world: World) -> TrainingLaunch:
    """A finished run."""
    launch = world.launch("one")
    (pod,) = world.start(launch)
    assert pod.wait() == 0, pod.output()
    return launch


def test_one_pod_publishes_every_file_that_its_manifests_promise(
    world: World, trained: TrainingLaunch, tmp_path: Path
) -> None:
    manifest = world.store.manifest(trained.output)
    assert manifest is not None
    summary = TrainingSummary.model_validate(manifest.summary)
    assert (summary.steps, summary.resumed_from_step, summary.world_size) == (6, None, 1)
    assert summary.tokens.completion > 0
    for output in manifest.outputs:
        world.store.download(join(trained.output, output.path), tmp_path / output.path, output.sha256)
    model = world.store.manifest(join(trained.output, "model"))
    assert model is not None
    assert model.stage == "model"
    beside = {"model/manifest.json", "metrics.jsonl", "training.html"}
    assert {f"model/{o.path}" for o in model.outputs} | beside == {o.path for o in manifest.outputs}
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (BASE / name).read_bytes()


def test_the_published_model_answers_in_transformers(world: World, trained: TrainingLaunch, tmp_path: Path) -> None:
    world.store.fetch_tree(join(trained.output, "model"), tmp_path)
    model, loading = AutoModelForImageTextToText.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    processor = AutoProcessor.from_pretrained(tmp_path)
    question = [{"type": "image", "image": Image.new("RGB", (64, 64), "red")}, {"type": "text", "text": "what color?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(answer, skip_special_tokens=True).strip()


def test_a_finished_run_is_not_trained_again(world: World, trained: TrainingLaunch) -> None:
    before = world.store.get(join(trained.output, MANIFEST))
    (pod,) = world.start(trained.model_copy(update={"attempt": 1}))
    assert pod.wait() == 0, pod.output()
    assert "published already" in pod.output()
    assert world.store.get(join(trained.output, MANIFEST)) == before


def test_an_attempt_lost_before_its_last_manifest_is_finished_without_training(
    world: World, trained: TrainingLaunch
) -> None:
    before = world.store.manifest(trained.output)
    assert before is not None
    world.store.delete([join(trained.output, MANIFEST)])
    (pod,) = world.start(trained.model_copy(update={"attempt": 2}))
    assert pod.wait() == 0, pod.output()
    after = world.store.manifest(trained.output)
    assert after is not None
    assert after.attempt == 2
    assert (after.outputs, after.summary) == (before.outputs, before.summary)
    assert pod.steps() == 0


def test_sigterm_saves_and_the_next_attempt_goes_on_without_another_warm_up_and_its_death_is_transient(
    world: World,
) -> None:
    warmup = {"max_steps": 40, "batch_size": 4, "learning_rate": 1e-4}
    launch = world.launch("stopped", max_steps=400, checkpoint_every_steps=1000, warmup=warmup)
    (pod,) = world.start(launch)
    wait_for("a step of the warm-up", lambda: "warm-up step 1 of 40" in pod.output())
    stop(pod)
    assert "warm-up step 40 of 40" not in pod.output()
    (pod,) = world.start(launch.model_copy(update={"attempt": 1}))
    wait_for("three steps", lambda: pod.steps() >= 3)
    stop(pod)
    assert pod.output().count("warm-up step") == 40, "cut short, it begins again"
    saved = complete(world.store, launch)[0].step
    assert saved >= 3
    (pod,) = world.start(launch.model_copy(update={"attempt": 2}))
    wait_for("a step after the saved one", lambda: pod.steps() > saved)
    os.kill(pod.rank_pids()[0], signal.SIGKILL)
    assert pod.wait() == Exit.TRANSIENT, pod.output()
    assert pod.reason() == "RankDied"
    assert f"resuming after step {saved}" in pod.output()
    assert "warmed up already" in pod.output()
    assert "warm-up step" not in pod.output()


def stop(pod: RunningPod) -> None:
    """Send SIGTERM, and see the pod leave as it should."""
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait(25) == Exit.STOPPED, pod.output()
    assert pod.reason() == "Stopped"


def test_vllm_without_cuda_is_bad_configuration(world: World) -> None:
    (pod,) = world.start(world.launch("vllm", rollout_engine="vllm"))
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()
    assert pod.reason() == "NoCuda"


def test_samples_that_are_no_parquet_are_bad_data(world: World, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    uri = "s3://dpe/broken"
    publish_folder(world.store, {"samples/part-00000.parquet": tmp_path / "broken.parquet"}, uri, "generation")
    (pod,) = world.start(world.launch("broken").model_copy(update={"samples_artifact": uri}))
    assert pod.wait() == Exit.BAD_DATA, pod.output()
    assert pod.reason() == "UnreadableSamples"


def test_a_generation_that_did_not_finish_is_bad_data_before_anything_starts(world: World) -> None:
    (pod,) = world.start(world.launch("early").model_copy(update={"samples_artifact": "s3://dpe/nowhere"}))
    assert pod.wait() == Exit.BAD_DATA, pod.output()
    assert pod.reason() == "NoSamples"


@pytest.mark.parametrize(
    "fields",
    [
        {
            "precision": "bf16",
            "zero": 1,
            "warmup_steps": 2,
            "beta": 0.05,
            "micro_batch_size": 4,
            "gradient_checkpointing": True,
        },
        {
            "deepspeed": {"zero_stage": 3, "offload_optimizer": True, "offload_param": True},
            "warmup": {"max_steps": 2, "batch_size": 4},
            "num_iterations": 2,
            "loss_type": "dr_grpo",
            "scale_rewards": "none",
            "epsilon_high": 0.28,
        },
        {"precision": "bf16", "zero": 2, "micro_batch_size": 4},
        {
            "precision": "bf16",
            "deepspeed": {"zero_stage": 3, "offload_optimizer": True},
            "micro_batch_size": 4,
            "lora": {"r": 4},
        },
    ],
    ids=[
        "bf16-zero-1-kl-accumulation-checkpointing",
        "offload-reuse-warmup",
        "bf16-zero-2-accumulation",
        "bf16-zero-3-offload-lora-accumulation",
    ],
)
def test_the_other_settings_train_too(world: World, fields: dict[str, object], request: pytest.FixtureRequest) -> None:
    launch = world.launch(f"set-{request.node.callspec.id}", max_steps=2, **fields)  # type: ignore[arg-type]
    (pod,) = world.start(launch)
    assert pod.wait() == 0, pod.output()
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    summary = TrainingSummary.model_validate(manifest.summary)
    assert summary.steps == 2
    told = "warmup.jsonl" in {output.path for output in manifest.outputs}
    assert (summary.warmup is not None) == ("warmup" in fields) == told


def test_a_frozen_part_stays_as_it_was_and_the_others_learn(world: World, tmp_path: Path) -> None:
    launch = world.launch(
        "frozen",
        max_steps=2,
        freeze=["vision"],
        precision="bf16",
        rewards={"answer": 0.8, "format": 0.1, "length_penalty": 0.1, "length_penalty_tokens": 3},
        trainer={"extra": {"top_p": 0.9, "adam_beta2": 0.98}},
        lr_scheduler_type="cosine_with_min_lr",
    )
    (pod,) = world.start(launch)
    assert pod.wait() == 0, pod.output()
    world.store.download(join(launch.output, "model", "model.safetensors"), tmp_path / "model.safetensors")
    before, after = load_file(BASE / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor.float(), after[name].float())}
    assert {part_of(name) for name in changed} == set(ModelPart) - {ModelPart.VISION}


@pytest.mark.parametrize("zero", [0, 3])
def test_adapters_are_published_beside_a_model_that_has_them_merged(world: World, tmp_path: Path, zero: int) -> None:
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    warmup = {"max_steps": 2, "batch_size": 4, "learning_rate": 1e-2} if zero else None
    launch = world.launch(
        f"lora-{zero}", max_steps=2, zero=zero, learning_rate=1e-2, lora=lora, freeze=["vision"], warmup=warmup
    )
    (pod,) = world.start(launch)
    assert pod.wait() == 0, pod.output()
    for part in ("model", "adapter"):
        (tmp_path / part).mkdir()
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    for output in manifest.outputs:
        world.store.download(join(launch.output, output.path), tmp_path / output.path, output.sha256)
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (launch.model_uri, 8 if zero else 4), (
        "the warm-up's and that of GRPO"
    )

    base = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32).state_dict()
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) and "language_model" in name for name in changed)
    share = TrainingSummary.model_validate(manifest.summary).merged_share
    assert share == pytest.approx(1, abs=0.05)
    for name, tensor in merged.items():
        # the base is stored in half precision, and so is the merged model
        torch.testing.assert_close(tensor, adapted[name], atol=2e-3, rtol=1e-3)


def test_a_wrong_argument_for_trl_is_refused_before_a_rank_starts(world: World) -> None:
    (pod,) = world.start(world.launch("extra", trainer={"extra": {"adam_beta3": 0.9}}))
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()
    assert pod.reason() == "TrainerArgument"
    assert "did you mean adam_beta" in pod.output()


def test_a_wrong_value_for_trl_is_refused(world: World) -> None:
    (pod,) = world.start(world.launch("value", trainer={"extra": {"adam_beta2": "high"}}))
    assert pod.wait() == Exit.BAD_CONFIG, pod.output()


def test_ranks_that_hang_are_ended_with_their_stacks(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no checkpoint is due after the first step: while one is written ranks may be silent for longer
    launch = world.launch("hanging", max_steps=400, checkpoint_every_steps=400)
    pod = Pod(0, BASE, tmp_path, free_port())
    pod.prepare(launch)
    monkeypatch.setattr(gang, "STEP_WITHIN_S", 3.0)
    seen: list[int] = []
    shown = io.StringIO()  # pytest's own capture loses what is written while it is read
    monkeypatch.setattr(sys, "stderr", shown)

    def hang_after_two_steps() -> None:
        row = last_row(pod.metrics_file)
        if row is not None and row.step >= 2 and not seen:
            (pid,) = pod.pids().values()
            seen.append(pid)
            os.kill(pid, signal.SIGUSR1)
            wait_for("stacks", lambda: "most recent call first" in shown.getvalue(), 10)
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(Transient, match="no step for") as caught:
        gang.run_gang(launch, pod, Uploader(launch, pod, world.store), hang_after_two_steps)
    assert caught.value.reason == "NoStep"
    wait_for("the rank is gone", lambda: not Path(f"/proc/{seen[0]}").exists(), 10)
