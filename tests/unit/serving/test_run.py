import os
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import IterationId
from dpe_api.launch import ServingLaunch, StoreAddress
from dpe_api.names import Exit, Stage
from dpe_jobs import runtime
from dpe_jobs.serving import run as module
from dpe_jobs.serving import server as child
from dpe_jobs.serving.run import serve_readiness
from dpe_jobs.serving.server import Server, command, environment, explain, warm_up
from dpe_jobs.store import Store

FAKE = str(Path(__file__).with_name("fake_vllm.py"))
LAUNCH = ServingLaunch(
    iteration=IterationId(namespace="team", name="shapes-1", uid="0a1b2c3d"),
    attempt=1,
    seed=0,
    store=StoreAddress(endpoint="http://store:9000"),
    output="s3://dpe/team/shapes-1-0a1b2c3d/serve-base",
    stage=Stage.SERVE_BASE,
    model_uri="s3://dpe/models/base",
    max_model_len=1024,
    tensor_parallel_size=1,
    extra_args=["--dtype", "float32"],
)


def until(condition, deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path):
    """Start the fake in one of its ways; gives the server, once it listens."""
    servers = []

    def it(how: str) -> Server:
        told = tmp_path / "url"
        server = Server.start([sys.executable, FAKE, how, str(told)], dict(os.environ))
        servers.append(server)
        threading.Thread(target=server.pass_through, daemon=True).start()
        until(lambda: (told.exists() and told.read_text() != "") or server.process.poll() is not None)
        server.base_url = told.read_text() if told.exists() else "http://127.0.0.1:1"
        return server

    yield it
    for server in servers:
        server.stop()


def status(port: int, path: str) -> int:
    try:
        return urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status
    except HTTPError as error:
        return error.code


def test_ready_only_after_a_question_about_an_image_was_answered(start):
    server = start("serves")
    http = serve_readiness(server, 0)
    port = http.server_address[1]
    assert status(port, "/ready") == 503, "healthy, but never asked"
    warm_up(server)
    assert status(port, "/ready") == 200
    assert status(port, "/metrics") == 200
    assert status(port, "/else") == 404
    server.stop()
    assert status(port, "/ready") == 503
    http.shutdown()


def test_an_engine_that_dies_with_exit_0_is_a_failure_with_its_reason(start):
    server = start("dies")
    warm_up(server)
    assert server.process.wait(10) == 0
    until(lambda: any("luck" in line for line in server.tail))
    error = explain(server, LAUNCH.model_uri)
    assert error.exit_code == Exit.PROGRAM_DIED
    assert error.reason == "ServerDied"
    assert "exit 0" in str(error)
    assert "Worker failed with error 'out of luck'" in str(error)


def test_refused_arguments_are_a_bad_configuration(start):
    server = start("refuses")
    server.process.wait(10)
    until(lambda: any("unrecognized" in line for line in server.tail))
    error = explain(server, LAUNCH.model_uri)
    assert error.exit_code == Exit.BAD_CONFIG
    assert "unrecognized arguments: --x: correct spec.serving.extraArgs or maxModelLen" in str(error)


def test_a_model_that_does_not_load_is_bad_data_with_vllms_own_words(start):
    server = start("cannot-load")
    warm_up(server)
    until(lambda: any("tokenizer" in line for line in server.tail))
    error = explain(server, LAUNCH.model_uri)
    assert error.exit_code == Exit.BAD_DATA
    assert str(error) == (
        "vLLM cannot load s3://dpe/models/base: ValueError: No tokenizer file found in directory /model"
    )


def test_a_model_that_cannot_look_at_images_is_bad_data(start):
    server = start("blind")
    warm_up(server)
    server.process.wait(10)
    error = explain(server, LAUNCH.model_uri)
    assert not server.warm.is_set()
    assert error.exit_code == Exit.BAD_DATA
    assert "no images here" in str(error)


def test_killed_before_ready_is_charged_and_not_the_models_fault(start):
    server = start("serves")
    server.process.kill()
    error = explain(server, LAUNCH.model_uri)
    assert error.exit_code == Exit.PROGRAM_DIED
    assert "signal 9" in str(error)


def test_stubborn_server_is_killed(start, monkeypatch):
    monkeypatch.setattr(child, "STOP_S", 0.2)
    server = start("stubborn")
    server.stop()
    assert server.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("how", "code"), [("serves", Exit.STOPPED), ("dies", Exit.PROGRAM_DIED)])
def test_the_stage_ends_as_the_server_did_or_as_it_was_asked(tmp_path, monkeypatch, how, code):
    """The whole stage: SIGTERM once ready stops the child, and ends with 143; an unasked exit 0 ends with 70."""
    store, told = MemoryStore(), tmp_path / "url"
    monkeypatch.setattr(Store, "from_env", lambda address: store)
    monkeypatch.setattr(runtime, "TERMINATION_PATH", str(tmp_path / "log"))
    monkeypatch.setattr(module, "command", lambda launch, on_cpu, model: [sys.executable, FAKE, how, str(told)])
    warmed = []

    def readiness(server: Server):
        def ask() -> None:
            until(lambda: told.exists() and told.read_text() != "")
            server.base_url = told.read_text()
            warm_up(server)
            warmed.append(server)
            if how == "serves":
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=ask).start()
        return serve_readiness(server, 0)

    monkeypatch.setattr(module, "serve_readiness", readiness)
    monkeypatch.setattr(child, "warm_up", lambda server: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert runtime.run_stage(LAUNCH, module.run, metrics=False) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert warmed[0].process.poll() is not None
    assert ("ServerDied" if how == "dies" else "Stopped") in (tmp_path / "log").read_text()


def test_command_line_is_the_agreed_one_and_extra_arguments_win():
    arguments = command(LAUNCH, on_cpu=False)
    assert arguments[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert arguments[3:7] == ["--model", "/model", "--served-model-name", "model"]
    assert "--tensor-parallel-size" not in arguments
    assert arguments[-2:] == ["--dtype", "float32"]
    four = command(LAUNCH.model_copy(update={"tensor_parallel_size": 4}), on_cpu=False)
    assert four[four.index("--tensor-parallel-size") + 1] == "4"


def test_sampling_defaults_of_the_model_are_not_asked_for_unless_extra_arguments_do():
    told = LAUNCH.model_copy(update={"extra_args": ["--generation-config", "auto"]})
    arguments = command(told, on_cpu=False)
    assert arguments[arguments.index("--generation-config") + 1] == "vllm"
    assert arguments[-2:] == ["--generation-config", "auto"], "the last one counts"


def test_prompts_are_not_split_on_cpu():
    assert "--no-enable-chunked-prefill" in command(LAUNCH, on_cpu=True)
    assert "--no-enable-chunked-prefill" not in command(LAUNCH, on_cpu=False)


def test_caches_are_below_tmp_unless_the_pod_says_otherwise(monkeypatch):
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/fast/cache")
    env = environment()
    assert env["VLLM_CACHE_ROOT"] == "/fast/cache"
    assert env["TRITON_CACHE_DIR"].startswith("/tmp/")
    assert env["HF_HUB_OFFLINE"] == "1"
