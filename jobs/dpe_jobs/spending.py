"""What asking may cost: a number of calls, or tokens and money of an endpoint. Neither is ever exceeded knowingly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dpe_api.artifacts import EndpointSpending, Tokens
from dpe_api.endpoints import Endpoint
from dpe_jobs.failed import BudgetSpent


class Budget:
    """A number of calls that is never exceeded. A call that the server turned down costs nothing."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def take(self) -> None:
        """Pay for one call; BudgetSpent when none is left."""
        if self.left <= 0:
            raise BudgetSpent("not asked: the allowed number of calls is used up")
        self.left -= 1

    def give_back(self) -> None:
        """The call brought nothing that could cost anything."""
        self.left += 1


@dataclass(slots=True)
class Reservation:
    """The most that a request is expected to cost while it is under way; then what it did cost."""

    prompt: int
    completion: int
    calls: int = 1

    def nothing(self) -> None:
        """It brought nothing that could cost anything."""
        self.prompt = self.completion = self.calls = 0


class Account:
    """What one endpoint has cost, and the end of it.

    A request is sent only when what is spent, what requests under way may cost and what it may cost itself fit into
    the budget together: its answers are reckoned at `max_tokens` each, its prompt as the longest one so far, since
    only the server counts tokens. So the budget can be exceeded by prompts longer than any before, and by nothing
    else. Who does not fit now, and might when others have cost less than they could, waits.
    """

    def __init__(self, endpoint: Endpoint, spent: Tokens | None = None, calls: int = 0, *, share: float = 1.0) -> None:
        """`spent` by earlier attempts in `calls`; `share` of the budget is for this pod."""
        self._endpoint, self._share = endpoint, share
        spent = spent or Tokens()
        self._prompt, self._completion, self._calls = spent.prompt, spent.completion, calls
        self._under_way: list[Reservation] = []
        self._longest_prompt = 0
        self._changed = asyncio.Condition()
        self.exhausted = False
        """A request was not sent because the budget is used up."""

    def cost(self, prompt: int, completion: int) -> float:
        """Money for so many tokens, in the currency of the prices; 0 without prices."""
        price = self._endpoint.price
        return 0.0 if price is None else (prompt * price.input + completion * price.output) / 1e6

    def report(self) -> EndpointSpending:
        """For summary and status."""
        priced = self._endpoint.price is not None
        return EndpointSpending(
            endpoint=self._endpoint.name,
            calls=self._calls,
            tokens=Tokens(prompt=self._prompt, completion=self._completion),
            cost=self.cost(self._prompt, self._completion) if priced else None,
            budget_spent=self.exhausted,
        )

    def _fits(self, prompt: int, completion: int) -> bool:
        budget = self._endpoint.budget
        if budget is None:
            return True
        prompt, completion = prompt + self._prompt, completion + self._completion
        if budget.tokens is not None and prompt + completion > budget.tokens * self._share:
            return False
        return budget.cost is None or self.cost(prompt, completion) <= budget.cost * self._share

    @asynccontextmanager
    async def reserve(self, completion: int) -> AsyncIterator[Reservation]:
        """While a request is under way. What the reservation says at the end is spent; at first, the most it can be.

        BudgetSpent: it does not fit, even if the requests under way cost nothing.
        """
        async with self._changed:
            while True:
                mine = Reservation(self._longest_prompt, completion)
                if not self._fits(mine.prompt, mine.completion):
                    self.exhausted = True
                    raise BudgetSpent(f"not asked: {self._used_up()}")
                others_prompt = sum(r.prompt for r in self._under_way)
                others_completion = sum(r.completion for r in self._under_way)
                if self._fits(mine.prompt + others_prompt, mine.completion + others_completion):
                    break
                await self._changed.wait()
            self._under_way.append(mine)
        try:
            yield mine
        finally:
            # by identity: equal reservations are different requests
            self._under_way = [r for r in self._under_way if r is not mine]
            self._prompt += mine.prompt
            self._completion += mine.completion
            self._calls += mine.calls
            self._longest_prompt = max(self._longest_prompt, mine.prompt)
            async with self._changed:
                self._changed.notify_all()

    def _used_up(self) -> str:
        budget, cost = self._endpoint.budget, self.cost(self._prompt, self._completion)
        assert budget is not None
        allowed = [f"{budget.tokens} tokens"] if budget.tokens is not None else []
        allowed += [f"cost {budget.cost:g}"] if budget.cost is not None else []
        part = "" if self._share == 1.0 else f", of which {self._share:.3g} is this shard's"
        return (
            f"the budget of endpoint {self._endpoint.name} ({', '.join(allowed)}{part}) is used up: "
            f"{self._prompt + self._completion} tokens" + (f", cost {cost:.4g}" if self._endpoint.price else "")
        )


@asynccontextmanager
async def paying(account: Account | None, budget: Budget | None, completion: int) -> AsyncIterator[Reservation]:
    """While a request is under way that may bring `completion` tokens. BudgetSpent: it may not be sent."""
    reservation = Reservation(0, 0, calls=0)
    if budget is not None:
        budget.take()
    try:
        if account is None:
            reservation = Reservation(0, completion)
            yield reservation
        else:
            async with account.reserve(completion) as reservation:
                yield reservation
    finally:
        if budget is not None and not reservation.calls:
            budget.give_back()
