"""The endpoints of a generation: one client each, whoever uses it, with one account and one ledger."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from dpe_api.artifacts import EndpointSpending, Tokens
from dpe_api.endpoints import Endpoint
from dpe_jobs.client import Account, ModelClient
from dpe_jobs.ledger import Ledger


@asynccontextmanager
async def open_clients(
    endpoints: Sequence[Endpoint], ledger: Ledger, *, share: float = 1.0
) -> AsyncIterator[Mapping[str, ModelClient]]:
    """Clients by the names of their endpoints. What `ledger` has answers to is not asked again.

    What its rows cost is spent; `share` of each budget is for this pod. BadConfig: a key or an address is no good.
    """
    async with AsyncExitStack() as stack:
        clients = {}
        for endpoint in endpoints:
            account = account_of(endpoint, ledger, share=share)
            client = ModelClient.of(endpoint, account=account, ledger=ledger)
            clients[endpoint.name] = await stack.enter_async_context(client)
        yield clients


def account_of(endpoint: Endpoint, ledger: Ledger, *, share: float = 1.0) -> Account:
    """An account from which what earlier attempts spent is gone."""
    prompt = completion = calls = 0
    for row in ledger:
        if row.get("endpoint") == endpoint.name:
            prompt += row["prompt_tokens"]
            completion += row["completion_tokens"]
            calls += row["calls"]
    return Account(endpoint, Tokens(prompt=prompt, completion=completion), calls, share=share)


def spending(clients: Mapping[str, ModelClient]) -> list[EndpointSpending]:
    """What each endpoint has cost, for the summary."""
    return [client.account.report() for client in clients.values() if client.account is not None]
