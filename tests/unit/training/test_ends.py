import io
import os
import time
from pathlib import Path

import pytest
from torch.distributed import run

from dpe_api.artifacts import IterationId
from dpe_api.launch import StoreAddress, TrainingLaunch
from dpe_api.names import Exit, Stage
from dpe_api.training_spec import Training
from dpe_jobs.runtime import BadConfig, classify
from dpe_jobs.training.gang import SAVE_WITHIN_S, START_WITHIN_S, STEP_WITHIN_S, StepDeadline, Tail, why
from dpe_jobs.training.launcher import torchrun_arguments
from dpe_jobs.training.metrics import StepMetrics, append_row
from dpe_jobs.training.peers import peer_is_gone
from dpe_jobs.training.pod import Pod
from dpe_jobs.training.rank import arguments_refused, prompts_have_room
from dpe_jobs.training.settings import COLLECTIVE_TIMEOUT_S

GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection closed by peer [10.0.0.7]:39641. "
    "This is most likely a network failure or the remote process has crashed."
)


class DistBackendError(RuntimeError):
    """As torch names NCCL's failures."""


def launch(nodes: int = 2) -> TrainingLaunch:
    return TrainingLaunch(
        stage=Stage.TRAINING,
        iteration=IterationId(namespace="dpe", name="shapes-1", uid="0" * 32),
        attempt=0,
        seed=0,
        store=StoreAddress(endpoint="http://store:9000"),
        output="s3://dpe/x/training",
        model_uri="s3://dpe/models/base",
        samples_artifact="s3://dpe/x/generation",
        training=Training(nodes=nodes, gpus_per_node=0),
        rendezvous_host="shapes-1-training-0-0.shapes-1-training-0",
    )


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    it = Pod(0, tmp_path / "model", tmp_path / "work")
    it.prepare(launch())
    return it


def outcome(pod: Pod, output: str = "", nodes: int = 2) -> tuple[Exit, str]:
    return classify(why(launch(nodes), pod, output, output))[:2]


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (RuntimeError(GLOO), True),
        (
            DistBackendError("NCCL error in: ProcessGroupNCCL.cpp: remote process exited"),
            True,
        ),
        (
            DistBackendError(
                "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error, NCCL version 2.27\nncclSystemError: "
                "A system call failed.\nLast error:\nsocketPollConnect: connect to 10.0.0.7 returned Connection refused"
            ),
            True,
        ),
        (
            DistBackendError(
                "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error, NCCL version 2.27\nLast error:\n"
                "Cuda failure 2 'out of memory'"
            ),
            False,
        ),
        (DistBackendError("NCCL error: invalid usage: Duplicate GPU detected : rank 1 and rank 0"), False),
        (DistBackendError("Bootstrap : no socket interface found"), False),
        (RuntimeError("CUDA out of memory"), False),
        (ConnectionResetError("Connection reset by peer"), False),  # the object store's connection, not a peer's
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_only_the_distributed_runtime_tells_of_lost_peers(error: Exception, gone: bool) -> None:
    assert peer_is_gone(error) is gone


def test_an_error_caused_by_a_lost_peer_is_one() -> None:
    error = KeyError("while saving")
    error.__cause__ = RuntimeError(GLOO)
    assert peer_is_gone(error)


def test_a_ranks_own_words_decide(pod: Pod) -> None:
    pod.started(0)
    pod.ended(0, Exit.BAD_DATA, "UnreadableImage", "sample s-3: its image does not decode")
    assert outcome(pod, GLOO) == (Exit.BAD_DATA, "UnreadableImage")


def test_a_lost_peer_is_a_consequence(pod: Pod) -> None:
    pod.started(1)
    pod.ended(1, Exit.PEER_GONE, "PeerGone", "a rank of the gang vanished")
    assert outcome(pod) == (Exit.PEER_GONE, "PeerGone")


def test_a_rank_killed_beside_one_that_lost_its_peer_is_the_cause(pod: Pod) -> None:
    pod.started(0)
    pod.started(1)
    pod.ended(0, Exit.PEER_GONE, "PeerGone", "a rank of the gang vanished")
    assert outcome(pod) == (Exit.TRANSIENT, "RankDied")


