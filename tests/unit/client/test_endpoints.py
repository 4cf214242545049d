import asyncio
import logging

import pytest
from prometheus_client import REGISTRY, generate_latest
from tests.fakes.endpoints import KEY, endpoint, give_key
from tests.fakes.openai_server import Asked, Reply, complaint, completion, locked, serving, storm
from tests.fakes.worlds import picture

from dpe_api.endpoints import Endpoint
from dpe_api.names import Exit
from dpe_jobs import client as module
from dpe_jobs.client import Answers, Budget, BudgetSpent, EndpointDown, ModelClient, Refused, RequestFailed
from dpe_jobs.runtime import BadConfig

PICTURE = picture("red")


def red(asked: Asked) -> list[str]:
    return ["red"]


async def ask_once(chosen: Endpoint, **changes: object) -> Answers:
    async with ModelClient.of(chosen) as client:
        return await client.ask(PICTURE, "what?", max_tokens=5, **changes)  # type: ignore[arg-type]


async def test_the_address_is_taken_as_openai_clients_take_it_with_v1():
    with serving(red) as model:
        assert (await ask_once(endpoint(f"{model.url}/v1"))).texts == ("red",)
        assert (await ask_once(endpoint(f"{model.url}/v1/"))).texts == ("red",)
        with pytest.raises(BadConfig, match=r"endpoint teacher .*HTTP 404.*correct url \(with /v1"):
            await ask_once(endpoint(model.url))
        assert model.requests[0].body["model"] == "gpt-fake"


async def test_the_key_opens_the_endpoint(monkeypatch):
    give_key(monkeypatch, key=f"{KEY}\n")
    with serving(locked(red, KEY)) as model:
        assert (await ask_once(endpoint(model, keyed=True))).texts == ("red",)


async def test_without_a_reference_no_key_is_sent_although_the_environment_has_one(monkeypatch):
    give_key(monkeypatch)
    with serving(red) as model:
        await ask_once(endpoint(model))
        assert model.requests[0].key == ""


async def test_a_refused_key_ends_at_once_and_names_the_endpoint(monkeypatch):
    give_key(monkeypatch, key="sk-wrong-and-secret")
    with serving(locked(red, KEY)) as model:
        with pytest.raises(BadConfig, match=r"endpoint teacher \(http.*HTTP 401: the API key is refused") as caught:
            await ask_once(endpoint(model, keyed=True))
        assert len(model.requests) == 1
    assert caught.value.exit_code == Exit.BAD_CONFIG
    assert "sk-wrong" not in str(caught.value), "the server's reply quotes the key, the message must not"


async def test_an_endpoint_that_wants_a_key_and_gets_none_says_which_field_to_write():
    missing = pytest.raises(BadConfig, match="the API key is missing: name its key in apiKeySecretRef")
    with serving(locked(red, KEY)) as model, missing:
        await ask_once(endpoint(model))


@pytest.mark.parametrize("key", ["", "  \n", "two\nlines", "schlüssel"])
async def test_a_key_that_no_header_can_hold_is_a_bad_configuration_and_is_not_shown(monkeypatch, key):
    give_key(monkeypatch, key=key)
    with pytest.raises(BadConfig, match=r"endpoint teacher: its API key .*DPE_ENDPOINT_KEY_TEACHER") as caught:
        ModelClient.of(endpoint("http://127.0.0.1:1/v1", keyed=True))
    assert not key.strip() or key not in str(caught.value)


async def test_the_key_is_in_no_message_no_log_and_no_metric(monkeypatch, caplog):
    give_key(monkeypatch)
    caplog.set_level(logging.DEBUG)
    replies = [Reply(status=500, body=f"bad key {KEY}".encode()), Reply(status=400, body=f"you said {KEY}".encode())]
    with serving(lambda asked: replies[asked.number]) as model, pytest.raises(Refused) as caught:
        await ask_once(endpoint(model, keyed=True))
    assert "you said ***" in str(caught.value)
    for place in (repr(caught.value), caplog.text, generate_latest(REGISTRY).decode()):
        assert KEY not in place


