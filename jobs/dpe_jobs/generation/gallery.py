"""Which candidates `gallery.html` shows: a few of each category and outcome, drawn at random, always the same ones.

They are chosen as they are decided, by a hash of their ids, so that neither memory nor the page grows with the run and
the choice over all shards is that of one shard that made everything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from dpe_api.artifacts import Quota
from dpe_jobs.diagnosis.failures import Picture, readable, shrink
from dpe_jobs.generation.candidates import Verdict
from dpe_jobs.seeds import derive

SHOWN = "gallery.jsonl"
"""What a shard chose, for the page of all."""
KEPT = "Kept"
WARMUP = "Warmup"
MAX_SHOWN = 240  # candidates on the page; their pictures have at most failures.MAX_IMAGE_BYTES each
PER_OUTCOME = 12  # of one category
_PICTURED = 60  # categories of which candidates are shown; of all others there are counts
_OUTCOMES = 4  # that a category has as a rule: so its part of the page is filled
_FEW = 12  # choices and examples of one candidate that are shown
_NAME = 120  # characters


@dataclass(frozen=True, slots=True)
class Shown:
    """One candidate as the page shows it. Its texts are data from people and models: escaped where they are shown."""

    id: str
    category: str
    outcome: str
    """KEPT, WARMUP, or the reason of its rejection."""
    source: str
    weakness: str
    examples: tuple[str, ...]
    """Ids of the diagnosis's wrong answers that asked for it."""
    made: bool
    """False: nothing was made of the target, the fields below are empty."""
    detail: str = ""
    question: str = ""
    choices: tuple[str, ...] = ()
    answer: str = ""
    answer_type: str = ""
    licence: str = ""
    pass_rate: float | None = None
    retention: bool = False
    picture: Picture | None = None
    """None: it could not be shown."""

    @property
    def order(self) -> tuple[int, str]:
        """By which the first few are shown."""
        return _order(self.id)


_LINE = TypeAdapter(Shown)


def _order(candidate: str) -> tuple[int, str]:
    return derive(0, "gallery", candidate), candidate


def outcome(verdict: Verdict) -> str:
    """KEPT, WARMUP, or the reason of its rejection."""
    if verdict.rejection is not None:
        return verdict.rejection.reason
    return WARMUP if verdict.warmup else KEPT


def describe(verdict: Verdict, image: bytes | None) -> Shown:
    """A decided candidate, with its picture made small."""
    target, candidate, rejection = verdict.target, verdict.candidate, verdict.rejection
    shown = Shown(
        id=verdict.id,
        category=target.category,
        outcome=outcome(verdict),
        source=readable(target.source, _NAME),
        weakness=readable(target.aim.text),
        examples=tuple(target.aim.examples[:_FEW]),
        made=candidate is not None,
        detail="" if rejection is None else readable(rejection.detail),
        pass_rate=verdict.pass_rate,
        retention=target.retention,
    )
    if candidate is None:
        return shown
    written = candidate.written
    return replace(
        shown,
        question=readable(written.question),
        choices=tuple(readable(choice) for choice in written.choices[:_FEW]),
        answer=readable(written.answer),
        answer_type=str(written.answer_type) if written.question else "",
        licence=readable(candidate.origin.licence, _NAME),
        picture=None if image is None else shrink(image),
    )


class Gallery:
    """The first few of each category and outcome, by the hash of their ids."""

    def __init__(self, categories: Iterable[Quota]) -> None:
        """Candidates are shown of the categories with the largest quotas."""
        largest = sorted(categories, key=lambda quota: (-quota.quota, quota.name))[:_PICTURED]
        self._most = max(min(MAX_SHOWN // (_OUTCOMES * max(len(largest), 1)), PER_OUTCOME), 1)
        self._chosen: dict[str, dict[str, list[Shown]]] = {quota.name: {} for quota in largest}

    def wants(self, verdict: Verdict) -> bool:
        """Whether a candidate with this outcome would be among the first few now. Once it is not, it never will be."""
        return self._has_room(verdict.target.category, outcome(verdict), _order(verdict.id))

    def _has_room(self, category: str, outcome: str, order: tuple[int, str]) -> bool:
        if category not in self._chosen:
            return False
        known = self._chosen[category].get(outcome, [])
        return len(known) < self._most or order < known[-1].order

    def add(self, verdict: Verdict, image: bytes | None) -> None:
        """Take in a decided candidate; `image` is None when nothing was made, or when nobody kept its picture."""
        pictured = image is not None or verdict.candidate is None
        if pictured and self.wants(verdict):
            self.take(describe(verdict, image))

    def take(self, shown: Shown) -> None:
        """Take in one that is described already, unless there are enough before it."""
        if not self._has_room(shown.category, shown.outcome, shown.order):
            return
        known = [*self._chosen[shown.category].get(shown.outcome, ()), shown]
        # a new list: somebody may be asking `wants` meanwhile
        self._chosen[shown.category][shown.outcome] = sorted(known, key=lambda one: one.order)[: self._most]

    def __iter__(self) -> Iterator[Shown]:
        for outcomes in self._chosen.values():
            for known in outcomes.values():
                yield from known

    def shown(self) -> list[Shown]:
        """At most MAX_SHOWN: the first of every category and outcome, then the second ones, and so on."""
        groups = [known for outcomes in self._chosen.values() for known in outcomes.values()]
        ranked = [(place, one) for known in groups for place, one in enumerate(known)]
        ranked.sort(key=lambda entry: (entry[0], entry[1].outcome != KEPT, entry[1].order))
        return [one for _, one in ranked[:MAX_SHOWN]]

    def write(self, path: Path) -> None:
        """All that was chosen, a line each."""
        path.write_bytes(b"".join(_LINE.dump_json(one) + b"\n" for one in self))


def read(lines: bytes) -> Sequence[Shown]:
    """What `Gallery.write` wrote."""
    return [_LINE.validate_json(line) for line in lines.splitlines()]
