"""Budgets of endpoints, and that nothing is paid for twice."""

import asyncio

import httpx
import pytest
from prometheus_client import REGISTRY
from tests.fakes.endpoints import endpoint
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving, storm

from dpe_api.artifacts import Tokens
from dpe_api.endpoints import Endpoint, Price, SpendingLimit
from dpe_jobs import client
from dpe_jobs.client import Account, Answers, Budget, BudgetSpent, ModelClient, RequestFailed
from dpe_jobs.ledger import Ledger

PRICE = Price(input=1000.0, output=10_000.0)  # of one call of the fake, 10 tokens and 2: 0.01 + 0.02


def red(asked: Asked) -> list[str]:
    return ["red"]


async def ask(chosen: Endpoint, account: Account, times: int, *, max_tokens: int = 2) -> list[object]:
    async with ModelClient.of(chosen, account=account) as client:
        calls = (client.ask(None, f"{n}?", max_tokens=max_tokens) for n in range(times))
        return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    "limit", [SpendingLimit(tokens=60), SpendingLimit(cost=0.15), SpendingLimit(tokens=1000, cost=0.15)]
)
async def test_a_budget_is_used_up_and_not_exceeded(limit):
    with serving(red) as model:
        chosen = endpoint(model, price=PRICE, budget=limit, max_concurrency=1)
        account = Account(chosen)
        said = await ask(chosen, account, 10)
        assert [isinstance(s, Answers) for s in said] == [True] * 5 + [False] * 5
        assert all(isinstance(s, BudgetSpent) for s in said[5:])
        assert len(model.requests) == 5
    report = account.report()
    assert (report.calls, report.tokens, report.budget_spent) == (5, Tokens(prompt=50, completion=10), True)
    assert report.cost == pytest.approx(0.15)
    assert "the budget of endpoint teacher (" in str(said[-1])
    assert "is used up: 60 tokens, cost 0.15" in str(said[-1])


async def test_requests_under_way_count_with_the_most_they_can_cost_and_who_might_fit_later_waits():
    slow = Reply(delay_s=0.05, body=b'{"choices": [{"message": {"content": "r"}}], "usage": {"completion_tokens": 1}}')
    with serving(lambda asked: slow) as model:
        chosen = endpoint(model, budget=SpendingLimit(tokens=120), max_concurrency=8)
        said = await ask(chosen, Account(chosen), 8, max_tokens=50)
        assert all(isinstance(s, Answers) for s in said), "each may cost 50 and costs 1: all fit, two at a time"
        assert model.most_in_flight == 2


async def test_what_earlier_attempts_spent_is_spent():
    with serving(red) as model:
        chosen = endpoint(model, budget=SpendingLimit(tokens=60), max_concurrency=1)
        said = await ask(chosen, Account(chosen, Tokens(prompt=40, completion=8), calls=4), 2)
        assert [isinstance(s, Answers) for s in said] == [True, False]


async def test_refused_calls_are_free_and_calls_that_timed_out_are_not():
    with serving(storm(red, times=3, retry_after_s=0)) as model:
        chosen = endpoint(model, budget=SpendingLimit(tokens=12))
        account = Account(chosen)
        assert isinstance((await ask(chosen, account, 1))[0], Answers)
        assert account.report().calls == 1
    with serving(lambda asked: Reply(delay_s=3)) as model:
        chosen = endpoint(model, budget=SpendingLimit(tokens=12), timeout_seconds=1)
        (said,) = await ask(chosen, Account(chosen), 1, max_tokens=10)
        assert isinstance(said, BudgetSpent), "the first may have cost all"
        assert len(model.requests) == 1


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ConnectError])
async def test_an_endpoint_that_cannot_be_reached_costs_nothing(error, monkeypatch):
    async def unreachable(self: httpx.AsyncClient, *args: object, **kwargs: object) -> httpx.Response:
        raise error("")

    monkeypatch.setattr(httpx.AsyncClient, "post", unreachable)
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 2)
    chosen = Endpoint(name="teacher", url="http://10.0.0.1/v1", model="m", budget=SpendingLimit(tokens=12))
    account, calls = Account(chosen), Budget(1)
    async with ModelClient.of(chosen, account=account) as asking:
        for _ in range(2):
            with pytest.raises(RequestFailed):
                await asking.ask(None, "?", max_tokens=10, budget=calls)
    report = account.report()
    assert (report.calls, report.tokens, report.budget_spent, calls.left) == (0, Tokens(), False, 1)


