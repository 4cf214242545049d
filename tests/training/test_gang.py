"""Two pods, one rank each, over gloo: DeepSpeed's stages, lost pods, and a resume that equals an undisturbed run."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.training.support import RunningPod, World, wait_for

from dpe_api.artifacts import TrainingSummary
from dpe_api.launch import TrainingLaunch
from dpe_api.names import Exit
from dpe_jobs.store import join
from dpe_jobs.training.checkpoints import complete, folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

STEPS = 8
RESHAPED = ("loss", "kl", "entropy", "gradNorm", "totalTokens")
DECISIVE = ("loss", "reward", "entropy", "gradNorm", "completionLength", "totalTokens")


def rows(world: World, launch: TrainingLaunch) -> list[dict[str, float]]:
    """The published metrics."""
    return [json.loads(line) for line in world.store.get(join(launch.output, "metrics.jsonl")).splitlines()]


def summary(world: World, launch: TrainingLaunch) -> TrainingSummary:
    """The published summary."""
    manifest = world.store.manifest(launch.output)
    assert manifest is not None
    return TrainingSummary.model_validate(manifest.summary)


def assert_same_run(world: World, one: TrainingLaunch, other: TrainingLaunch) -> None:
    """Equal metrics at every step, to 1e-4."""
    first, second = rows(world, one), rows(world, other)
    assert [r["step"] for r in first] == [r["step"] for r in second] == list(range(1, STEPS + 1))
    for a, b in zip(first, second, strict=True):
        assert {n: a[n] for n in DECISIVE} == pytest.approx({n: b[n] for n in DECISIVE}, abs=1e-4), f"step {a['step']}"


def start_from(world: World, origin: TrainingLaunch, name: str, nodes: int) -> tuple[TrainingLaunch, list[RunningPod]]:
    """Two more steps on the newest checkpoint of another run, with completions that no random numbers decide.

    Greedy completions of a group are equal and give no advantage: what is left to learn from is the distance to the
    base model, which the first steps have made.
    """
    launch = world.launch(
        name,
        nodes=nodes,
        zero=origin.training.deepspeed.zero_stage,
        max_steps=STEPS + 2,
        beta=1.0,
        trainer={"extra": {"top_k": 1}},
    )
    newest = folder(origin, complete(world.store, origin)[0])
    for found in world.store.list(newest):
        world.store.put(found.uri.replace(origin.output, launch.output), world.store.get(found.uri))
    return launch, world.start(launch)


def outputs(pods: list[RunningPod]) -> str:
    """What the pods printed, for a failing assertion."""
    return "\n".join(f"--- pod {i}\n{pod.output()}" for i, pod in enumerate(pods))


def assert_one_rank_goes_on_as_two(world: World, origin: TrainingLaunch) -> None:
    """Both go on from the end of a run of two ranks."""
    same, alone = start_from(world, origin, "same", 2), start_from(world, origin, "alone", 1)
    for _, pods in (same, alone):
        assert [p.wait() for p in pods] == [0] * len(pods), outputs(pods)
    assert "converting it" in alone[1][0].output()
    assert (summary(world, alone[0]).world_size, summary(world, alone[0]).resumed_from_step) == (1, STEPS)
    for ours, other in zip(rows(world, alone[0])[STEPS:], rows(world, same[0])[STEPS:], strict=True):
        assert {n: ours[n] for n in RESHAPED} == pytest.approx({n: other[n] for n in RESHAPED}, rel=1e-3), ours["step"]


def kill_a_rank(pods: list[RunningPod]) -> None:
    """Of the second pod; the first notices."""
    os.kill(pods[1].rank_pids()[0], signal.SIGKILL)
    assert [p.wait() for p in pods] == [Exit.PEER_GONE, Exit.TRANSIENT], outputs(pods)
    assert [p.reason() for p in pods] == ["PeerGone", "RankDied"]


def kill_a_pod(pods: list[RunningPod]) -> None:
    """The first, with the rendezvous; the second notices."""
    ranks = pods[0].rank_pids()
    pods[0].process.kill()
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    assert pods[1].wait() == Exit.PEER_GONE, outputs(pods)


@pytest.mark.parametrize(("zero", "lose"), [(2, kill_a_rank), (3, kill_a_pod)])
def test_a_loss_ends_the_peer_with_76_and_the_resumed_run_equals_the_undisturbed_one(
    world: World, tmp_path: Path, zero: int, lose: Callable[[list[RunningPod]], None]
) -> None:
    undisturbed = world.launch(f"calm-{zero}", nodes=2, zero=zero, max_steps=STEPS)
    pods = world.start(undisturbed)
    assert [p.wait() for p in pods] == [0, 0], outputs(pods)
    assert summary(world, undisturbed).world_size == 2

    name = f"lost-{zero}"
    lost = world.launch(name, nodes=2, zero=zero, max_steps=STEPS)
    pods = world.start(lost)
    wait_for("a checkpoint, and a step after it", lambda: pods[1].steps() >= 5 and bool(complete(world.store, lost)))
    lose(pods)
    saved = complete(world.store, lost)[0].step

    resumed = world.launch(name, attempt=1, nodes=2, zero=zero, max_steps=STEPS)
    pods = world.start(resumed)
    assert [p.wait() for p in pods] == [0, 0], outputs(pods)
    assert summary(world, resumed).resumed_from_step == saved < STEPS
    assert_same_run(world, undisturbed, resumed)
    assert [p.step for p in complete(world.store, resumed)][:2] == [8, 6]

    if zero == 3:  # of ZeRO-2 the conversion is the same, and the shards are simpler
        assert_one_rank_goes_on_as_two(world, resumed)

    world.store.download(join(resumed.output, "model", "model.safetensors"), tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    (embedding,) = [t for n, t in tensors.items() if n.endswith("embed_tokens.weight")]
    assert (tensors["lm_head.weight"] == embedding).all()


def test_a_stopped_pod_takes_the_gang_to_a_checkpoint_and_its_peer_leaves_with_76(world: World) -> None:
    warmup = {"max_steps": 2, "batch_size": 4}
    launch = world.launch("evicted", nodes=2, zero=2, max_steps=400, checkpoint_every_steps=1000, warmup=warmup)
    pods = world.start(launch)
    wait_for("three steps after the warm-up", lambda: pods[0].steps() >= 3)
    assert [pod.output().count("warm-up step") for pod in pods] == [2, 0], "its first rank tells of it"
    pods[1].process.send_signal(signal.SIGTERM)
    assert [p.wait() for p in pods] == [Exit.PEER_GONE, Exit.STOPPED], outputs(pods)
    assert [p.reason() for p in pods] == ["PeerStopped", "Stopped"]
    assert complete(world.store, launch)[0].step == pods[0].steps() == pods[1].steps()
