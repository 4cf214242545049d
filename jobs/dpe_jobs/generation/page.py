"""`gallery.html`: kept and rejected candidates to leaf through, in the manner of a diagnosis's report."""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from dpe_api.artifacts import CategorySamples, GenerationSummary
from dpe_api.launch import GenerationLaunch
from dpe_jobs import pages
from dpe_jobs.diagnosis.failures import Failure, find_failures, shrink
from dpe_jobs.diagnosis.items import ITEMS
from dpe_jobs.diagnosis.page import FILTERS
from dpe_jobs.generation.gallery import KEPT, WARMUP, Gallery, Shown
from dpe_jobs.outputs import download_output
from dpe_jobs.questions import read_questions
from dpe_jobs.store import Store

PAGE = "gallery.html"
MAX_EXAMPLES = 120  # wrong answers of the diagnosis, with their pictures


@dataclass(frozen=True, slots=True)
class Group:
    """What is shown of one outcome of a category."""

    outcome: str
    of: int
    """How many candidates came out so."""
    shown: Sequence[Shown]

    @property
    def kept(self) -> bool:
        """They are samples."""
        return self.outcome in (KEPT, WARMUP)


@dataclass(frozen=True, slots=True)
class Category:
    """All that the page shows of one category."""

    samples: CategorySamples
    groups: Sequence[Group]
    """Kept ones first, then the most frequent reasons."""


def write(
    gallery: Gallery,
    summary: GenerationSummary,
    launch: GenerationLaunch,
    store: Store,
    out: Path,
    created_at: datetime,
) -> None:
    """Write the page. It reads the diagnosis and the probe for the examples that samples were asked for by."""
    shown = gallery.shown()
    examples = read_examples(store, launch, most_cited(shown))
    text = pages.render(
        "dpe_jobs.generation",
        "gallery",
        FILTERS,
        launch=launch,
        summary=summary,
        categories=[_category(one, shown) for one in summary.categories],
        shown=len(shown),
        examples=examples,
        anchors={example.id: f"example-{number}" for number, example in enumerate(examples, 1)},
        band=launch.generation.filter,
        created_at=created_at,
    )
    out.write_text(text, encoding="utf-8")


def _category(samples: CategorySamples, shown: Iterable[Shown]) -> Category:
    reasons = sorted(samples.rejected.items(), key=lambda item: (-item[1], item[0]))
    counts = {KEPT: samples.kept, WARMUP: samples.warmup, **dict(reasons)}
    mine = [one for one in shown if one.category == samples.name]
    groups = [
        Group(outcome, count, sorted((one for one in mine if one.outcome == outcome), key=lambda one: one.order))
        for outcome, count in counts.items()
        if count
    ]
    return Category(samples, groups)


def most_cited(shown: Iterable[Shown]) -> list[str]:
    """Ids of the diagnosis's examples of these candidates, those that most of them name first."""
    cited = Counter(example for one in shown for example in one.examples)
    ranked = sorted(cited.items(), key=lambda item: (-item[1], item[0]))
    return [example for example, _ in ranked[:MAX_EXAMPLES]]


def read_examples(store: Store, launch: GenerationLaunch, ids: Collection[str]) -> list[Failure]:
    """Wrong answers of the diagnosis with their pictures, in the order of `ids`; one that is not there is left out."""
    if not ids:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ITEMS
        download_output(store, launch.diagnosis_artifact, ITEMS, path)
        found = find_failures(path, frozenset(ids))
    missing = set(found)
    for question in read_questions(store, launch.probe, categories=False, only=found.keys()):
        found[question.id] = replace(found[question.id], picture=shrink(question.image))
        missing.discard(question.id)
        if not missing:
            break
    return [found[name] for name in ids if name in found]
