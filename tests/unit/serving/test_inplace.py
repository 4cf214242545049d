"""A model server that takes other weights while it runs, with a fake in vLLM's place."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import FakeModel, Reply
from tests.training.support import free_port
from tests.unit.serving.test_cache import add
from tests.unit.serving.test_run import FAKE, LAUNCH, status, until

from dpe_api.artifacts import ServedReport
from dpe_api.names import Exit
from dpe_jobs import runtime
from dpe_jobs.chat import Answers
from dpe_jobs.client import ModelClient
from dpe_jobs.serving import guard, inplace
from dpe_jobs.serving import run as module
from dpe_jobs.serving.inplace import NotInPlace, disagreement, reload
from dpe_jobs.serving.server import Server, command, environment
from dpe_jobs.store import Store

KEY = "k" * 43
CANDIDATE = "s3://dpe/models/candidate"
FILES = {
    "config.json": json.dumps({"architectures": ["X"], "text_config": {"hidden_size": 8}}).encode(),
    "tokenizer.json": b"{}",
}
KEPT = LAUNCH.model_copy(update={"next_model_uri": CANDIDATE, "extra_args": []})


@pytest.fixture
def model():
    it = FakeModel(lambda asked: ["a circle"])
    yield it
    it.close()


def listen(model: FakeModel, **broken: Reply) -> list[tuple[str, str]]:
    """Record what is posted beside questions, and answer it: as `broken` says, or well."""
    told: list[tuple[str, str]] = []

    def answer(path: str, body: bytes, headers: dict[str, str]) -> Reply:
        assert headers[guard.HEADER] == KEY
        told.append((path, body.decode()))
        name = path.strip("/").partition("?")[0]
        return broken.get(name, Reply(body=b'{"success": true}'))

    model.others = answer
    return told


def test_weights_are_reloaded_while_paused_and_every_cache_is_reset_before_it_goes_on(model):
    told = listen(model)
    reload(model.url, Path("/model/next"), KEY)
    assert [path.partition("?")[0] for path, _ in told] == [
        "/pause",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/resume",
    ]
    assert json.loads(told[1][1]) == {"method": "reload_weights", "kwargs": {"weights_path": "/model/next"}}
    assert len(model.requests) == 1
    assert model.requests[0].image.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"collective_rpc": Reply(status=500, body=b"no such file")}, "/collective_rpc answers 500: no such file"),
        ({"reset_prefix_cache": Reply(body=b'{"success": false}')}, "cache of the old weights is still in use"),
        ({"resume": Reply(hang_up=True)}, "/resume: RemoteProtocolError"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said_and_nothing_is_asked_of_unknown_weights(model, broken, words):
    listen(model, **broken)
    with pytest.raises(NotInPlace, match=words):
        reload(model.url, Path("/model/next"), KEY)
    assert not model.requests


def test_weights_that_answer_no_question_about_an_image_are_not_taken(model):
    listen(model)
    model.script = lambda asked: Reply(status=400, body=b"no images here")
    with pytest.raises(NotInPlace, match=r"a question about an image is not answered: .*no images here"):
        reload(model.url, Path("/model/next"), KEY)


@pytest.mark.parametrize("goes_well", [True, False])
def test_nobody_is_sent_to_a_server_from_the_download_on_until_it_answers_with_the_new_weights(monkeypatch, goes_well):
    server = Server(subprocess.Popen([sys.executable, "-c", ""]))
    server.process.wait()
    server.warm.set()
    ready: list[tuple[str, bool]] = []

    def see(what: str, error: Exception | None = None) -> None:
        ready.append((what, server.warm.is_set()))
        if error is not None:
            raise error

    monkeypatch.setattr(inplace, "fetch", lambda *_: see("download"))
    monkeypatch.setattr(inplace, "disagreement", lambda *_: None)
    monkeypatch.setattr(inplace, "reload", lambda *_: see("reload", None if goes_well else NotInPlace("why")))
    assert inplace.take(KEPT, MemoryStore(), server, KEY, lambda: see("restart")) is goes_well
    assert ready == [(what, False) for what in ("download", "reload", *([] if goes_well else ["restart"]))]
    assert server.warm.is_set() is goes_well, "one that starts anew is ready once it has answered, not before"


def folder(path: Path, config: dict[str, object], **files: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"a": 1, "transformers_version": "4"}, {"a": 1, "transformers_version": "5", "later": 2}, None),
        ({"text": {"layers": 4, "use_cache": True}}, {"text": {"layers": 4, "use_cache": False}}, None),
        ({"text": {"layers": 4}}, {"text": {"layers": 5}}, "config.json differs in text.layers"),
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}, None),
        ({"torch_dtype": "bfloat16"}, {"dtype": "float32"}, "config.json differs in dtype"),
    ],
)
def test_configurations_must_agree_in_what_both_say(tmp_path, before, after, why):
    assert disagreement(folder(tmp_path / "a", before), folder(tmp_path / "b", after)) == why


def test_number_formats_may_differ_where_the_arguments_set_one(tmp_path):
    first = folder(tmp_path / "a", {"dtype": "float16"})
    second = folder(tmp_path / "b", {"dtype": "float32"})
    assert disagreement(first, second, ["--dtype", "float32"]) is None
    assert disagreement(first, second, ["--dtype=float32"]) is None
    assert disagreement(first, second, ["--max-num-seqs", "4"]) == "config.json differs in dtype"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"tokenizer__json": "a"}, {"tokenizer__json": "b"}),
        ({"tokenizer__json": "a"}, {}),
        ({}, {"tokenizer__json": "a"}),
    ],
)
def test_everything_beside_the_weights_must_be_the_same(tmp_path, first, second):
    one = folder(tmp_path / "a", {}, model__safetensors="1", **first)
    two = folder(tmp_path / "b", {}, manifest__json="{}", model__safetensors="2", **second)
    assert disagreement(one, two) == "tokenizer.json is not the same in both models"


def test_others_reach_the_model_its_health_and_its_metrics_and_nothing_that_changes_it(monkeypatch):
    monkeypatch.setenv("DPE_WRAPPER_KEY", KEY)

    def asked(path: str, *headers: tuple[bytes, bytes], kind: str = "http") -> str:
        reached: list[str] = []

        async def app(scope, receive, send) -> None:
            reached.append("app")

        async def send(message) -> None:
            reached.append(str(message.get("status", message["type"])))

        async def receive():
            raise AssertionError("the guard reads no body")

        scope = {"type": kind, "path": path, "headers": list(headers)}
        asyncio.run(guard.Guard(app)(scope, receive, send))
        return reached[0]

    for path in ("/v1/chat/completions", "/v1/models", "/health", "/metrics"):
        assert asked(path) == "app"
    shut = ("/collective_rpc", "/pause", "/resume", "/sleep", "/reset_prefix_cache", "/server_info", "/docs")
    for path in (*shut, "/v1/load_lora_adapter", "/v1/../pause", "/v1", "/inference/v1/generate"):
        expected = "app" if path == "/v1/../pause" else "404"  # no router resolves dots: that is no address of vLLM's
        assert asked(path) == expected, path
        assert asked(path, (b"x-dpe-wrapper", b"guess")) == expected, path
    assert asked("/collective_rpc", (b"x-dpe-wrapper", KEY.encode())) == "app"
    assert asked("/pause", kind="websocket") == "websocket.close"
    assert asked("", kind="lifespan") == "app"


def test_a_server_that_is_not_kept_has_no_such_addresses():
    plain, kept = command(LAUNCH, on_cpu=True), command(KEPT, on_cpu=True)
    assert "--middleware" not in plain
    assert kept[kept.index("--middleware") + 1] == "dpe_jobs.serving.guard.Guard"
    assert "VLLM_SERVER_DEV_MODE" not in environment()
    assert environment(KEY)["VLLM_SERVER_DEV_MODE"] == "1"
    assert KEY not in " ".join(kept)


class Stage:
    """The whole serving stage in a thread of the test's process, which SIGTERM stops."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        self.store, self.port = MemoryStore(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts: list[str] = []
        self.folder = tmp_path / "model"
        self.folder.mkdir()
        for name, data in {**FILES, "model.safetensors": b"base"}.items():
            (self.folder / name).write_bytes(data)
        monkeypatch.setattr(Store, "from_env", lambda address: self.store)
        monkeypatch.setattr(runtime, "TERMINATION_PATH", str(tmp_path / "log"))
        self.said = tmp_path / "log"
        monkeypatch.setattr(inplace, "MODEL_DIR", str(self.folder))
        monkeypatch.setattr(module, "MODEL_DIR", str(self.folder))
        monkeypatch.setattr(inplace, "FOLDER", self.folder / "next")
        monkeypatch.setattr(inplace, "POLL_S", 0.05)

        def arguments(launch, on_cpu: bool, model: str) -> list[str]:
            return [sys.executable, FAKE, how, str(tmp_path / "url"), model, str(self.port)]

        monkeypatch.setattr(module, "command", arguments)
        start = Server.start

        def started(arguments: list[str], env: dict[str, str]) -> Server:
            self.starts.append(arguments[-2])
            server = start(arguments, env)
            server.base_url = self.url
            self.server = server
            return server

        monkeypatch.setattr(module.Server, "start", started)
        readiness = module.serve_readiness

        def on_some_port(server: Server):
            http = readiness(server, 0)
            self.ready_port = http.server_address[1]
            return http

        monkeypatch.setattr(module, "serve_readiness", on_some_port)

    def run(self, then) -> Exit:
        """Run it, and `then` beside it; SIGTERM when that has ended."""
        failures: list[BaseException] = []

        def beside() -> None:
            try:
                then()
            except BaseException as error:  # noqa: BLE001 - it is the test's own, and raised below
                failures.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            thread = threading.Thread(target=beside)
            thread.start()
            code = runtime.run_stage(KEPT, module.run, metrics=False)
            thread.join()
        finally:
            signal.signal(signal.SIGTERM, before)
        if failures:
            raise failures[0]
        return code

    def is_ready(self) -> bool:
        return hasattr(self, "ready_port") and status(self.ready_port, "/ready") == 200

    def answer(self) -> str:
        async def ask() -> Answers:
            async with ModelClient(self.url, concurrency=1) as client:
                return await client.ask(b"\x89PNG", "who are you?", max_tokens=4)

        return asyncio.run(ask()).texts[0]

    def publish(self, **checksums: str) -> None:
        files = {**FILES, "model.safetensors": b"candidate"}
        add(self.store, "candidate", files, **checksums)

    def report(self) -> ServedReport | None:
        found = [data for uri, data in self.store.objects.items() if "/attempts/1/served-" in uri]
        return ServedReport.model_validate_json(found[0]) if found else None