def test_a_rank_that_nccl_aborted_because_of_a_peer_is_a_consequence(pod: Pod) -> None:
    pod.started(0)
    assert outcome(pod, "[Rank 0] Watchdog caught collective operation timeout") == (Exit.PEER_GONE, "PeerGone")


def epilogue(first: int, code: int, ranks: int = 8) -> str:
    """What torchrun says of its ranks when one has failed."""

    def entry(number: int, rank: int, code: int, said: str) -> str:
        return (
            f"[{number}]:\n  time      : 2026-01-01_12:00:00\n  host      : node-0\n  rank      : {rank} (local_rank: "
            f"{rank})\n  exitcode  : {code} (pid: {100 + rank})\n  error_file: <N/A>\n  traceback : {said}"
        )

    others = [entry(n, n, -6, "Signal 6 (SIGABRT) received") for n in range(ranks) if n != first]
    root = entry(0, first, code, f"Signal {-code} received")
    first_words = ["dpe_jobs.training.rank FAILED", "Failures:"]
    return "\n".join([*first_words, *others, "Root Cause (first observed failure):", root, "=" * 60])


ABORTED = "[rank3]:[E1128 ProcessGroupNCCL.cpp:2057] remote process exited or there was a network error"


def told(*lines: str) -> str:
    tail = Tail(io.StringIO("\n".join(lines) + "\n"))
    tail.join(5)
    return tail.telling()


def test_what_nccl_said_of_a_peer_is_not_lost_behind_torchruns_words_about_eight_ranks(pod: Pod) -> None:
    for rank in range(8):
        pod.started(rank)
    said = told(ABORTED, *epilogue(3, -6).splitlines())
    assert outcome(pod, said) == (Exit.PEER_GONE, "PeerGone")
    assert outcome(pod, told(*epilogue(3, -6).splitlines())) == (Exit.TRANSIENT, "RankDied")


def test_a_store_that_once_refused_a_connection_is_no_lost_peer(pod: Pod) -> None:
    pod.started(0)
    logged = '{"level": "WARNING", "message": "object store: Connection refused; attempt 1"}'
    said = told(logged, *epilogue(0, -6).splitlines())
    assert outcome(pod, said) == (Exit.TRANSIENT, "RankDied")


def test_a_rank_that_was_killed_is_the_cause_though_its_neighbours_lost_a_peer(pod: Pod) -> None:
    for rank in range(8):
        pod.started(rank)
    assert outcome(pod, told(ABORTED, *epilogue(3, -9).splitlines())) == (Exit.TRANSIENT, "RankDied")


def test_a_gang_that_never_met_is_a_consequence_and_a_lone_pod_is_not(pod: Pod) -> None:
    assert outcome(pod, "rendezvous") == (Exit.PEER_GONE, "PeerGone")
    assert outcome(pod, "no such module", nodes=1) == (Exit.TRANSIENT, "LaunchFailed")


def test_what_torchrun_stopped_after_a_failure_does_not_hide_the_failure(pod: Pod) -> None:
    pod.started(0)
    pod.started(1)
    pod.ended(0, Exit.STOPPED, "Stopped", "stopped by SIGTERM")
    pod.ended(1, Exit.TRANSIENT, "LossNotFinite", "loss is nan at step 4")
    assert outcome(pod) == (Exit.TRANSIENT, "LossNotFinite")


@pytest.mark.parametrize("error", [ValueError("VESPO"), TypeError("no processor"), NotImplementedError("with PEFT")])
def test_arguments_that_trl_refuses_are_not_tried_again(error: Exception) -> None:
    with pytest.raises(BadConfig, match=str(error)) as caught, arguments_refused():
        raise error
    assert classify(caught.value)[:2] == (Exit.BAD_CONFIG, "TrainerArgument")


def test_a_value_error_of_vllm_is_no_argument_that_trl_refuses():
    """It raises one also where the memory of a GPU that somebody has just left is not free yet."""
    code = compile("raise ValueError('Free memory on device is less than desired')", "worker.py", "exec")
    with pytest.raises(ValueError, match="Free memory") as caught, arguments_refused():
        exec(code, {"__name__": "vllm.v1.worker.gpu_worker"})
    assert not isinstance(caught.value, BadConfig)


