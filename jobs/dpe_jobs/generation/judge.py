"""Judges the candidates of a wave: validator's verdict, duplicates, contamination, and the solver's pass rate.

What the served model answered is in the ledger, so that no attempt asks it again. A request without an answer is an
error: the candidate is not kept, and not held against the model; too many end the stage.
"""

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dpe_api.generation_spec import SolverFilter
from dpe_api.launch import GenerationLaunch
from dpe_jobs import asking
from dpe_jobs.client import ModelClient, RequestFailed
from dpe_jobs.generation.candidates import Candidate, make
from dpe_jobs.generation.dedup import Questions, Reserved
from dpe_jobs.generation.planner import Plan, Target
from dpe_jobs.graders import grade
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import ProgressReporter, Transient
from dpe_jobs.seeds import derive

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a candidate. It holds no picture: that can be drawn again."""

    target: Target
    id: str
    question: str
    answer: str
    digest: str
    reason: str | None = None
    """Why it is rejected; None when it passed."""
    detail: str = ""
    pass_rate: float | None = None
    rollouts: tuple[str, ...] = ()


def difficulty(pass_rate: float, band: SolverFilter) -> tuple[str, str] | None:
    """Reason and detail when the model solves it too seldom or too often to learn from it."""
    if pass_rate < band.min_pass_rate:
        return "TooHard", f"pass rate {pass_rate:.2f} is below minPassRate {band.min_pass_rate}"
    if pass_rate > band.max_pass_rate:
        return "TooEasy", f"pass rate {pass_rate:.2f} is above maxPassRate {band.max_pass_rate}"
    return None


class Judge:
    """One run's judgement: it remembers every candidate, so that none comes twice."""

    def __init__(
        self,
        launch: GenerationLaunch,
        plan: Plan,
        client: ModelClient,
        ledger: Ledger,
        reserved: Reserved,
        progress: ProgressReporter,
    ) -> None:
        self._launch, self._plan, self._client, self._ledger = launch, plan, client, ledger
        self._reserved, self._progress = reserved, progress
        self._seen = Questions()
        self._judged = self._errors = 0

    async def judge(self, wave: Sequence[Target]) -> list[Verdict]:
        """Verdicts in the order of the wave. Transient "ErrorRate": too many requests brought no answer."""
        verdicts: list[Verdict | None] = [None] * len(wave)
        self._judged += len(wave)
        passed = {name: tally.kept for name, tally in self._plan.tallies.items()}
        candidates = enumerate(self._draw(wave))

        drawing = asyncio.Lock()

        async def worker() -> None:
            # one iterator for all workers: at most `concurrency` pictures are in memory
            while True:
                async with drawing:
                    # tens of milliseconds, in which the loop hears of answers and of a stop
                    found = await asyncio.to_thread(next, candidates, None)
                if found is None:
                    return
                place, candidate = found
                verdict = await self._verdict(candidate)
                verdicts[place] = verdict
                if verdict.reason is None:
                    passed[verdict.target.category] += 1
                    done = sum(min(passed[name], tally.quota) for name, tally in self._plan.tallies.items())
                    await asyncio.to_thread(self._progress.set, done)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._launch.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as trouble:
            # the first one ended the others; its own type says how the stage ends
            raise trouble.exceptions[0] from None
        return [verdict for verdict in verdicts if verdict is not None]

    def _draw(self, wave: Sequence[Target]) -> Iterator[Candidate | Verdict]:
        """Candidates to be solved, and verdicts where that is not needed; in order, so that the earlier one stays."""
        for target in wave:
            program = self._plan.tallies[target.category].program
            assert program is not None
            candidate = make(program, target, self._launch.round)
            trouble = candidate.trouble or self._repeats(candidate)
            if trouble is not None or target.retention:
                yield self._settled(candidate, trouble)
            else:
                yield candidate

    def _repeats(self, candidate: Candidate) -> tuple[str, str] | None:
        if self._reserved.holds(candidate.digest, candidate.picture):
            return "Contaminated", "probe or benchmarks have this picture, or nearly"
        reason = self._seen.repeats(candidate.written.question, candidate.digest, candidate.picture)
        return None if reason is None else (reason, "an earlier candidate asks the same of this picture, or nearly")

    async def _verdict(self, candidate: Candidate | Verdict) -> Verdict:
        if isinstance(candidate, Verdict):
            return candidate
        row = self._ledger.get(candidate.id)
        if row is None:
            try:
                row = await self._solve(candidate)
            except RequestFailed as error:
                return self._failed(candidate, error)
            await asyncio.to_thread(self._ledger.append, row)  # may flush, for as long as the store is away
        rollouts = tuple(row["rollouts"])
        written = candidate.written
        passes = [grade(text, written.answer, written.answer_type, written.choices) for text in rollouts]
        pass_rate = sum(passes) / len(passes)
        trouble = difficulty(pass_rate, self._launch.generation.filter)
        return self._settled(candidate, trouble, pass_rate, rollouts)

    async def _solve(self, candidate: Candidate) -> dict[str, Any]:
        """The ledger row: the served model's rollouts and their price."""
        band, written = self._launch.generation.filter, candidate.written
        answers = await self._client.ask(
            candidate.image,
            asking.prompt(written.question, written.choices, written.answer_type),
            n=band.rollouts,
            temperature=band.temperature,
            top_k=band.top_k,
            max_tokens=self._launch.max_tokens,
            seed=derive(self._launch.seed, "generation", "rollouts", candidate.id),
        )
        return {
            "id": candidate.id,
            "rollouts": list(answers.texts),
            "prompt_tokens": answers.prompt_tokens,
            "completion_tokens": answers.completion_tokens,
        }

    def _failed(self, candidate: Candidate, error: RequestFailed) -> Verdict:
        self._errors += 1
        log.warning("no answer for %s: %s", candidate.id, error)
        allowed = math.floor(self._launch.max_error_rate * self._judged)
        if self._errors > allowed:
            raise Transient(
                "ErrorRate",
                f"{self._errors} of {self._judged} candidates got no answer from the served model, more than "
                f"maxErrorRate allows ({allowed}); the last one: {error}",
            ) from error
        return self._settled(candidate, ("RequestFailed", str(error)))

    @staticmethod
    def _settled(
        candidate: Candidate,
        trouble: tuple[str, str] | None,
        pass_rate: float | None = None,
        rollouts: tuple[str, ...] = (),
    ) -> Verdict:
        reason, detail = trouble or (None, "")
        return Verdict(
            target=candidate.target,
            id=candidate.id,
            question=candidate.written.question,
            answer=candidate.written.answer,
            digest=candidate.digest,
            reason=reason,
            detail=detail,
            pass_rate=pass_rate,
            rollouts=rollouts,
        )
