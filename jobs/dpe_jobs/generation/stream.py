"""Candidates on their way: begun as slots get free, made, solved, and decided in the order of their numbers.

Nothing waits for a wave to end. What is bounded: candidates with a picture in memory (those that the served model is
asked about, and a few that are being made), and those that wait for a slower one with a lower number (they are counted,
and their pictures wait on disk).
"""

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import Counter

from dpe_api.launch import GenerationLaunch
from dpe_jobs.client import BudgetSpent, EndpointDown, RequestFailed
from dpe_jobs.generation.candidates import Candidate, Team, Verdict, make, name
from dpe_jobs.generation.gallery import Gallery, outcome
from dpe_jobs.generation.judge import Judge
from dpe_jobs.generation.roles import REQUEST_FAILED, Order, Rejection, Target
from dpe_jobs.generation.samples import SampleFiles
from dpe_jobs.generation.schedule import SURPLUS, Line, Schedule
from dpe_jobs.runtime import ProgressReporter, Transient

log = logging.getLogger(__name__)

MOST_UNDECIDED = 2048  # candidates; one that is retried for 90 s holds up 5,000 of the fastest endpoint's
BUDGET = "Budget"

SAMPLES = Counter("dpe_samples_total", "Candidates by what became of them", ["outcome"])


class Spool:
    """Pictures of candidates that wait to be decided; files, at most MOST_UNDECIDED of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def put(self, verdict: Verdict, image: bytes) -> None:
        """Keep a picture."""
        self._path(verdict).write_bytes(image)

    def take(self, verdict: Verdict) -> bytes | None:
        """The picture, which is kept no longer; None: it never was."""
        path = self._path(verdict)
        if not path.exists():
            return None
        image = path.read_bytes()
        path.unlink()
        return image

    def _path(self, verdict: Verdict) -> Path:
        return self._folder / verdict.id.replace("/", "_")


@dataclass(frozen=True, slots=True)
class Flow:
    """What a stream connects."""

    launch: GenerationLaunch
    schedule: Schedule
    team: Team
    progress: ProgressReporter
    spool: Spool
    files: SampleFiles
    gallery: Gallery
    prefix: str
    """Begins the names of candidates."""


class Stream:
    """One run over the schedule."""

    def __init__(self, flow: Flow, judge: Judge) -> None:
        self._launch, self._schedule, self._team, self._judge = flow.launch, flow.schedule, flow.team, judge
        self._progress, self._spool, self._files, self._prefix = flow.progress, flow.spool, flow.files, flow.prefix
        self._gallery = flow.gallery
        self._slots = flow.launch.concurrency + flow.team.ahead
        self._busy = self._errors = 0
        self._room, self._judged = asyncio.Event(), asyncio.Event()
        self._verdicts: dict[str, dict[int, Verdict]] = {category: {} for category in flow.schedule.lines}

    async def run(self) -> None:
        """Until every quota is met or has used its budget. Transient "ErrorRate": too many requests failed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._begin(group))
                group.create_task(self._settle())
        except BaseExceptionGroup as trouble:
            # the first one ended the others; its own type says how the stage ends
            raise trouble.exceptions[0] from None

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        """Order plans and begin targets as slots get free."""
        while not self._schedule.done:
            self._room.clear()
            for order in self._schedule.orders():
                group.create_task(self._plan(order))
            while self._busy < self._slots and self._schedule.open < MOST_UNDECIDED:
                target = self._schedule.begin()
                if target is None:
                    break
                self._busy += 1
                group.create_task(self._work(target))
            await self._room.wait()

    async def _plan(self, order: Order) -> None:
        line = self._schedule.lines[order.category]
        try:
            line.plan(await self._team.planner.plan(order))
        except BudgetSpent as error:
            self._end(error)
        except RequestFailed as error:
            raise Transient("PlannerFailed", f"the plan of {order.category}: {error}") from error
        self._wake()

    def _wake(self) -> None:
        self._room.set()
        self._judged.set()

    async def _work(self, target: Target) -> None:
        line = self._schedule.lines[target.category]
        verdict = await self._verdict(target)
        self._verdicts[target.category][target.number] = verdict
        sound, unfit = verdict.rejection is None, verdict.unfit is not None
        line.judge(target.number, passed=sound and not unfit, unfit=sound and unfit, made=not verdict.given_up)
        self._busy -= 1
        self._wake()
        await asyncio.to_thread(self._progress.set, self._schedule.sure)

    async def _verdict(self, target: Target) -> Verdict:
        """What becomes of a target. A step that nobody needs any more is left out: its line is full."""
        line = self._schedule.lines[target.category]
        if line.full or line.ended:
            return self._nothing(target, SURPLUS, given_up=True)
        try:
            made = await make(self._team, target, self._prefix)
        except BudgetSpent as error:
            self._end(error)
            return self._nothing(target, SURPLUS, given_up=True)
        except RequestFailed as error:
            return self._failed(self._nothing(target, Rejection(REQUEST_FAILED, str(error))), error)
        if isinstance(made, Rejection):
            return self._nothing(target, made)
        rejection, sound = await self._team.workbench.do(self._look, made)
        seen = Verdict(target, made.id, replace(made, image=b""), rejection, sound=sound)
        if rejection is not None or line.full:
            return await self._spooled(seen, made.image)
        try:
            verdict = replace(await self._safe(made, await self._judge.solve(made)), sound=True)
        except BudgetSpent as error:
            self._end(error)
            return self._nothing(target, SURPLUS, given_up=True)
        except RequestFailed as error:
            verdict = self._failed(replace(seen, rejection=Rejection(REQUEST_FAILED, str(error))), error)
        return await self._spooled(verdict, made.image)

    def _look(self, made: Candidate) -> tuple[Rejection | None, bool]:
        """What is known of a candidate before it is solved, and whether it is sound."""
        rejection = self._judge.look(made)
        return (self._judge.repeats(made), True) if rejection is None else (rejection, False)

    async def _spooled(self, verdict: Verdict, image: bytes) -> Verdict:
        """The verdict; its picture is kept until it is decided, if it passed or may be shown, as a repeat perhaps."""
        if verdict.sound or self._gallery.wants(verdict):
            await asyncio.to_thread(self._spool.put, verdict, image)
        return verdict

    async def _safe(self, made: Candidate, verdict: Verdict) -> Verdict:
        """The verdict after the safety check, which nobody pays for where there is another reason against it."""
        if verdict.rejection is not None or self._team.safety is None:
            return verdict
        found = await self._team.safety.check(made.target, made.image, made.origin, made.written)
        return replace(verdict, rejection=found)

    def _nothing(self, target: Target, rejection: Rejection, *, given_up: bool = False) -> Verdict:
        return Verdict(target, name(target, self._prefix), None, rejection, given_up=given_up)

    def _failed(self, verdict: Verdict, error: RequestFailed) -> Verdict:
        """An error of the service: not held against the model; Transient when there are too many."""
        if isinstance(error, EndpointDown):
            raise Transient("EndpointDown", str(error)) from error
        self._errors += 1
        log.warning("no answer for %s: %s", verdict.id, error)
        judged = max(self._schedule.judged + 1, self._schedule.planned)
        allowed = math.floor(self._launch.max_error_rate * judged)
        if self._errors > allowed:
            raise Transient(
                "ErrorRate",
                f"{self._errors} of {judged} candidates got no answer, more than maxErrorRate allows ({allowed}); the "
                f"last one: {error}",
            ) from error
        return verdict

    def _end(self, error: BudgetSpent) -> None:
        log.warning("no more targets are begun: %s", error)
        self._schedule.end(BUDGET)

    async def _settle(self) -> None:
        """Decide what can be decided, in order, and write it down."""
        while not self._schedule.done:
            self._judged.clear()
            ready = [line for line in self._schedule.lines.values() if line.next_is_judged]
            for line in ready:
                await self._decide(line, self._verdicts[line.category].pop(line.settled))
            if ready:
                self._wake()  # there is room for others; and the next ones may be ready
            else:
                await self._judged.wait()
        self._wake()

    async def _decide(self, line: Line, verdict: Verdict) -> None:
        if verdict.sound and verdict.candidate is not None:
            # by now all with lower numbers have been looked at; a repeat is one even if it was faster, and was solved
            repeat = await self._team.workbench.do(self._judge.repeats, verdict.candidate)
            if repeat is not None:
                verdict = replace(verdict, rejection=repeat, pass_rate=None, rollouts=())
        rejection, warmup = line.settle(verdict.target, verdict.rejection, verdict.unfit)
        if not verdict.given_up:
            target = replace(verdict.target, retention=verdict.target.retention or (warmup and line.reachable))
            decided = replace(verdict, target=target, rejection=rejection, warmup=warmup)
            await asyncio.to_thread(self._write, decided)

    def _write(self, verdict: Verdict) -> None:
        image = self._spool.take(verdict)
        if verdict.rejection is not None:
            self._files.reject(verdict)
        else:
            assert image is not None, "what passed is spooled"
            self._files.keep(verdict, image)
        self._gallery.add(verdict, image)
        SAMPLES.labels(outcome(verdict)).inc()
