"""Do something for each of many items, some at a time, and know when too many failed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from dpe_jobs.client import EndpointDown, RequestFailed
from dpe_jobs.runtime import Transient

T = TypeVar("T")
log = logging.getLogger(__name__)


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], concurrency: int) -> None:
    """`work` on every item, at most `concurrency` at a time; the first exception ends all and is raised as it is.

    Items are taken one by one as workers get free, in a thread, so that `items` may read from disk: no more than
    `concurrency` of them are in memory.
    """
    source, turn, end = iter(items), asyncio.Lock(), object()

    async def worker() -> None:
        while True:
            async with turn:
                item = await asyncio.to_thread(next, source, end)
            if item is end:
                return
            await work(item)  # type: ignore[arg-type]

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as trouble:
        # the first one ended the others; its own type says how the stage ends
        raise trouble.exceptions[0] from None


class Failures:
    """Items that an endpoint failed on. Too many of them, or a dead endpoint, end the stage for now."""

    def __init__(self, what: str, total: int, allowed: int) -> None:
        """`what` they are, in the plural; `allowed` of `total` may fail."""
        self._what, self._total, self._allowed = what, total, allowed
        self.messages: dict[str, str] = {}

    def add(self, key: str, error: RequestFailed) -> None:
        """Count one. Transient "EndpointDown" or "ErrorRate" when that is the end."""
        if isinstance(error, EndpointDown):
            raise Transient("EndpointDown", str(error)) from error
        log.warning("%s: %s", key, error)
        self.messages.setdefault(key, str(error))
        if len(self.messages) > self._allowed:
            raise Transient(
                "ErrorRate",
                f"{len(self.messages)} of {self._total} {self._what}, more than maxErrorRate allows "
                f"({self._allowed}); the last one: {error}",
            ) from error