@pytest.fixture
def stage(tmp_path, monkeypatch, request) -> Stage:
    return Stage(tmp_path, monkeypatch, request.param)


@pytest.mark.parametrize("stage", ["serves"], indirect=True)
def test_one_process_serves_the_base_and_once_it_is_published_the_candidate(stage):
    def then() -> None:
        until(stage.is_ready)
        assert stage.answer() == "base"
        process = stage.server.process
        stage.store.down = True  # for a while: nobody needs what it would say
        time.sleep(0.2)
        stage.store.down = False
        stage.publish()
        until(lambda: stage.report() is not None)
        assert stage.answer() == "candidate"
        assert stage.is_ready()
        assert stage.server.process is process
        assert process.poll() is None

    assert stage.run(then) == Exit.STOPPED
    report = stage.report()
    assert report is not None
    assert (report.uri, report.in_place, report.attempt) == (CANDIDATE, True, 1)
    assert stage.server.process.poll() is not None


@pytest.mark.parametrize("stage", ["cannot-reload"], indirect=True)
def test_a_server_that_cannot_take_the_weights_starts_anew_with_them_and_says_why(stage, caplog):
    first = []

    def then() -> None:
        until(stage.is_ready)
        first.append(stage.server.process)
        stage.publish()
        until(lambda: stage.report() is not None)
        assert stage.answer() == "candidate"
        assert stage.is_ready()

    assert stage.run(then) == Exit.STOPPED
    report = stage.report()
    assert report is not None
    assert not report.in_place
    assert first[0] is not stage.server.process
    assert all(process.poll() is not None for process in (*first, stage.server.process))
    assert "vLLM starts anew: /collective_rpc answers 500: out of luck" in caplog.text


