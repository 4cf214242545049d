"""A stage's HTTP requests are spans of its iteration's trace, over the wire to a collector; nothing when it is off."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fakes import otlp, worlds
from tests.fakes.image_files import file
from tests.fakes.image_searches import KEY, Catalogue, serper
from tests.fakes.otlp import collecting
from tests.fakes.web import Answer, Site, Visit, site

from dpe_api.trace import attempt_span_id, trace_id
from dpe_jobs.serving.server import command, environment

PROGRAM = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from dpe_api.generation_spec import Source
from dpe_api.launch import parse_launch
from dpe_jobs import runtime
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.generation.fetching.addresses import Allowed
from dpe_jobs.generation.fetching.download import Downloader
from dpe_jobs.generation.search.api import SearchApi
from tests.fakes.image_searches import source

async def ask(url):
    async with ModelClient(url, concurrency=1, model="m", key="sk-canary-model", outside=True) as client:
        await client.ask(None, "what?", max_tokens=5)
    async with SearchApi(source("serper", url, keyed=True), 1, "dpe-test/1") as api:
        await api.search("secret words", 1)
    async with Downloader("dpe-test/1", allowed=Allowed.of(["127.0.0.2"])) as it:
        await it.get(url + "/a.jpg?token=canary-query")

def body(launch, store):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.find, "s3://dpe/what/is/not").result()
    store.create("s3://dpe/x.json", b"{}")
    asyncio.run(ask(launch.model.url))
    if "fail" in sys.argv:
        raise runtime.BadData("Broken", "canary-message")

runtime.TERMINATION_PATH = "/dev/null"
launch = parse_launch(sys.stdin.read())
runtime.set_up_logging(launch)
sys.exit(runtime.run_stage(launch, body, metrics=False))
"""


def answered(visit: Visit) -> Answer:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    choice = {"index": 0, "message": {"role": "assistant", "content": "red"}, "finish_reason": "stop"}
    return Answer(json.dumps({"choices": [choice], "usage": usage}).encode())


def missing(visit: Visit) -> Answer:
    return Answer(
        b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>", 404, {"Content-Type": "application/xml"}
    )


def run(web: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A stage that asks a model, a search, an image's host and the store, each once or twice."""
    web.pages |= {
        "/chat/completions": answered,
        "/images": serper(Catalogue(web.url, 1)),
        "/a.jpg": Answer(file()),
        "/dpe/what/is/not": missing,
        "/dpe/x.json": Answer(b""),
        f"/dpe/team/shapes-1-0a1b2c3d/diagnosis/attempts/1/exit-{socket.gethostname()}.json": Answer(b""),
    }
    launch = worlds.diagnosis(web.url).model_dump(mode="json", by_alias=True)
    launch["store"]["endpoint"] = web.url
    keys = {"DPE_S3_ACCESS_KEY": "canary-access", "DPE_S3_SECRET_KEY": "canary-secret"}
    named = {"DPE_SOURCE_KEY_1": KEY, **keys, **environment}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        input=json.dumps(launch),
        env={**inherited, **named},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        timeout=120,
    )


def test_each_request_is_a_span_below_the_attempt_and_servers_are_told_of_it():
    uid = worlds.diagnosis("http://model").iteration.uid
    with site() as web, collecting() as collector:
        done = run(web, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert done.returncode == 0, done.stderr
        spans = collector.spans
        (stage,) = collector.named("diagnosis")
        assert stage.parent == attempt_span_id(uid, "diagnosis", 1)
        assert {s.trace for s in spans} == {trace_id(uid)}
        assert stage.service["service.name"] == "dpe-diagnosis"
        assert stage.service["dpe.iteration"] == "shapes-1"
        requests = {s.name: s for s in spans if s is not stage and s.id != stage.id}
        assert {s.parent for s in requests.values()} == {stage.id}, "also those of threads"
        chat = requests["chat m"]
        assert (
            chat.about.items()
            >= {
                "http.response.status_code": 200,
                "gen_ai.usage.input_tokens": 11,
                "gen_ai.usage.output_tokens": 3,
                "server.address": "127.0.0.2",
                "url.path": "/chat/completions",
            }.items()
        )
        asked = next(v for v in web.visits if v.path == "/chat/completions")
        assert asked.headers["traceparent"] == f"00-{chat.trace}-{chat.id}-01"
        assert requests["object store GET"].about["http.response.status_code"] == 404
        assert {"object store PUT", "image search serper", "image download"} <= requests.keys()
        assert all("traceparent" not in v.headers for v in web.visits if v.path in ("/images", "/a.jpg")), "strangers"
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        assert lines
        assert {line["trace_id"] for line in lines} == {trace_id(uid)}


def test_no_key_no_query_and_no_message_is_in_a_span():
    with site() as web, collecting() as collector:
        done = run(web, "fail", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert done.returncode == 65, done.stderr
        assert collector.named("image download")
        (stage,) = collector.named("diagnosis")
        assert stage.status == otlp.ERROR
        assert stage.said == "BAD_DATA"
        assert stage.about["process.exit.code"] == 65
        sent = collector.raw.decode(errors="replace")
        for secret in ("canary", KEY, "secret words", "X-Amz", "Signature"):
            assert secret not in sent


def test_nothing_is_sent_or_told_without_a_collector():
    with site() as web:
        done = run(web)
        assert done.returncode == 0, done.stderr
        assert all("traceparent" not in visit.headers for visit in web.visits)


def test_a_collector_that_is_away_costs_a_stage_seconds_and_nothing_else():
    with site() as web:
        began = time.monotonic()
        without = run(web)
        usual, began = time.monotonic() - began, time.monotonic()
        done = run(web, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
        assert (done.returncode, without.returncode) == (0, 0)
        assert time.monotonic() - began < 3 * usual + 10


def test_a_setting_that_opentelemetry_refuses_costs_a_stage_its_trace_and_nothing_else():
    with site() as web, collecting() as collector:
        done = run(web, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_MAX_QUEUE_SIZE="256")
        assert done.returncode == 0, done.stderr
        assert "no traces: max_export_batch_size must be less than or equal to max_queue_size" in done.stderr
        assert collector.spans == []


@pytest.mark.parametrize(
    ("variable", "value", "address"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318", "http://otel:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318/", "http://otel:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel:4318/own", "http://otel:4318/own"),
    ],
)
def test_vllm_sends_its_spans_to_the_same_collector(monkeypatch, variable: str, value: str, address: str):
    from tests.unit.serving.test_run import LAUNCH

    plain = command(LAUNCH, on_cpu=False)
    monkeypatch.setenv(variable, value)
    line = command(LAUNCH, on_cpu=False)
    assert "--otlp-traces-endpoint" not in plain
    assert line[line.index("--otlp-traces-endpoint") + 1] == address
    assert environment()["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