@pytest.mark.parametrize(
    "reply",
    [Reply(status=402), complaint(429, "You exceeded your current quota", code="insufficient_quota")],
    ids=["402", "insufficient_quota"],
)
async def test_an_empty_account_ends_at_once(reply):
    with serving(lambda asked: reply) as model:
        with pytest.raises(BadConfig, match="no credit left"):
            await ask_once(endpoint(model))
        assert len(model.requests) == 1


async def test_a_404_after_answers_is_trouble_of_one_request():
    with serving(lambda asked: Reply(status=404) if asked.number else ["red"]) as model:
        async with ModelClient.of(endpoint(model)) as client:
            await client.ask(None, "one?", max_tokens=5)
            with pytest.raises(Refused, match="HTTP 404"):
                await client.ask(None, "two?", max_tokens=5)


async def test_a_redirect_is_not_followed_with_the_key(monkeypatch):
    give_key(monkeypatch)
    with serving(red) as thief:
        away = Reply(status=307, headers={"Location": f"{thief.url}/v1/chat/completions"})
        with serving(lambda asked: away) as model, pytest.raises(BadConfig, match="HTTP 307"):
            await ask_once(endpoint(model, keyed=True))
        assert not thief.requests


async def test_a_storm_of_429_is_waited_out_by_all_requests_together():
    with serving(storm(red, times=4, retry_after_s=0.4)) as model:
        async with ModelClient.of(endpoint(model)) as client:
            answers = await asyncio.gather(*(client.ask(None, f"{n}?", max_tokens=5) for n in range(12)))
        assert [a.texts for a in answers] == [("red",)] * 12
        assert len(model.requests) == 12 + 4, "who was not told to wait waited all the same"


async def test_waits_that_the_server_asks_for_are_not_counted_as_attempts():
    patient = module.MAX_ATTEMPTS + 5
    with serving(storm(red, times=patient, retry_after_s=0)) as model:
        assert (await ask_once(endpoint(model))).texts == ("red",)
        assert len(model.requests) == patient + 1


async def test_server_errors_are_retried_a_bounded_number_of_times():
    with serving(lambda asked: Reply(status=500, body=b"out of memory")) as model:
        with pytest.raises(RequestFailed, match=r"endpoint teacher .*HTTP 500: out of memory"):
            await ask_once(endpoint(model))
        assert len(model.requests) == module.MAX_ATTEMPTS


async def test_a_slow_endpoint_times_out_as_its_spec_says(monkeypatch):
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 2)
    with serving(lambda asked: Reply(delay_s=3)) as model:
        with pytest.raises(RequestFailed, match="ReadTimeout"):
            await ask_once(endpoint(model, timeout_seconds=1))
        assert len(model.requests) == 2


async def test_a_dead_endpoint_is_asked_no_more_after_a_few_requests():
    with serving(lambda asked: Reply(status=503)) as model:
        async with ModelClient.of(endpoint(model, max_concurrency=1)) as client:
            for _ in range(module.BREAK_AFTER - 1):
                with pytest.raises(RequestFailed, match="HTTP 503"):
                    await client.ask(None, "what?", max_tokens=5)
            with pytest.raises(EndpointDown, match=r"left 8 requests in a row without an answer; the last one: .*503"):
                await client.ask(None, "what?", max_tokens=5)
            asked = len(model.requests)
            with pytest.raises(EndpointDown, match=r"endpoint teacher"):
                await client.ask(None, "what?", max_tokens=5)
            assert len(model.requests) == asked


async def test_requests_under_way_stop_when_others_find_the_endpoint_dead(monkeypatch):
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 10_000)
    loop, seen = asyncio.get_running_loop(), asyncio.Event()

    def dead(asked: Asked) -> Reply:
        loop.call_soon_threadsafe(seen.set)
        return Reply(status=503)

    with serving(dead) as model:
        async with ModelClient.of(endpoint(model)) as client:
            client._failed_in_row = module.BREAK_AFTER - 1
            long = asyncio.create_task(client.ask(None, "long?", max_tokens=5))
            await asyncio.wait_for(seen.wait(), 5)
            client._failed_in_row = module.BREAK_AFTER
            with pytest.raises(EndpointDown):
                await asyncio.wait_for(long, 5)


