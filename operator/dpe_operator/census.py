"""Brings what loops remember of iterations, Jobs and pods up to date, by lists.

One of few asks for its own. Where many are to be listed, at the start above all, one list of the namespace serves them
all: a request costs the operator ten times what an object in a list does, and the API server looks at every object of
the namespace for each.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Any

from dpe_api.names import LABEL_ITERATION
from dpe_operator.gateway import Gateway, Listed
from dpe_operator.loops import Loop
from dpe_operator.observe import Memory
from dpe_operator.shared import Shared

log = logging.getLogger(__name__)

CROWD = 16  # so many are listed together


class Census:
    """Lists, for one loop or for all of a namespace. Errors of the API server go to every loop that waits."""

    def __init__(self, gateway: Gateway, loops: Mapping[tuple[str, str], Loop]) -> None:
        """`loops` by namespace and name, as they are when a list begins."""
        self._gateway, self._loops = gateway, loops
        self._all = Shared(self._list)

    async def refresh(self, loop: Loop, older_than_s: float) -> None:
        """Read the loop's iteration, then its Jobs, then its pods, as `decide` expects; all of it later than now.

        One that nothing has put in doubt does not wait for a list of all: that only finds what a watch has lost. It is
        read where a crowd has lists older than `older_than_s`.
        """
        in_doubt = loop.memory.listed_at is None
        if not in_doubt and self._all.is_running(loop.namespace):
            return
        if not self._is_crowded(loop.namespace, older_than_s, in_doubt=in_doubt):
            await self._one(loop)
        elif in_doubt:
            await asyncio.shield(self._all.ask(loop.namespace))  # the others wait on when one of them is told to stop
        else:
            self._all.ask(loop.namespace).add_done_callback(_log)

    def _is_crowded(self, namespace: str, older_than_s: float, *, in_doubt: bool) -> bool:
        """Whether so many are to be listed, or so many are in doubt, that one list of all is cheaper."""
        others = (it for (there, _), it in self._loops.items() if there == namespace and not it.waits_for_events)
        wanted = (
            it for it in others if it.memory.listed_at is None or not (in_doubt or it.memory.is_recent(older_than_s))
        )
        return sum(1 for _ in islice(wanted, CROWD)) == CROWD

    async def _one(self, loop: Loop) -> None:
        loop.memory.listed_at = None  # until the lists are complete
        began = time.monotonic()
        body = await self._gateway.iteration(loop.namespace, loop.name)
        if body is None or body["metadata"]["uid"] != loop.uid:
            loop.memory.forget_iteration()
            return
        loop.memory.see_iteration(body)
        await self._children(loop.namespace, {loop.name: loop}, loop.name)
        loop.memory.listed_at = began

    async def _list(self, namespace: str) -> None:
        loops = {name: loop for (there, name), loop in self._loops.items() if there == namespace}
        began = time.monotonic()
        async for page in self._gateway.iteration_pages(namespace):
            for body in page.items:
                loop = loops.get(body["metadata"]["name"])
                if loop is not None and loop.uid == body["metadata"]["uid"]:
                    loop.memory.see_iteration(body)
        await self._children(namespace, loops, None)
        for loop in loops.values():
            if loop.memory.doubted_at < began:
                loop.memory.listed_at = began

    async def _children(self, namespace: str, loops: Mapping[str, Loop], name: str | None) -> None:
        there, version = await _note(self._gateway.jobs(namespace, name), loops, Memory.see_job)
        for loop in loops.values():
            _tell(loop, loop.memory.miss_jobs(there, version))
        there, version = await _note(self._gateway.pods(namespace, name), loops, Memory.see_pod)
        for loop in loops.values():
            _tell(loop, loop.memory.miss_pods(there, version))


async def _note(
    pages: AsyncIterator[Listed], loops: Mapping[str, Loop], see: Callable[[Memory, dict[str, Any], str], bool]
) -> tuple[set[str], int]:
    """Uids of all that there is, and the resourceVersion at which that holds."""
    there, version = set(), 0
    async for page in pages:
        version = page.version
        for thing in page.items:
            there.add(thing["metadata"]["uid"])
            loop = loops.get(thing["metadata"]["labels"][LABEL_ITERATION])
            if loop is not None:
                _tell(loop, see(loop.memory, thing, loop.uid))
    return there, version


def _log(task: asyncio.Task[None]) -> None:
    """Nobody waits for it: the next one is another try."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("cannot list what is there: %s", error)


def _tell(loop: Loop, is_news: bool) -> None:
    """Wake one that trusted its events: who waits for the list looks anyway."""
    if is_news and loop.memory.listed_at is not None:
        loop.wake.set()
