import json
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.endpoints import endpoint
from tests.fakes.openai_server import Asked, FakeModel, Reply, Script, complaint, completion, formless, serving

from dpe_jobs.client import Budget, ModelClient, Refused
from dpe_jobs.endpoints.each import each
from dpe_jobs.endpoints.structured import (
    ASKS,
    LONGEST_LINE,
    Asker,
    Cost,
    Declined,
    Line,
    MalformedReply,
    find_object,
)
from dpe_jobs.endpoints.structured import (
    Reply as Form,
)


class Colour(Form):
    reason: Line
    colour: Literal["red", "blue"]


GOOD = json.dumps({"reason": "it is", "colour": "red"})


def good(asked: Asked) -> list[str]:
    return [GOOD]


async def ask(model: FakeModel, *, budget: Budget | None = None, times: int = 1) -> list[tuple[Colour, Cost]]:
    async with ModelClient.of(endpoint(model)) as client:
        asker = Asker(client, Colour, max_tokens=50, budget=budget)
        return [await asker.ask("which?", image=None, system="say") for _ in range(times)]


def first(*texts: str) -> Script:
    """These replies, then good ones."""
    return lambda asked: [texts[asked.number]] if asked.number < len(texts) else [GOOD]


async def test_the_schema_goes_with_the_request_and_allows_nothing_else():
    with serving(good) as model:
        [(reply, cost)] = await ask(model)
        told = model.requests[0].body["response_format"]
    assert (reply.colour, cost) == ("red", Cost(10, 2, 1))
    assert told["type"] == "json_schema"
    assert told["json_schema"]["strict"] is True
    schema = told["json_schema"]["schema"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["reason", "colour"], "the reason is written before what follows from it"
    assert schema["properties"]["colour"]["enum"] == ["red", "blue"]


@pytest.mark.parametrize(
    ("unknown", "form"),
    [((), "json_schema"), (("json_schema",), "json_object"), (("json_schema", "json_object"), "text")],
)
async def test_a_server_that_knows_no_schema_is_asked_in_the_next_form_and_that_is_remembered(unknown, form):
    with serving(formless(good, *unknown)) as model:
        assert [r.colour for r, _ in await ask(model, times=3)] == ["red"] * 3
        forms = [a.form for a in model.requests]
        assert forms == ["json_schema", "json_object", "text"][: len(unknown)] + [form] * 3
        if unknown:
            assert '"enum": ["red", "blue"]' in model.requests[-1].question, "the schema is in the text instead"
            assert "JSON" in model.requests[-1].question, "OpenAI's json_object wants the word"


async def test_lm_studio_that_takes_schemas_but_no_json_object_is_no_special_case():
    with serving(formless(good, "json_object")) as model:
        await ask(model, times=2)
        assert [a.form for a in model.requests] == ["json_schema"] * 2


async def test_a_refusal_for_another_reason_is_told_as_it_was_and_changes_no_form():
    def script(asked: Asked) -> list[str] | Reply:
        return complaint(400, f"prompt too long in {asked.form}") if asked.number < 3 else [GOOD]

    with serving(script) as model:
        async with ModelClient.of(endpoint(model)) as client:
            asker = Asker(client, Colour, max_tokens=50)
            with pytest.raises(Refused, match="prompt too long in json_schema"):
                await asker.ask("long?")
            await asker.ask("short?")
        assert model.requests[-1].form == "json_schema"


async def test_once_a_form_has_worked_a_refusal_is_not_about_it():
    with serving(lambda asked: complaint(400, "prompt too long") if asked.number else [GOOD]) as model:
        with pytest.raises(Refused):
            await ask(model, times=2)
        assert len(model.requests) == 2


async def test_questions_that_are_asked_together_find_the_form_together():
    with serving(formless(good, "json_schema")) as model:
        async with ModelClient.of(endpoint(model, max_concurrency=8)) as client:
            asker = Asker(client, Colour, max_tokens=50)
            said: list[str] = []

            async def work(number: int) -> None:
                said.append((await asker.ask(f"{number}?"))[0].colour)

            await each(range(20), work, client.concurrency)
        assert said == ["red"] * 20
        assert sum(a.form == "json_schema" for a in model.requests) <= 8


BAD = {
    "no JSON": "It is red.",
    "truncated": GOOD[:-9],
    "empty": "",
    "a list": '["red"]',
    "wrong field": '{"color": "red"}',
    "wrong value": '{"reason": "x", "colour": "green"}',
    "wrong type": '{"reason": "x", "colour": 1}',
    "nothing said": '{"reason": "", "colour": "red"}',
    "half a surrogate pair": '{"reason": "it is", "colour": "red", "more": "\\ud83d"}',
    "half a surrogate pair in prose": 'So: {"reason": "it is", "colour": "red", "more": "\\ud83d"}',
    "deep": '{"a":' * 5000,
    "many braces": "{" * 50_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
async def test_a_reply_that_does_not_fit_is_asked_again_with_what_was_wrong(text):
    with serving(first(text)) as model:
        [(reply, cost)] = await ask(model)
        assert reply.colour == "red"
        assert cost == Cost(20, 4, 2), "both replies are paid for"
        again = model.requests[1].question
        assert again.startswith("which?\n\nAn earlier reply could not be read: ")
        assert '"enum": ["red", "blue"]' in again
        assert [a.sampled for a in model.requests] == [False, True], "a greedy model would say the same again"


async def test_replies_that_never_fit_are_an_error_after_a_few_and_their_price_is_told():
    with serving(lambda asked: ['{"reason": "x", "colour": "green"}']) as model:
        with pytest.raises(
            MalformedReply, match=r"endpoint teacher .*colour: Input should be 'red' or 'blue'"
        ) as caught:
            await ask(model)
        assert len(model.requests) == ASKS
    assert caught.value.cost == Cost(10 * ASKS, 2 * ASKS, ASKS)


async def test_a_reply_that_is_cut_off_says_which_field_to_raise():
    fails = pytest.raises(MalformedReply, match=r"cut off at maxTokens \(50\)")
    with serving(lambda asked: completion(GOOD[:12], finish="length")) as model, fails:
        await ask(model)


async def test_a_model_that_declines_is_not_pressed():
    with serving(lambda asked: completion(None, refusal="I cannot look at people")) as model:
        with pytest.raises(Declined, match=r"endpoint teacher .* declined: I cannot look at people"):
            await ask(model)
        assert len(model.requests) == 1


async def test_asking_again_stays_in_the_budget():
    with serving(lambda asked: ["nonsense"]) as model:
        with pytest.raises(MalformedReply) as caught:
            await ask(model, budget=Budget(2))
        assert len(model.requests) == caught.value.cost.calls == 2


READ = {
    "bare": GOOD,
    "fenced": f"```json\n{GOOD}\n```",
    "in prose": f"Sure! Here it is: {GOOD} I hope that helps.",
    "after thoughts": f'<think>maybe {{"reason": "x", "colour": "blue"}}?</think>{GOOD}',
    "after thoughts without a beginning": f'{{"reason": "x", "colour": "blue"}}?</think>\n{GOOD}',
    "after a quotation": f'The response says {{"reason": "x", "colour": "blue"}} but {GOOD}',
    "with set braces before": f"of {{red, blue}} it is {GOOD}",
    "with more fields": json.dumps({"reason": "it is", "colour": "red", "confidence": 0.9}),
    "quoting a thought's end": json.dumps({"reason": '</think>{"colour": "blue"}', "colour": "red"}),
}


@pytest.mark.parametrize("text", READ.values(), ids=READ.keys())
async def test_a_reply_is_read_whatever_is_around_it(text):
    with serving(lambda asked: [text]) as model:
        [(reply, cost)] = await ask(model)
    assert (reply.colour, cost.calls) == ("red", 1)


async def test_a_line_that_is_too_long_or_has_breaks_is_mended_not_paid_for_again():
    long = json.dumps({"reason": "a\n\n b " + "c" * 1000, "colour": "red"})
    with serving(lambda asked: [long]) as model:
        [(reply, _)] = await ask(model)
    assert reply.reason.startswith("a b ccc")
    assert len(reply.reason) == LONGEST_LINE


def test_raw_control_characters_in_a_string_are_no_reason_to_ask_again():
    assert find_object('{"reason": "a\tb\nc\x01"}') == {"reason": "a\tb\nc\x01"}
    assert find_object('So: {"reason": "a\tb"}') == {"reason": "a\tb"}


@given(st.text(alphabet=st.sampled_from('{}[]":,\\abc 1'), max_size=200))
def test_any_text_has_an_object_or_has_none(text):
    with suppress(ValueError):
        assert isinstance(find_object(text), dict)