async def test_a_shard_has_its_part_of_the_budget():
    with serving(red) as model:
        chosen = endpoint(model, budget=SpendingLimit(tokens=96), max_concurrency=1)
        said = await ask(chosen, Account(chosen, share=0.25), 3)
        assert [isinstance(s, Answers) for s in said] == [True, True, False]
    assert "of which 0.25 is this shard's" in str(said[-1])


async def test_money_is_counted_by_endpoint():
    with serving(red) as model:
        await ask(priced := endpoint(model, name="priced", price=PRICE), Account(priced), 2)
    assert REGISTRY.get_sample_value("dpe_cost_total", {"endpoint": "priced"}) == pytest.approx(0.06)


async def test_an_answer_is_paid_for_once_over_restarts_and_another_seed_is_another_question():
    store = MemoryStore()

    async def run(*seeds: int) -> list[str]:
        with Ledger(store, "s3://b/ledger") as ledger:
            async with ModelClient.of(endpoint(model), ledger=ledger) as client:
                return [(await client.ask(None, "what?", max_tokens=5, seed=seed)).texts[0] for seed in seeds]

    with serving(lambda asked: [f"answer {asked.number}"]) as model:
        assert await run(1, 2, 1) == ["answer 0", "answer 1", "answer 0"]
        assert await run(2, 1, 3) == ["answer 1", "answer 0", "answer 2"]
        assert len(model.requests) == 3
    rows = list(Ledger(store, "s3://b/ledger"))
    assert [(r["endpoint"], r["prompt_tokens"], r["completion_tokens"], r["calls"]) for r in rows] == [
        ("teacher", 10, 2, 1)
    ] * 3


async def test_half_a_surrogate_pair_in_an_answer_is_a_wrong_text_and_no_end_of_the_ledger():
    store = MemoryStore()

    async def ask(ledger: Ledger | None) -> tuple[str, ...]:
        async with ModelClient.of(endpoint(model), ledger=ledger) as client:
            return (await client.ask(None, "what?", max_tokens=5)).texts

    with serving(lambda asked: ["a \ud83d and \U0001f600"]) as model:
        assert await ask(None) == ("a \ufffd and \U0001f600",)
        for _ in range(2):
            with Ledger(store, "s3://b/ledger") as ledger:
                assert await ask(ledger) == ("a \ufffd and \U0001f600",)
        assert len(model.requests) == 2, "the second attempt finds it in the ledger"


async def test_failures_are_not_remembered(monkeypatch):
    with serving(lambda asked: Reply(status=400) if asked.number == 0 else ["red"]) as model:
        ledger = Ledger(MemoryStore(), "s3://b/ledger")
        async with ModelClient.of(endpoint(model), ledger=ledger) as client:
            with pytest.raises(RequestFailed):
                await client.ask(None, "what?", max_tokens=5)
            assert (await client.ask(None, "what?", max_tokens=5)).texts == ("red",)


async def test_several_images_go_out_in_order():
    with serving(red) as model:
        async with ModelClient.of(endpoint(model)) as client:
            await client.ask([b"\xff\xd8\xff one", b"GIF8 two"], "which?", max_tokens=5)
        assert model.requests[0].images == (b"\xff\xd8\xff one", b"GIF8 two")
        assert model.requests[0].question == "which?"
