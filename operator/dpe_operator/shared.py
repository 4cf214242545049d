"""One request for all who want to know the same."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Reads what belongs to a key, once for all who ask before the reading begins. Its errors go to all of them.

    So each gets what is there when it asks, or later, and of a crowd there are two readings at most.
    """

    def __init__(self, read: Callable[[str], Coroutine[Any, Any, T]]) -> None:
        self._read = read
        self._running: dict[str, asyncio.Task[T]] = {}
        self._next: dict[str, asyncio.Task[T]] = {}

    def is_running(self, key: str) -> bool:
        """Whether it is read now."""
        return key in self._running

    def ask(self, key: str) -> asyncio.Task[T]:
        """A reading that begins after now. Others may wait for it, too: shield it."""
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._turn(key, self._running.get(key)))
        return self._next[key]

    async def _turn(self, key: str, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        mine = self._running[key] = self._next.pop(key)
        try:
            return await self._read(key)
        finally:
            if self._running[key] is mine:
                del self._running[key]