@pytest.mark.parametrize("stage", ["serves"], indirect=True)
def test_a_pod_that_comes_after_the_candidate_serves_nothing_else(stage):
    stage.publish()

    def then() -> None:
        until(lambda: stage.report() is not None)
        assert stage.answer() == "candidate"

    assert stage.run(then) == Exit.STOPPED
    assert stage.starts == [str(stage.folder / "next")]
    assert not stage.report().in_place


@pytest.mark.parametrize("stage", ["serves"], indirect=True)
def test_a_candidate_that_came_damaged_ends_the_stage_as_it_would_an_init_container(stage):
    def then() -> None:
        until(stage.is_ready)
        stage.publish(**{"model.safetensors": "0" * 64})
        until(lambda: stage.server.process.poll() is not None)
        until(lambda: stage.said.exists())

    assert stage.run(then) == Exit.BAD_DATA
    assert "ChecksumMismatch" in stage.said.read_text()
    assert stage.report() is None


@pytest.mark.parametrize("stage", ["dies"], indirect=True)
def test_a_server_that_dies_before_the_candidate_is_published_ends_the_stage_at_once(stage):
    ended = []
    assert stage.run(lambda: ended.append(until(lambda: stage.said.exists()))) == Exit.PROGRAM_DIED
    assert "ServerDied" in stage.said.read_text()
