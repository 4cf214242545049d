"""Judges candidates: validator's verdict, contamination, duplicates, and the solver's pass rate.

What the served model answered is in the ledger, so that no attempt asks it again.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from dpe_api.generation_spec import SolverFilter
from dpe_api.launch import GenerationLaunch
from dpe_jobs import asking
from dpe_jobs.client import ModelClient
from dpe_jobs.generation.candidates import Candidate, Verdict
from dpe_jobs.generation.dedup import Seen, Thumbnail, pixel_digest, thumbnail
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.reserved import Earlier
from dpe_jobs.generation.roles import Rejection
from dpe_jobs.graders import grade
from dpe_jobs.ledger import Ledger
from dpe_jobs.seeds import derive


def difficulty(pass_rate: float, band: SolverFilter) -> Rejection | None:
    """Why the model cannot learn from it: it solves it too seldom or too often."""
    if pass_rate < band.min_pass_rate:
        return Rejection("TooHard", f"pass rate {pass_rate:.2f} is below minPassRate {band.min_pass_rate}")
    if pass_rate > band.max_pass_rate:
        return Rejection("TooEasy", f"pass rate {pass_rate:.2f} is above maxPassRate {band.max_pass_rate}")
    return None


def _key(candidate: Candidate) -> tuple[str, int, str, str, Thumbnail]:
    target = candidate.target
    return target.category, target.number, candidate.written.question, candidate.digest, candidate.thumbnail


class Judge:
    """One run's judgement: it remembers every candidate, so that none comes twice."""

    def __init__(
        self,
        launch: GenerationLaunch,
        client: ModelClient,
        ledger: Ledger,
        inspector: Inspector,
        seen: Seen,
        earlier: Iterable[Earlier] = (),
        warmed: Collection[str] = (),
    ) -> None:
        """`seen` is empty yet; `earlier` are samples of earlier rounds, which must not come again either; `warmed` are
        the categories of the warm-up, for which nothing is too hard or too easy.
        """
        self._warmed = warmed
        self._launch, self._client, self._ledger, self._inspector = launch, client, ledger, inspector
        self._seen = seen
        for sample in earlier:
            digest, small = pixel_digest(sample.image), thumbnail(sample.image)
            seen.add(sample.category, -1, sample.question, digest, small)

    def look(self, candidate: Candidate) -> Rejection | None:
        """What is known without asking anybody, but for repeats. A candidate that is sound is remembered."""
        if candidate.rejection is not None:
            return candidate.rejection
        rejection = self._inspector.look(candidate)
        if rejection is None:
            self._seen.add(*_key(candidate))
        return rejection

    def repeats(self, candidate: Candidate) -> Rejection | None:
        """Whether it repeats a sound one of its category with a lower number, among those that were looked at.

        Once all of those were, the answer is final; before that a None is not, and sparing a request is all it is for.
        """
        reason = self._seen.repeats(*_key(candidate))
        return (
            None if reason is None else Rejection(reason, "an earlier candidate or round asks the same of this picture")
        )

    async def solve(self, candidate: Candidate) -> Verdict:
        """The verdict by the served model's answers; a strong category is not asked. RequestFailed."""
        known = replace(candidate, image=b"")
        if candidate.target.retention:
            return Verdict(candidate.target, candidate.id, known)
        row = self._ledger.get(candidate.id)
        if row is None:
            row = await self._ask(candidate)
            await asyncio.to_thread(self._ledger.append, row)  # may flush, for as long as the store is away
        rollouts, written = tuple(row["rollouts"]), candidate.written
        passes = [grade(text, written.answer, written.answer_type, written.choices) for text in rollouts]
        pass_rate = sum(passes) / len(passes)
        rejection = difficulty(pass_rate, self._launch.generation.filter)
        verdict = Verdict(candidate.target, candidate.id, known, rejection, pass_rate, rollouts)
        return replace(verdict, rejection=None, unfit=rejection) if self._teaches(candidate, rejection) else verdict

    def _teaches(self, candidate: Candidate, rejection: Rejection | None) -> bool:
        """Whether a warm-up can learn from what GRPO cannot."""
        written = candidate.written
        return (
            rejection is not None
            and candidate.target.category in self._warmed
            and asking.response(written.question, written.answer, written.choices, written.answer_type) is not None
        )

    async def _ask(self, candidate: Candidate) -> dict[str, Any]:
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
