"""How a loop looks, waits, and ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from dpe_api.trace import trace_id
from dpe_operator import reconcile
from dpe_operator.gateway import Conflict
from dpe_operator.loops import Loop
from dpe_operator.reconcile import Operator, run


class Looks:
    """Looks that were taken at one loop. `pauses`: seconds until the next one, or an error."""

    def __init__(self, *pauses: float | Exception | None) -> None:
        self.pauses, self.taken = list(pauses), 0
        self.loop, self.stopped, self.looked = Loop("lab", "i0", "uid-of-i0"), asyncio.Event(), asyncio.Condition()

    async def look(self, _operator: Operator, _loop: Loop) -> float | None:
        async with self.looked:
            self.taken += 1
            self.looked.notify_all()
        pause = self.pauses.pop(0) if self.pauses else None
        if isinstance(pause, Exception):
            raise pause
        return pause

    async def until(self, taken: int) -> None:
        async with self.looked:
            await self.looked.wait_for(lambda: self.taken >= taken)

    def stop(self) -> None:
        self.stopped.set()
        self.loop.wake.set()


def looking(looks: Looks, story: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        operator: Any = None
        running = asyncio.create_task(run(operator, looks.loop, looks.stopped, looks.look))
        await story()
        looks.stop()
        await running

    asyncio.run(asyncio.wait_for(go(), 5))


def test_a_loop_looks_when_it_is_woken_and_when_its_time_is_over_and_ends_when_it_is_told():
    looks = Looks(None, 0.01)

    async def story() -> None:
        await looks.until(1)
        await asyncio.sleep(0.01)
        assert looks.loop.waits_for_events
        looks.loop.wake.set()
        await looks.until(3)

    looking(looks, story)
    assert looks.taken == 3


def test_what_happens_during_a_look_leads_to_another_one():
    looks = Looks()
    look = looks.look

    async def interrupted(operator: Operator, loop: Loop) -> float | None:
        if looks.taken == 0:
            loop.wake.set()
        return await look(operator, loop)

    looks.look = interrupted  # type: ignore[method-assign]
    looking(looks, lambda: looks.until(2))
    assert looks.taken == 2


def test_a_conflict_puts_in_doubt_what_is_known_and_is_tried_again_at_once():
    looks = Looks(Conflict("changed"), None)
    looks.loop.memory.listed_at = 1.0
    looking(looks, lambda: looks.until(2))
    assert looks.loop.memory.listed_at is None


def test_conflicts_that_do_not_end_are_not_tried_again_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []

    async def pause(_loop: Loop, seconds: float | None) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(reconcile, "_pause", pause)
    looks = Looks(*(Conflict("changed") for _ in range(reconcile.CONFLICTS + 2)), None)
    looking(looks, lambda: looks.until(reconcile.CONFLICTS + 3))
    assert pauses[: reconcile.CONFLICTS] == [0.0] * reconcile.CONFLICTS
    assert pauses[reconcile.CONFLICTS : reconcile.CONFLICTS + 3] == [*reconcile.RETRY_S[:2], None]


@pytest.mark.parametrize(
    "error", [ApiException(status=500, reason="no"), Conflict("changed"), ValueError("a status that nobody foresaw")]
)
def test_a_line_about_a_look_that_ended_in_an_error_leads_to_the_trace(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconcile, "RETRY_S", (0.001,))
    looks = Looks(*[error] * (reconcile.CONFLICTS + 1), None)
    looking(looks, lambda: looks.until(reconcile.CONFLICTS + 2))
    told = [(record.namespace, record.iteration, record.trace_id) for record in caplog.records]  # type: ignore[attr-defined]
    assert set(told) == {("lab", "i0", trace_id("uid-of-i0"))}


def test_what_an_api_server_in_trouble_has_refused_is_tried_again_with_the_next_look() -> None:
    """While it starts it refuses what it will take a second later."""
    looks = Looks(ApiException(status=403, reason="Forbidden"), None)
    looks.loop.memory.refuse("x", "forbidden", 3600)
    looking(looks, lambda: looks.until(1))
    assert looks.loop.memory.not_admitted() == {}
