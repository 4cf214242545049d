"""One thread in which programs draw, write and check: the event loop hears of answers meanwhile, and of a stop.

One, because they compute in Python, and because the libraries that they draw with are not all made for several.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workbench:
    """Use as a context manager."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "workbench")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work`, after what was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))
