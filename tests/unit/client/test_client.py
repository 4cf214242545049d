import asyncio
import json
import socket
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from tests.fakes.openai_server import Asked, Reply, serving
from tests.fakes.worlds import picture

from dpe_jobs.chat import data_uri, retry_after_s
from dpe_jobs.client import Answers, ModelClient, RequestFailed

PICTURE = picture("red")


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_answer_carries_texts_and_tokens_and_the_request_is_as_agreed():
    with serving(lambda asked: ["red", "blue"]) as model:
        async with ModelClient(model.url, concurrency=2, endpoint="t1") as client:
            answers = await client.ask(PICTURE, "what?", n=2, temperature=0.7, max_tokens=5, seed=3, top_k=40)
        body = model.requests[0].body
    assert answers == Answers(("red", "blue"), 10, 4)
    assert (body["model"], body["n"], body["temperature"], body["max_tokens"]) == ("model", 2, 0.7, 5)
    assert (body["seed"], body["top_k"]) == (3, 40)
    assert model.requests[0].image == PICTURE
    assert client.tokens.prompt == 10
    assert sample("dpe_tokens_total", endpoint="t1", direction="completion") == 4
    assert sample("dpe_requests_total", endpoint="t1") == 1


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(status=429),
        Reply(status=500),
        Reply(status=503, headers={"Retry-After": "0"}),
        Reply(hang_up=True),
        Reply(body=b"not json"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(body=b"[1]"),
        Reply(body=b'{"choices": [{"message": {"content": "a"}}], "usage": 3}'),
    ],
    ids=lambda r: f"{r.status} {r.body.decode()} {r.hang_up}",
)
async def test_passing_trouble_is_retried(trouble):
    with serving(lambda asked: trouble if asked.number < 2 else ["red"]) as model:
        async with ModelClient(model.url, concurrency=1) as client:
            assert (await client.ask(PICTURE, "what?", max_tokens=5)).texts == ("red",)
        assert len(model.requests) == 3


async def test_lasting_trouble_is_given_up_with_what_the_server_said():
    with serving(lambda asked: Reply(status=503, body=b"engine is tired")) as model:
        async with ModelClient(model.url, concurrency=1, give_up_s=0.2, endpoint="t2") as client:
            with pytest.raises(RequestFailed, match="HTTP 503: engine is tired"):
                await client.ask(PICTURE, "what?", max_tokens=5)
        assert len(model.requests) > 1
    assert sample("dpe_request_errors_total", endpoint="t2", kind="http_503") == len(model.requests)


async def test_a_refused_request_is_not_repeated():
    with serving(lambda asked: Reply(status=400, body=b"prompt too long")) as model:
        async with ModelClient(model.url, concurrency=1) as client:
            with pytest.raises(RequestFailed, match="prompt too long"):
                await client.ask(PICTURE, "what?", max_tokens=5)
        assert len(model.requests) == 1


async def test_slow_server_times_out():
    with serving(lambda asked: Reply(delay_s=2)) as model:
        async with ModelClient(model.url, concurrency=1, timeout_s=0.1, give_up_s=0.2) as client:
            with pytest.raises(RequestFailed, match="ReadTimeout"):
                await client.ask(PICTURE, "what?", max_tokens=5)


@pytest.mark.parametrize("trouble", [Reply(delay_s=0.4, hang_up=True), Reply(delay_s=0.4, status=502)])
async def test_an_answer_that_took_long_and_was_lost_is_asked_for_again(trouble):
    with serving(lambda asked: trouble if asked.number == 0 else ["red"]) as model:
        async with ModelClient(model.url, concurrency=1, give_up_s=0.3) as client:
            assert (await client.ask(PICTURE, "what?", max_tokens=5)).texts == ("red",)


async def test_a_server_that_is_silent_for_longer_than_trouble_is_borne_is_not_asked_again():
    with serving(lambda asked: Reply(delay_s=2)) as model:
        async with ModelClient(model.url, concurrency=1, timeout_s=0.3, give_up_s=0.2) as client:
            with pytest.raises(RequestFailed, match="ReadTimeout"):
                await client.ask(PICTURE, "what?", max_tokens=5)
        assert len(model.requests) == 1


async def test_a_server_that_vanishes_is_noticed_long_before_a_long_answer_is_due(monkeypatch):
    connections = []
    create = socket.socket

    class Watched(create):
        def connect(self, address):
            connections.append(self)
            return super().connect(address)

    monkeypatch.setattr(socket, "socket", Watched)
    with serving(lambda asked: ["red"]) as model:
        async with ModelClient(model.url, concurrency=1, timeout_s=7000.0) as client:
            await client.ask(PICTURE, "what?", max_tokens=5)
            (connection,) = connections
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000


async def test_nobody_listening_is_given_up():
    async with ModelClient("http://127.0.0.1:1", concurrency=1, give_up_s=0.1) as client:
        with pytest.raises(RequestFailed, match="ConnectError"):
            await client.ask(PICTURE, "what?", max_tokens=5)


async def test_retry_after_is_honoured():
    def script(asked: Asked) -> list[str] | Reply:
        return Reply(status=429, headers={"Retry-After": "0.3"}) if asked.number == 0 else ["red"]

    with serving(script) as model:
        async with ModelClient(model.url, concurrency=1) as client:
            started = asyncio.get_running_loop().time()
            await client.ask(PICTURE, "what?", max_tokens=5)
            assert asyncio.get_running_loop().time() - started >= 0.3


def test_retry_after_reads_seconds_and_dates_and_nothing_else():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s({"retry-after": "3"}) == 3
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 00:00:07 GMT"}, now) == 7
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2020 00:00:07 GMT"}, now) == 0
    assert retry_after_s({"retry-after": "99999"}) == 60
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "Thu, 01 Jan 99999999999999999999 00:00:07 GMT"}) is None
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 00:00:07 +99999999999999999999"}) is None
    assert retry_after_s({}) is None


async def test_no_more_requests_are_in_flight_than_concurrency():
    with serving(lambda asked: Reply(delay_s=0.02, body=_one("red"))) as model:
        async with ModelClient(model.url, concurrency=3) as client:
            await asyncio.gather(*(client.ask(PICTURE, f"{i}?", max_tokens=5) for i in range(12)))
        assert model.most_in_flight <= 3


async def test_empty_content_is_an_empty_answer():
    with serving(lambda asked: Reply(body=_one(None))) as model:
        async with ModelClient(model.url, concurrency=1) as client:
            assert (await client.ask(PICTURE, "what?", max_tokens=5)).texts == ("",)


async def test_wait_ready_returns_when_the_model_is_listed_and_says_what_is_wrong_otherwise():
    with serving(lambda asked: ["red"]) as model:
        async with ModelClient(model.url, concurrency=1) as client:
            await client.wait_ready(5)
        async with ModelClient(model.url, concurrency=1, model="other") as client:
            with pytest.raises(RequestFailed, match=r"does not serve 'other'.*\['model'\]"):
                await client.wait_ready(0)
    async with ModelClient("http://127.0.0.1:1", concurrency=1) as client:
        with pytest.raises(RequestFailed, match="ConnectError"):
            await client.wait_ready(0)


def test_image_type_is_told_by_its_first_bytes():
    assert data_uri(PICTURE).startswith("data:image/png;base64,")
    assert data_uri(b"\xff\xd8\xff\xe0").startswith("data:image/jpeg;")
    assert data_uri(b"RIFF\x00\x00\x00\x00WEBPVP8 ").startswith("data:image/webp;")


def _one(text: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()