async def test_refusals_of_single_requests_do_not_make_an_endpoint_dead():
    with serving(lambda asked: Reply(status=400)) as model:
        async with ModelClient.of(endpoint(model)) as client:
            for _ in range(module.BREAK_AFTER + 2):
                with pytest.raises(Refused):
                    await client.ask(None, "what?", max_tokens=5)


async def test_no_more_calls_are_answered_than_the_budget_allows_and_refused_ones_are_free():
    with serving(storm(red, times=3, retry_after_s=0)) as model:
        budget = Budget(2)
        async with ModelClient.of(endpoint(model)) as client:
            said = await asyncio.gather(
                *(client.ask(None, f"{n}?", max_tokens=5, budget=budget) for n in range(6)), return_exceptions=True
            )
        assert sum(isinstance(s, Answers) for s in said) == 2
        assert all(isinstance(s, Answers | BudgetSpent) for s in said)
        assert budget.left == 0
        assert sum(a.number >= 3 for a in model.requests) == 2


async def test_a_call_that_timed_out_counts_for_it_may_have_cost_something(monkeypatch):
    with serving(lambda asked: Reply(delay_s=3)) as model:
        budget = Budget(2)
        with pytest.raises(BudgetSpent):
            await ask_once(endpoint(model, timeout_seconds=1), budget=budget)
        assert len(model.requests) == 2


async def test_a_text_without_an_image_is_sent_as_plain_text():
    with serving(red) as model:
        async with ModelClient.of(endpoint(model)) as client:
            await client.ask(None, "what?", system="be brief", max_tokens=5)
        assert model.requests[0].body["messages"] == [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what?"},
        ]


async def test_a_field_that_a_reasoning_model_does_not_take_is_left_out_from_then_on():
    def o_series(asked: Asked) -> list[str] | Reply:
        if "max_tokens" in asked.body:
            return complaint(400, "Use max_completion_tokens", code="unsupported_parameter", param="max_tokens")
        if "temperature" in asked.body:
            return complaint(400, "Only the default (1)", code="unsupported_value", param="temperature")
        return ["red"]

    with serving(o_series) as model:
        async with ModelClient.of(endpoint(model)) as client:
            await client.ask(None, "one?", max_tokens=5)
            await client.ask(None, "two?", max_tokens=5)
        assert len(model.requests) == 4
        assert model.requests[-1].body["max_completion_tokens"] == 5
        # the served model is diagnosed as the spec says, or not at all
        async with ModelClient(model.url, concurrency=1) as client:
            with pytest.raises(Refused):
                await client.ask(None, "one?", max_tokens=5)


async def test_tokens_are_counted_by_endpoint():
    with serving(red) as model:
        async with ModelClient.of(endpoint(model, name="counted")) as client:
            await client.ask(None, "one?", max_tokens=5)
            assert (client.tokens.prompt, client.tokens.completion) == (10, 2)
    labels = {"endpoint": "counted", "direction": "prompt"}
    assert REGISTRY.get_sample_value("dpe_tokens_total", labels) == 10


async def test_what_the_api_says_beside_the_text_is_told():
    replies = [
        completion("r", finish="length"),
        completion(None, refusal="no"),
        completion("", finish="content_filter"),
    ]
    with serving(lambda asked: replies[asked.number]) as model:
        async with ModelClient.of(endpoint(model)) as client:
            said = [await client.ask(None, "?", max_tokens=1) for _ in replies]
    assert [(a.cut_off, bool(a.refusal)) for a in said] == [(True, False), (False, True), (False, True)]


async def test_an_answer_that_does_not_unpack_is_trouble_not_a_crash():
    broken = Reply(headers={"Content-Encoding": "gzip"}, body=b"no gzip")
    with serving(lambda asked: broken if asked.number == 0 else ["red"]) as model:
        assert (await ask_once(endpoint(model))).texts == ("red",)