def test_what_else_fails_while_the_trainer_is_made_is_tried_again() -> None:
    with pytest.raises(OSError, match="disk") as caught, arguments_refused():
        raise OSError("disk")
    assert classify(caught.value)[0] is Exit.TRANSIENT


def test_the_deadline_grows_with_the_slowest_step(pod: Pod) -> None:
    deadline = StepDeadline(pod)
    before = deadline.allowed_s()
    common = {"loss": 0.0, "reward": 0.0, "completion_length": 1.0, "completion_tokens": 1, "total_tokens": 1}
    append_row(pod.metrics_file, StepMetrics.model_validate({"step": 1, "seconds": 2.0, **common}))
    assert deadline.allowed_s() == 300
    append_row(pod.metrics_file, StepMetrics.model_validate({"step": 2, "seconds": 90.0, **common}))
    assert deadline.allowed_s() == 900
    append_row(pod.metrics_file, StepMetrics.model_validate({"step": 3, "seconds": 2.0, **common}))
    assert deadline.allowed_s() == 900
    assert before == 1800
    assert not deadline.passed()
    assert StepDeadline(pod).allowed_s() == 1800, "a resumed run has to start first"


def stepped(pod: Pod) -> None:
    common = {"loss": 0.0, "reward": 0.0, "completion_length": 1.0, "completion_tokens": 1, "total_tokens": 1}
    append_row(pod.metrics_file, StepMetrics.model_validate({"step": 1, "seconds": 2.0, **common}))


def test_ranks_that_save_may_take_as_long_as_they_wait_for_each_other_in_a_lone_pod_too(pod: Pod) -> None:
    deadline = StepDeadline(pod)
    stepped(pod)
    assert deadline.allowed_s() == STEP_WITHIN_S
    pod.begin_save()
    assert deadline.allowed_s() == SAVE_WITHIN_S == COLLECTIVE_TIMEOUT_S
    pod.save(1)
    assert deadline.allowed_s() == STEP_WITHIN_S


@pytest.mark.parametrize(("saving", "ended"), [(False, True), (True, False)])
def test_silence_ends_a_plain_step_and_not_the_writing_of_a_checkpoint(pod: Pod, saving: bool, ended: bool) -> None:
    deadline = StepDeadline(pod)
    stepped(pod)
    if saving:
        pod.begin_save()
    since = time.time() - STEP_WITHIN_S - 10
    os.utime(pod.work / "ranks" / "heartbeat", (since, since))
    assert deadline.passed() is ended


def test_several_nodes_need_the_number_that_an_indexed_job_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    assert Pod.here(launch(nodes=1)).index == 0
    with pytest.raises(BadConfig, match="JOB_COMPLETION_INDEX"):
        Pod.here(launch(nodes=2))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert Pod.here(launch(nodes=2)).index == 1


@pytest.mark.parametrize(
    "words",
    [
        "The decoder prompt (length 9201) is longer than the maximum model length of 8704. Make sure that",
        "The decoder prompt (length 8704) plus the number of requested output tokens (at least 1) is longer than the "
        "maximum model length of 8704. Make sure that",
        "This model's maximum context length is 8704 tokens. However, your prompt contains at least 9201 input tokens",
    ],
)
def test_a_prompt_without_room_in_vllm_is_bad_configuration_by_its_fields(words: str) -> None:
    with (
        pytest.raises(BadConfig, match=r"training\.maxPromptLength.*diagnosis\.maxPixels.*8704") as caught,
        prompts_have_room(),
    ):
        raise ValueError(words)
    assert classify(caught.value)[:2] == (Exit.BAD_CONFIG, "PromptTooLong")


def test_other_errors_of_a_step_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match=r"^no such thing$"), prompts_have_room():
        raise ValueError("no such thing")


def test_the_gang_waits_for_its_last_pod_nearly_as_long_as_a_pod_for_its_gang(tmp_path: Path) -> None:
    pod = Pod(1, tmp_path, tmp_path)
    found, _, _ = run.config_from_args(run.parse_args(torchrun_arguments(launch(), pod, 1)))
    assert (found.rdzv_backend, found.rdzv_configs["rank"]) == ("static", 1)
    assert START_WITHIN_S * 0.9 < int(found.rdzv_configs["timeout"]) < START_WITHIN_S, "torchrun says who did not come"
